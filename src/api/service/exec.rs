//! `Exec`: what the caller says goes to the exec's owner, and its news come back.
//!
//! Messages are taken from the transport one by one, each once the owner has heeded the one before: what the program does not
//! read stays at the caller's side of HTTP/2's window.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::exec_event::Event;
use creel_proto::v1::exec_start;
use futures_util::{FutureExt as _, Stream};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::{Events, check_name};
use crate::api::convert::exec::ask;
use crate::api::convert::machine_id;
use crate::api::gate::CallPlace;
use crate::api::status;
use crate::machines::{
    Asks, Attachment, Fingerprint, HeldExec, Holding, MAX_LINGER, Machines, NamedBy, NewsReader,
};
use crate::runtime::{ExecRequest, MachineId, OutputOffsets, Work};

pub(super) async fn run(
    machines: &Machines,
    start: wire::ExecStart,
    messages: Streaming<wire::ExecRequest>,
    place: CallPlace,
) -> Result<Events<wire::ExecEvent>, Status> {
    let Attachment { exec_id, input_offset, asks, news } = attachment(machines, start).await?;
    let (refuse, refused) = oneshot::channel();
    let listening = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(status) = listen(messages, asks).await {
            let _ = refuse.send(status);
        }
    }));
    let attached = Some(Event::Attached(wire::ExecAttached { exec_id, input_offset }));
    let refused = Some(refused);
    Ok(Box::pin(ExecEvents { attached, news, over: false, refused, _listening: listening, _place: place }))
}

async fn attachment(machines: &Machines, start: wire::ExecStart) -> Result<Attachment, Status> {
    let machine = machine_id(&start.machine_id).map_err(status::malformed)?;
    let linger = start.linger_us.map(Duration::from_micros);
    if let Some(linger) = linger.filter(|linger| *linger > MAX_LINGER) {
        let text = format!("`linger_us` is {linger:?}, more than the {MAX_LINGER:?} that it may be");
        return Err(Status::invalid_argument(text));
    }
    let holding = Holding { linger, acknowledges: start.acknowledges };
    if let Some(id) = &start.exec_id {
        check_name(id, "exec_id")?;
    }
    if let Some(exec_start::Work::Attach(wire::Attach { stdout_offset: stdout, stderr_offset: stderr })) =
        start.work
    {
        let Some(id) = &start.exec_id else {
            return Err(Status::invalid_argument("`exec_id` has to name the exec to attach to"));
        };
        let attached = machines.attach(&machine, id, OutputOffsets { stdout, stderr }, holding).await;
        return attached.map_err(|error| status::exec_failed(&error));
    }
    let fingerprint = start.exec_id.as_ref().map_or([0; 32], |_| fingerprint(&start));
    let (id, named_by) = match start.exec_id {
        Some(id) => (id, NamedBy::Caller),
        None => (MachineId::random().map_err(status::internal)?.to_string(), NamedBy::Us),
    };
    let work: Work = start.work.try_into().map_err(status::malformed)?;
    // What the clock can't express is no limit.
    let deadline =
        start.timeout_us.and_then(|limit| Instant::now().checked_add(Duration::from_micros(limit)));
    let input = start.input || matches!(work, Work::WriteFiles { .. });
    let request = ExecRequest { id, work, deadline };
    let exec = HeldExec { request, named_by, input, fingerprint, holding };
    machines.start(&machine, exec).await.map_err(|error| status::exec_failed(&error))
}

/// Of what is done, whoever holds it and how.
fn fingerprint(start: &wire::ExecStart) -> Fingerprint {
    let mut digest = Sha256::new();
    // A field at a time: a copy of the whole would be as large as that.
    digest.update([u8::from(start.input)]);
    digest.update(start.timeout_us.map_or(0, |limit| limit.saturating_add(1)).to_be_bytes());
    if let Some(work) = &start.work {
        let mut encoded = Vec::with_capacity(work.encoded_len());
        work.encode(&mut encoded);
        digest.update(encoded);
    }
    digest.finalize().into()
}

/// Until the caller closes its side. One who thinks is not hurried.
async fn listen(mut messages: Streaming<wire::ExecRequest>, asks: Asks) -> Result<(), Status> {
    while let Some(wire::ExecRequest { message }) = messages.message().await? {
        // None is of a later version.
        if let Some(message) = message {
            asks.say(ask(message).map_err(status::malformed)?).await;
        }
    }
    asks.say(crate::machines::Ask::CloseInput).await;
    Ok(())
}

/// The events of one call. Dropped, its caller is not attached any more.
struct ExecEvents {
    /// `None` once it was told.
    attached: Option<Event>,
    news: NewsReader,
    /// There is nothing more to tell.
    over: bool,
    /// What the caller sent that makes no sense; `None` once nothing more comes of him.
    refused: Option<oneshot::Receiver<Status>>,
    _listening: AbortOnDropHandle<()>,
    _place: CallPlace,
}

impl Stream for ExecEvents {
    type Item = Result<wire::ExecEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(attached) = self.attached.take() {
            return Poll::Ready(Some(Ok(event(attached))));
        }
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(Poll::Ready(refused)) = self.refused.as_mut().map(|refused| refused.poll_unpin(context)) {
            self.refused = None;
            if let Ok(status) = refused {
                self.over = true;
                return Poll::Ready(Some(Err(status)));
            }
        }
        let Some(news) = ready!(self.news.poll_next(context)) else { return Poll::Ready(None) };
        Poll::Ready(Some(match news {
            Ok(news) => Ok(event(news.into())),
            Err(why) => {
                self.over = true;
                Err(status::detached(&why))
            }
        }))
    }
}

fn event(event: Event) -> wire::ExecEvent {
    wire::ExecEvent { event: Some(event) }
}
