//! A shell of a daemon's machine, as any other.

use bytes::Bytes;
use creel_proto::v1 as wire;
use creel_proto::v1::shell_event::Event;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::api::ApiError;
use crate::runtime::{Outcome, SHELL_QUEUE, Shell, ShellInput, Verdict};

/// Follows the call's answer in the background.
pub(super) fn follow(events: Streaming<wire::ShellEvent>, input: mpsc::Sender<ShellInput>) -> Shell {
    let (shown, output) = mpsc::channel(SHELL_QUEUE);
    let (told, end) = oneshot::channel();
    let token = CancellationToken::new();
    let hang_up = token.clone().drop_guard();
    tokio::spawn(async move {
        let verdict = tokio::select! {
            verdict = pass_on(events, shown) => verdict.unwrap_or_else(|error| Verdict::of(Outcome::internal(error))),
            // The call is dropped, and creeld hangs up.
            () = token.cancelled() => Verdict::of(Outcome::Cancelled),
        };
        let _ = told.send(verdict);
    });
    Shell { input, output, end, hang_up }
}

async fn pass_on(
    mut events: Streaming<wire::ShellEvent>,
    shown: mpsc::Sender<Bytes>,
) -> Result<Verdict, ApiError> {
    loop {
        let data = match events.message().await?.ok_or_else(ApiError::ended_early)?.event {
            Some(Event::Data(data)) => data,
            Some(Event::Verdict(verdict)) => return Ok(verdict.try_into()?),
            // Of a later version.
            None => continue,
        };
        if shown.send(data).await.is_err() {
            return Ok(Verdict::of(Outcome::Cancelled));
        }
    }
}
