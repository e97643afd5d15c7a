//! What is done in machines, beside making and ending them: execs that this process waits for, signals and shells.

use tokio_util::sync::CancellationToken;

use super::entry::{Entry, Stage};
use super::error::{ExecError, ShellError, SignalError};
use super::events::Happening;
use super::exec_ids::{NamedBy, Unusable};
use super::registry::{Machines, Registry};
use crate::runtime::{ExecRequest, ExecStreams, Machine, MachineId, Outcome, Shell, ShellRequest, Verdict};

impl Machines {
    /// Runs something in a machine, see [`crate::runtime::Machine::exec`]. One that has ended answers with the verdict
    /// that it ended with. An id that a caller chose may be used once in the machine's life.
    ///
    /// # Errors
    /// When there is no such machine, none that is ready, or the id has been used.
    pub async fn exec(
        &self,
        id: &MachineId,
        request: ExecRequest,
        named_by: NamedBy,
        streams: ExecStreams,
        cancel: CancellationToken,
    ) -> Result<Verdict, ExecError> {
        let entry = self.registry.find(id).ok_or_else(|| ExecError::Unknown(id.clone()))?;
        match entry.stage() {
            Stage::SettingUp => Err(ExecError::SettingUp(id.clone())),
            Stage::Ready(machine) => {
                entry.take_exec_id(&request.id, named_by)?;
                Ok(self.registry.execute(&entry, &*machine, request, streams, cancel).await)
            }
            Stage::Ending(_) | Stage::Stuck(..) | Stage::Ended(_) | Stage::Forgotten => {
                // As large as its caller made it.
                drop(request);
                entry.last_verdict().await
            }
        }
    }

    /// Sends a signal to the process group of an exec that runs, see [`crate::runtime::Machine::signal`].
    ///
    /// # Errors
    /// When there is no such machine, none that is ready, or no such exec runs in it.
    pub async fn signal(&self, id: &MachineId, exec_id: &str, signal: i32) -> Result<(), SignalError> {
        let entry = self.registry.find(id).ok_or_else(|| SignalError::Unknown(id.clone()))?;
        match entry.stage() {
            Stage::SettingUp => Err(SignalError::SettingUp(id.clone())),
            Stage::Ready(machine) => machine
                .signal(exec_id, signal)
                .await
                .map_err(|why| SignalError::Machine { machine: id.clone(), why }),
            Stage::Ending(_) | Stage::Stuck(..) | Stage::Ended(_) | Stage::Forgotten => {
                Err(SignalError::Ended(id.clone()))
            }
        }
    }

    /// Opens a shell in a machine, see [`crate::runtime::Machine::shell`].
    ///
    /// # Errors
    /// When there is no such machine, none that is ready, or it opens none.
    pub async fn shell(&self, id: &MachineId, request: ShellRequest) -> Result<Shell, ShellError> {
        let entry = self.registry.find(id).ok_or_else(|| ShellError::Unknown(id.clone()))?;
        match entry.stage() {
            Stage::SettingUp => Err(ShellError::SettingUp(id.clone())),
            Stage::Ready(machine) => {
                machine.shell(request).await.map_err(|why| ShellError::Machine { machine: id.clone(), why })
            }
            Stage::Ending(_) | Stage::Stuck(..) | Stage::Ended(_) | Stage::Forgotten => {
                Err(ShellError::Ended(id.clone()))
            }
        }
    }
}

impl Registry {
    /// Runs something in a machine that is ready: counted, measured and told of.
    pub(super) async fn execute(
        &self,
        entry: &Entry,
        machine: &dyn Machine,
        request: ExecRequest,
        streams: ExecStreams,
        cancel: CancellationToken,
    ) -> Verdict {
        let _running = entry.running_exec();
        let told = ToldExec::start(self, entry, request.id.clone());
        let verdict = self.metrics.exec(machine.exec(request, streams, cancel)).await;
        told.ended(verdict.clone());
        verdict
    }
}

impl Entry {
    /// # Errors
    /// When a caller chose an id that the machine has seen, or may not see any more.
    pub(super) fn take_exec_id(&self, exec_id: &str, named_by: NamedBy) -> Result<(), ExecError> {
        if named_by == NamedBy::Us {
            return Ok(());
        }
        self.exec_ids.take(exec_id).map_err(|why| match why {
            Unusable::Used => ExecError::Duplicate { machine: self.id.clone(), exec: exec_id.to_owned() },
            Unusable::TooMany => ExecError::Exhausted(self.id.clone()),
        })
    }

    /// What becomes of whatever is asked of a machine that ends or has ended. Destroying is bounded, so this is too.
    ///
    /// # Errors
    /// When nothing is known of it any more.
    pub(super) async fn last_verdict(&self) -> Result<Verdict, ExecError> {
        match self.end_or_stuck().await {
            Ok(Some(end)) => Ok(end.verdict.clone()),
            Ok(None) => Err(ExecError::Unknown(self.id.clone())),
            Err(what) => {
                let what = format!("the machine was destroyed, and has not ended yet: {what}");
                Ok(Verdict::of(Outcome::internal(what)))
            }
        }
    }
}

/// An exec of which others are told, also when nobody waits for its end any more.
struct ToldExec<'a> {
    registry: &'a Registry,
    entry: &'a Entry,
    exec_id: String,
    verdict: Option<Verdict>,
}

impl<'a> ToldExec<'a> {
    fn start(registry: &'a Registry, entry: &'a Entry, exec_id: String) -> Self {
        registry.happened(entry, Happening::ExecStarted { exec_id: exec_id.clone() });
        Self { registry, entry, exec_id, verdict: None }
    }

    fn ended(mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }
}

impl Drop for ToldExec<'_> {
    fn drop(&mut self) {
        let verdict = self.verdict.take().unwrap_or_else(|| Verdict::of(Outcome::Cancelled));
        let verdict = Verdict { console_tail: None, ..verdict };
        let exec_id = std::mem::take(&mut self.exec_id);
        self.registry.happened(self.entry, Happening::ExecEnded { exec_id, verdict });
    }
}
