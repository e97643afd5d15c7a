//! Every call has an id: the caller's own, or one of ours. It stands in the call's span, and in the answer's metadata.

use std::task::{Context, Poll};

use tonic::codegen::{BoxFuture, Service, http};
use tower::Layer;
use tracing::{Instrument, debug, field, info, info_span};

use super::connection::Caller;
use crate::runtime::MachineId;

/// In a request's metadata, if the caller chose one, and in an answer's.
pub const REQUEST_ID: &str = "x-request-id";

/// Longer ones are not looked at.
const MAX_BYTES: usize = 128;

/// OK and PERMISSION_DENIED.
const QUIET: [&str; 2] = ["0", "7"];

/// Gives calls their ids.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identify;

impl<S> Layer<S> for Identify {
    type Service = Identified<S>;

    fn layer(&self, inner: S) -> Identified<S> {
        Identified { inner }
    }
}

/// A service whose calls have ids.
#[derive(Debug, Clone)]
pub(super) struct Identified<S> {
    inner: S,
}

impl<S, B, C> Service<http::Request<B>> for Identified<S>
where
    S: Service<http::Request<B>, Response = http::Response<C>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    C: 'static,
{
    type Response = http::Response<C>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let id = id_of(request.headers());
        let span = info_span!(
            "call",
            request_id = %id,
            call = %request.uri().path(),
            uid = request.extensions().get::<Caller>().map(|caller| caller.credentials.uid),
            tenant = field::Empty,
            workflow = field::Empty,
            machine = field::Empty,
        );
        let answer = span.in_scope(|| self.inner.call(request));
        let answering = async move {
            let mut answer = answer.await?;
            // An answer that begins with a status has nothing else: a refusal, for which somebody will ask. Users without
            // any right, who get no other, can't fill the log.
            let status = answer.headers().get("grpc-status").and_then(|code| code.to_str().ok());
            match status {
                Some(code) if !QUIET.contains(&code) => info!(status = code, "refused"),
                status => debug!(status, "answered"),
            }
            // What `id_of` lets through is a header's value.
            if let Ok(id) = http::HeaderValue::from_str(&id) {
                answer.headers_mut().insert(REQUEST_ID, id);
            }
            Ok(answer)
        };
        Box::pin(answering.instrument(span))
    }
}

/// The caller's, if it is one that can be shown, else a random one.
fn id_of(headers: &http::HeaderMap) -> String {
    let chosen = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    chosen.filter(|id| is_sane(id)).map_or_else(random, str::to_owned)
}

fn is_sane(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.bytes().all(plain)
}

/// A kernel without random bytes has other troubles; a call is not refused for that.
fn random() -> String {
    MachineId::random().map_or_else(|_| "unknown".to_owned(), |id| format!("r-{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_shown_is_taken_over() {
        for (id, sane) in [("a-1_2.3:4/5", true), ("", false), ("a b", false), ("a\"b", false), ("é", false)]
        {
            assert_eq!(is_sane(id), sane, "{id}");
        }
        assert!(is_sane(&"a".repeat(MAX_BYTES)) && !is_sane(&"a".repeat(MAX_BYTES + 1)));
        let none = http::HeaderMap::new();
        assert_ne!(id_of(&none), id_of(&none));
    }
}
