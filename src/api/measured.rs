//! Counts and times the calls of the API: a layer around all services.
//!
//! A call ends when its answer does, and gRPC says how at that end, in the trailers. An answer that is not read to its end
//! was given up by the caller. Labels come from the contract's own list of methods, never from what a caller asks for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use creel_proto::v1_methods::METHODS;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Code, Status};
use tower::Layer;

use crate::metrics::Metrics;

/// What is not of the contract.
const OTHER: (&str, &str) = ("other", "other");
const HEALTH: &str = "grpc.health.v1.Health";

/// Puts [`MeasuredService`] around services.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    metrics: Metrics,
}

impl Measured {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for Measured {
    type Service = MeasuredService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MeasuredService { inner, metrics: self.metrics.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(super) struct MeasuredService<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Service<http::Request<Body>> for MeasuredService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut call = Call::new(self.metrics.clone(), request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (parts, body) = answer.await?.into_parts();
            // An answer that is an error has its trailers in front, and no body.
            call.note(&parts.headers);
            if body.is_end_stream() {
                drop(call);
                return Ok(http::Response::from_parts(parts, body));
            }
            Ok(http::Response::from_parts(parts, Body::new(MeasuredBody { body, call: Some(call) })))
        })
    }
}

/// One call; counted when it is dropped.
#[derive(Debug)]
struct Call {
    metrics: Metrics,
    method: (&'static str, &'static str),
    started: Instant,
    code: Code,
}

impl Call {
    fn new(metrics: Metrics, path: &str) -> Self {
        Self { metrics, method: known(path), started: Instant::now(), code: Code::Cancelled }
    }

    fn note(&mut self, headers: &http::HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (service, method) = self.method;
        self.metrics.api_call(service, method, name(self.code), self.started.elapsed());
    }
}

/// An answer on its way.
#[derive(Debug)]
struct MeasuredBody {
    body: Body,
    /// Until its end has come, so that whoever hears of the end finds it counted.
    call: Option<Call>,
}

impl http_body::Body for MeasuredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(mut call) = self.call.take()
                {
                    call.note(trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => {
                if let Some(mut call) = self.call.take() {
                    call.code = status.code();
                }
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Service and method of a path, if they are of the contract.
fn known(path: &str) -> (&'static str, &'static str) {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return OTHER;
    };
    let health = [(HEALTH, "Check"), (HEALTH, "Watch")];
    METHODS.iter().chain(&health).find(|known| **known == (service, method)).copied().unwrap_or(OTHER)
}

/// As the gRPC specification writes them.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn measured(answer: impl FnOnce() -> http::Response<Body>) -> (Metrics, http::Response<Body>) {
        let metrics = Metrics::default();
        let mut answer = Some(answer());
        let inner = tower::service_fn(move |_: http::Request<Body>| {
            let answer = answer.take().unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let request = http::Request::builder().uri("/creel.v1.Machines/Exec").body(Body::empty()).unwrap();
        let answer = Measured::new(metrics.clone()).layer(inner).call(request).await.unwrap();
        (metrics, answer)
    }

    fn counted(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render();
        let calls = text.lines().filter_map(|line| line.strip_prefix("creel_api_calls_total{"));
        calls.map(str::to_owned).collect()
    }

    fn exec(code: &str) -> Vec<String> {
        vec![format!("service=\"creel.v1.Machines\",method=\"Exec\",code=\"{code}\"}} 1")]
    }

    #[tokio::test]
    async fn a_refusal_is_counted_at_once() {
        let (metrics, answer) = measured(|| Status::permission_denied("no").into_http()).await;
        assert_eq!(counted(&metrics), exec("PERMISSION_DENIED"));
        drop(answer);
        assert_eq!(counted(&metrics), exec("PERMISSION_DENIED"), "once");
    }

    #[tokio::test]
    async fn an_answer_is_counted_at_its_end_as_its_trailers_say() {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().unwrap());
        let frames = [Ok::<_, Status>(Frame::data(Bytes::from("x"))), Ok(Frame::trailers(trailers))];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let (metrics, answer) = measured(|| http::Response::new(Body::new(body))).await;
        assert!(counted(&metrics).is_empty(), "it goes on");
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        assert_eq!(counted(&metrics), exec("NOT_FOUND"));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_to_its_end_was_given_up() {
        let body =
            http_body_util::StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Status>>());
        let (metrics, answer) = measured(|| http::Response::new(Body::new(body))).await;
        drop(answer);
        assert_eq!(counted(&metrics), exec("CANCELLED"));
    }

    #[test]
    fn labels_come_from_the_contract_alone() {
        assert_eq!(known("/creel.v1.Machines/Create"), ("creel.v1.Machines", "Create"));
        assert_eq!(known("/grpc.health.v1.Health/Watch"), (HEALTH, "Watch"));
        for path in ["", "/", "//", "/creel.v1.Machines/", "/creel.v1.Machines/Create2", "/x/y", "/a\"b/\n"] {
            assert_eq!(known(path), OTHER, "{path:?}");
        }
    }
}
