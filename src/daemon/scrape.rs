//! Serves the metrics over HTTP: `GET /metrics` at `daemon.metrics`, for programs of this host.
//!
//! A scraper gets a text that is made before it is sent, so a slow one holds up nobody and nothing but that text; and it
//! has a connection for one request and for a few seconds, of which there are few.

mod socket;
mod sources;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::socket::Listener;
pub(super) use self::socket::Scrape;
pub(super) use self::sources::read_on_scrape;
use crate::metrics::{self, Metrics};

const PATH: &str = "/metrics";

/// More wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 8;

/// From the first byte to the last, and for the head of the request alone.
const CONNECTION_BOUND: Duration = Duration::from_secs(10);
const HEAD_BOUND: Duration = Duration::from_secs(5);

/// For the head of a request: the least that hyper takes, and some forty times what a scraper sends.
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;

/// Descriptors or memory are short: there is no event that says when they no longer are.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

impl Scrape {
    /// Serves for as long as it is polled.
    pub(super) async fn serve(listener: Listener, metrics: Metrics) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // It is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let metrics = metrics.clone();
            match listener.accept().await {
                Ok(stream) => drop(tokio::spawn(async move {
                    if timeout(CONNECTION_BOUND, answer(stream, metrics)).await.is_err() {
                        debug!("closed the connection of a scraper that took too long");
                    }
                    drop(place);
                })),
                Err(error) => {
                    warn!(%error, "failed to accept a scraper's connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// One connection of one request.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, metrics: Metrics) {
    let service = service_fn(move |request| {
        let metrics = metrics.clone();
        async move { Ok::<_, Infallible>(respond(&request, metrics).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_BOUND)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        // `printf ... | nc -U` has said all that it will.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a scraper's connection failed");
    }
}

async fn respond(request: &Request<Incoming>, metrics: Metrics) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != PATH {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = Full::from("metrics are at /metrics\n");
        return response;
    }
    if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
        return response;
    }
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(text) => {
            let content_type = hyper::header::HeaderValue::from_static(metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            *response.body_mut() = Full::from(text);
        }
        Err(error) => {
            warn!(%error, "failed to read the metrics");
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    response
}

/// Opened, and who may read is said; the caller keeps the value for as long as it is served.
pub(super) fn start(scrape: Option<Scrape>, metrics: Metrics) -> io::Result<Option<socket::Kept>> {
    let Some(scrape) = scrape else { return Ok(None) };
    let (listener, kept) = scrape.listen()?;
    info!("metrics at {listener}, path {PATH}");
    tokio::spawn(Scrape::serve(listener, metrics));
    Ok(Some(kept))
}
