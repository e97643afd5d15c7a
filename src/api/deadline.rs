//! A caller's own deadline (`grpc-timeout` of the gRPC protocol) ends its call with DEADLINE_EXCEEDED.
//!
//! tonic ends it too, but as CANCELLED, which says that the caller has given it up. So this is a moment earlier.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tower::Layer;

/// How much earlier. Timers have milliseconds.
const EARLIER: Duration = Duration::from_millis(3);

/// Ends calls whose time is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline;

impl<S> Layer<S> for Deadline {
    type Service = InTime<S>;

    fn layer(&self, inner: S) -> InTime<S> {
        InTime { inner }
    }
}

/// A service whose calls end in time. Answers that have begun do not: their callers hang up.
#[derive(Debug, Clone)]
pub(super) struct InTime<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for InTime<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let limit = request.headers().get("grpc-timeout").and_then(|text| parse(text.to_str().ok()?));
        // From now on, as tonic counts, and not from when somebody first asks for the answer.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit.saturating_sub(EARLIER)));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Some(deadline) = deadline else { return answer.await };
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    Ok(Status::deadline_exceeded("the call's own deadline (`grpc-timeout`) is over")
                        .into_http())
                }
            }
        })
    }
}

/// At most eight digits and a unit ("gRPC over HTTP2", Timeout). What is none is not looked at.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_takes_longer_ends_by_that_name_before_tonic_ends_it_by_another() {
        let never = tower::service_fn(|_: http::Request<()>| {
            std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
        });
        let mut calls = Deadline.layer(never);
        let request = http::Request::builder().header("grpc-timeout", "50m").body(()).unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(50), calls.call(request)).await;
        assert_eq!(answer.expect("it is in time").unwrap().headers()["grpc-status"], "4");
        let request = http::Request::builder().body(()).unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(100), calls.call(request)).await.is_err(),
            "it has none"
        );
    }

    #[test]
    fn timeouts_are_as_the_protocol_has_them() {
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        let units = ["2M", "3S", "4m", "5u", "6n"].map(|text| parse(text).map(|time| time.as_nanos()));
        assert_eq!(units, [120_000_000_000, 3_000_000_000, 4_000_000, 5_000, 6].map(Some));
        for wrong in ["", "S", "1", "1s", "123456789S", "+1S", "-1S", "1 S", "1é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
