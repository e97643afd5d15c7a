//! `Shell`: what is typed in, what is shown out, and the verdict at the end.
//!
//! Whoever cancels the call drops the stream of its answer, and with it the shell, which hangs up in the guest.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use creel_proto::v1 as wire;
use creel_proto::v1::shell_event::Event;
use creel_proto::v1::shell_request::Message;
use futures_util::{FutureExt, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::Events;
use crate::api::convert::machine_id;
use crate::api::convert::shell::{shell_input, shell_request};
use crate::api::gate::CallPlace;
use crate::api::status;
use crate::machines::Machines;
use crate::runtime::{Outcome, Shell, ShellInput, Verdict};

pub(super) async fn run(
    machines: &Machines,
    start: wire::ShellStart,
    messages: Streaming<wire::ShellRequest>,
    place: CallPlace,
) -> Result<Events<wire::ShellEvent>, Status> {
    let machine = machine_id(&start.machine_id).map_err(status::malformed)?;
    let request = shell_request(start).map_err(status::malformed)?;
    let shell = machines.shell(&machine, request).await.map_err(|error| status::shell_failed(&error))?;
    let Shell { input, output, end, hang_up } = shell;
    let (refuse, refused) = oneshot::channel();
    let typing = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(status) = type_in(messages, input).await {
            let _ = refuse.send(status);
        }
    }));
    let events = ShellEvents {
        output: Some(output),
        end: Some(end),
        refused: Some(refused),
        _typing: typing,
        _hang_up: hang_up,
        _place: place,
    };
    Ok(Box::pin(events))
}

/// Until the caller closes its side. One who thinks is not hurried.
async fn type_in(
    mut messages: Streaming<wire::ShellRequest>,
    input: mpsc::Sender<ShellInput>,
) -> Result<(), Status> {
    while let Some(wire::ShellRequest { message }) = messages.message().await? {
        let piece = match message {
            Some(Message::Start(_)) => {
                return Err(Status::invalid_argument("`start` may only be the first message of a call"));
            }
            Some(message) => shell_input(message).map_err(status::malformed)?,
            // Of a later version.
            None => continue,
        };
        // A shell that has ended takes no more; its end is told already.
        let _ = input.send(piece).await;
    }
    // Closing the input says nothing, but what is left of it should still arrive.
    Ok(())
}

/// The answer of one call.
struct ShellEvents {
    /// `None` once all has been sent.
    output: Option<mpsc::Receiver<Bytes>>,
    /// `None` once it was told.
    end: Option<oneshot::Receiver<Verdict>>,
    /// What the caller sent that makes no sense; `None` once nothing more comes of him.
    refused: Option<oneshot::Receiver<Status>>,
    _typing: AbortOnDropHandle<()>,
    _hang_up: DropGuard,
    _place: CallPlace,
}

impl Stream for ShellEvents {
    type Item = Result<wire::ShellEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(Poll::Ready(refused)) = self.refused.as_mut().map(|refused| refused.poll_unpin(context)) {
            self.refused = None;
            if let Ok(status) = refused {
                (self.output, self.end) = (None, None);
                return Poll::Ready(Some(Err(status)));
            }
        }
        if let Some(output) = &mut self.output {
            if let Some(data) = ready!(output.poll_recv(context)) {
                return Poll::Ready(Some(Ok(event(Event::Data(data)))));
            }
            self.output = None;
        }
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let told = ready!(end.poll_unpin(context));
        self.end = None;
        let verdict = told.unwrap_or_else(|_| Verdict::of(Outcome::internal("the shell's task was dropped")));
        Poll::Ready(Some(Ok(event(Event::Verdict(verdict.into())))))
    }
}

fn event(event: Event) -> wire::ShellEvent {
    wire::ShellEvent { event: Some(event) }
}
