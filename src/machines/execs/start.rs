//! Starting an exec that its caller holds, and attaching to one.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::attachment::{Attachment, ended};
use super::owner::{Attach, Owner};
use crate::machines::entry::{Entry, Stage};
use crate::machines::error::ExecError;
use crate::machines::exec_ids::NamedBy;
use crate::machines::registry::Machines;
use crate::runtime::streams::{input, output};
use crate::runtime::{ExecRequest, ExecStreams, MachineId, OutputOffsets, Work};

/// The longest that an exec waits for a caller.
pub const MAX_LINGER: Duration = Duration::from_secs(600);

/// How many callers may be about to attach to one exec.
const ORDERS_QUEUE: usize = 1;

/// Of what was asked, so that it is known when it is asked again.
pub type Fingerprint = [u8; 32];

/// An exec to be held by its caller.
#[derive(Debug)]
pub struct HeldExec {
    pub request: ExecRequest,
    pub named_by: NamedBy,
    /// Whether the program reads what its callers send.
    pub input: bool,
    pub fingerprint: Fingerprint,
    pub holding: Holding,
}

/// How a caller holds an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// How long the exec waits for another one when this one has gone; zero: it is cancelled. At most [`MAX_LINGER`].
    /// `None`: what was said before, at first zero.
    pub linger: Option<Duration>,
    /// The caller acknowledges output by itself.
    pub acknowledges: bool,
}

impl Machines {
    /// Starts something in a machine, and attaches its caller. One that has ended answers with the verdict that it ended
    /// with. An exec of a chosen id that is asked for again, while it waits for a caller who has acknowledged nothing,
    /// is attached to.
    ///
    /// # Errors
    /// When there is no such machine, none that is ready, or the id has been used.
    pub async fn start(&self, id: &MachineId, exec: HeldExec) -> Result<Attachment, ExecError> {
        let entry = self.registry.find(id).ok_or_else(|| ExecError::Unknown(id.clone()))?;
        let HeldExec { request, named_by, input: reads, fingerprint, holding } = exec;
        let exec_id = request.id.clone();
        let machine = match entry.stage() {
            Stage::SettingUp => return Err(ExecError::SettingUp(id.clone())),
            Stage::Ready(machine) => machine,
            Stage::Ending(_) | Stage::Stuck(..) | Stage::Ended(_) | Stage::Forgotten => {
                // As large as its caller made it.
                drop(request);
                return Ok(ended(exec_id, entry.last_verdict().await?));
            }
        };
        let duplicate = || ExecError::Duplicate { machine: id.clone(), exec: exec_id.clone() };
        // Ids that we made are told, and a caller may choose one of those.
        let held = entry.execs.find(&exec_id).map_or(Ok(()), |_| Err(duplicate()));
        if let Err(refused) = held.and_then(|()| entry.take_exec_id(&exec_id, named_by)) {
            let offsets = OutputOffsets::default();
            let again = Order { offsets, holding, repeats: Some(fingerprint) };
            let attached = attach(&entry, &exec_id, again).await;
            return attached.map_err(|_| refused);
        }
        let (output, reader) = output();
        let terminal = matches!(&request.work, Work::Program { terminal: Some(_), .. });
        let (writer, reading) = if reads || terminal {
            let (writer, reading) = input();
            if !reads {
                // Its sizes come this way.
                writer.end();
            }
            (Some(writer), Some(reading))
        } else {
            (None, None)
        };
        let (orders, queue) = mpsc::channel(ORDERS_QUEUE);
        let place = entry.execs.hold(exec_id.clone(), orders);
        let cancel = CancellationToken::new();
        let (registry, streams) = (self.registry.clone(), ExecStreams { input: reading, output });
        let (running, given_up) = (entry.clone(), cancel.clone());
        let run = async move { registry.execute(&running, &*machine, request, streams, given_up).await };
        let execs = entry.execs.clone();
        let owner =
            Owner { exec_id, execs, orders: queue, reader, writer, reads, fingerprint, cancel, place };
        Ok(owner.spawn(holding, run))
    }

    /// Attaches a caller to an exec that goes on, or whose end was not told; whoever was attached is not any more. Of a
    /// machine that has ended, all that is left is the verdict that it ended with.
    ///
    /// # Errors
    /// When there is no such machine or exec, or its output can't be read from there. Then nothing has changed.
    pub async fn attach(
        &self,
        id: &MachineId,
        exec_id: &str,
        offsets: OutputOffsets,
        holding: Holding,
    ) -> Result<Attachment, ExecError> {
        let entry = self.registry.find(id).ok_or_else(|| ExecError::Unknown(id.clone()))?;
        match attach(&entry, exec_id, Order { offsets, holding, repeats: None }).await {
            Err(ExecError::UnknownExec { .. }) => {}
            answered => return answered,
        }
        match entry.stage() {
            Stage::SettingUp => Err(ExecError::SettingUp(id.clone())),
            Stage::Ready(_) => Err(unknown(&entry, exec_id)),
            Stage::Ending(_) | Stage::Stuck(..) | Stage::Ended(_) | Stage::Forgotten => {
                Ok(ended(exec_id.to_owned(), entry.last_verdict().await?))
            }
        }
    }
}

struct Order {
    offsets: OutputOffsets,
    holding: Holding,
    repeats: Option<Fingerprint>,
}

async fn attach(entry: &Entry, exec_id: &str, order: Order) -> Result<Attachment, ExecError> {
    let owner = entry.execs.find(exec_id).ok_or_else(|| unknown(entry, exec_id))?;
    let Order { offsets, holding, repeats } = order;
    let (reply, answer) = oneshot::channel();
    let attach = Attach { offsets, holding, repeats, reply };
    // One that is given up at this moment takes no more.
    owner.send(attach).await.map_err(|_| unknown(entry, exec_id))?;
    match answer.await {
        Ok(Ok(attachment)) => Ok(attachment),
        Ok(Err(why)) => Err(ExecError::Offset { exec: exec_id.to_owned(), why }),
        Err(_) => Err(unknown(entry, exec_id)),
    }
}

fn unknown(entry: &Entry, exec_id: &str) -> ExecError {
    ExecError::UnknownExec { machine: entry.id.clone(), exec: exec_id.to_owned() }
}
