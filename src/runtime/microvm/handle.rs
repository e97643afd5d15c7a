//! What holders of a machine have of it: a way into its task's queue.

use std::io;

use async_trait::async_trait;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

use super::driver::State;
use super::last_words::explanation;
use super::request::Request;
use super::shell::Shells;
use super::sight::Sight;
use crate::runtime::{
    Console, CrashCause, DestroyMode, ExecRequest, ExecStreams, Machine, MachineDetails, MachineFacts,
    MachineId, MachineLoad, MachineUsage, Outcome, Shell, ShellError, ShellRequest, SignalError, Usage,
    Verdict,
};

/// Longer than all of ending's bounds together, with the longest `machine.shutdown_timeout`: only a fault of ours reaches
/// it.
const DESTROY_BOUND: Duration = Duration::from_secs(45);

/// What is left of a minute for a machine that did not end in its own time.
const KILL_BOUND: Duration = Duration::from_secs(15);

/// A microVM, as its holder sees it.
#[derive(Debug)]
pub(super) struct MicroVmMachine {
    pub id: MachineId,
    pub facts: MachineFacts,
    pub sight: Sight,
    pub requests: mpsc::Sender<Request>,
    pub state: watch::Receiver<State>,
    pub shells: Shells,
}

impl MicroVmMachine {
    /// The verdict of a machine whose task takes no more requests.
    async fn after_its_end(&self) -> Verdict {
        let mut state = self.state.clone();
        // The sender is dropped only after it has said Gone.
        let _ = state.wait_for(|state| matches!(state, State::Gone { .. })).await.map(drop);
        let state = state.borrow();
        match &*state {
            State::Gone { outcome, console_tail, usage, .. } => Verdict {
                outcome: outcome.clone(),
                detail: explains(outcome).then(|| explanation(console_tail)).flatten(),
                usage: Usage { machine: usage.clone(), ..Usage::default() },
                console_tail: Some(console_tail.clone()),
            },
            _ => Verdict::of(Outcome::internal("the machine's task ended without a verdict")),
        }
    }

    /// What its task says of the leases, once it has ended.
    async fn freed(&self) -> Result<(), String> {
        let mut state = self.state.clone();
        let gone = async { state.wait_for(|state| matches!(state, State::Gone { .. })).await.map(drop) };
        let _ = timeout(DESTROY_BOUND, gone).await;
        match &*self.state.borrow() {
            State::Gone { freed, .. } => freed.clone(),
            _ => Err(format!("machine {} did not end within {DESTROY_BOUND:?}", self.id)),
        }
    }

    /// How it ended and its console's last words, once it is gone: better than those when its end was noticed.
    pub(super) async fn last_words(&self) -> Verdict {
        self.after_its_end().await
    }
}

/// Ends an exec whose caller dropped its future.
struct GiveUp<'a> {
    requests: &'a mpsc::Sender<Request>,
    /// `None` once there is a verdict.
    id: Option<String>,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let abandon = Request::Abandon { id, outcome: Outcome::Cancelled };
        if let Err(TrySendError::Full(abandon)) = self.requests.try_send(abandon)
            // Without a tokio runtime the machine's task is gone too.
            && let Ok(tokio) = tokio::runtime::Handle::try_current()
        {
            let requests = self.requests.clone();
            tokio.spawn(async move {
                let _ = requests.send(abandon).await;
            });
        }
    }
}

/// Whether the guest's own words can say more of such an end than is known.
fn explains(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::MachineCrashed { cause: CrashCause::GuestResetOrPanic } | Outcome::AgentLost { .. }
    )
}

#[async_trait]
impl Machine for MicroVmMachine {
    fn id(&self) -> &MachineId {
        &self.id
    }

    fn facts(&self) -> MachineFacts {
        self.facts.clone()
    }

    fn usage(&self) -> Option<MachineUsage> {
        match &*self.state.borrow() {
            State::Gone { usage, .. } => usage.as_deref().cloned(),
            _ => self.sight.usage(),
        }
    }

    fn load(&self) -> Option<MachineLoad> {
        let load = self.sight.load();
        // The keeper's pid may be another's once it is gone.
        load.filter(|_| !matches!(&*self.state.borrow(), State::Gone { .. }))
    }

    fn details(&self) -> MachineDetails {
        let mut details = self.sight.details();
        if matches!(&*self.state.borrow(), State::Gone { .. }) {
            details.processes.clear();
        }
        details
    }

    fn console(&self) -> io::Result<Box<dyn Console>> {
        self.sight.console()
    }

    async fn ended(&self) -> Verdict {
        self.after_its_end().await
    }

    async fn exec(&self, request: ExecRequest, streams: ExecStreams, cancel: CancellationToken) -> Verdict {
        let id = request.id.clone();
        let (reply, mut verdict) = oneshot::channel();
        if self.requests.send(Request::Exec { request, streams, reply }).await.is_err() {
            return self.after_its_end().await;
        }
        let mut waited = GiveUp { requests: &self.requests, id: Some(id.clone()) };
        let verdict = tokio::select! {
            verdict = &mut verdict => verdict,
            () = cancel.cancelled() => {
                let _ = self.requests.send(Request::Abandon { id, outcome: Outcome::Cancelled }).await;
                verdict.await
            }
        };
        waited.id = None;
        match verdict {
            Ok(verdict) if verdict.console_tail.is_some() => {
                // The machine ended under it: wait until its console is complete.
                let Verdict { detail, console_tail, usage: Usage { machine, .. }, .. } =
                    self.last_words().await;
                Verdict { detail, console_tail, usage: Usage { machine, ..verdict.usage }, ..verdict }
            }
            Ok(verdict) => verdict,
            Err(_) => self.after_its_end().await,
        }
    }

    async fn signal(&self, exec_id: &str, signal: i32) -> Result<(), SignalError> {
        let (reply, sent) = oneshot::channel();
        let signal = u32::try_from(signal).unwrap_or(0);
        let request = Request::Signal { id: exec_id.to_owned(), signal, reply };
        self.requests.send(request).await.map_err(|_| SignalError::Ended)?;
        sent.await.unwrap_or(Err(SignalError::Ended))
    }

    async fn shell(&self, request: ShellRequest) -> Result<Shell, ShellError> {
        self.shells.open(request).await
    }

    async fn destroy(&self, mode: DestroyMode) -> Result<(), String> {
        let (reply, result) = oneshot::channel();
        if self.requests.send(Request::Destroy { mode, reply }).await.is_err() {
            return self.freed().await;
        }
        let mut result = result;
        let waited = match timeout(DESTROY_BOUND, &mut result).await {
            // Whatever the guest's own time is: a caller is promised an end.
            Err(_) if mode == DestroyMode::Graceful => {
                let (reply, killed) = oneshot::channel();
                let request = Request::Destroy { mode: DestroyMode::Kill, reply };
                let _ = self.requests.send(request).await;
                timeout(KILL_BOUND, killed).await
            }
            waited => waited,
        };
        match waited {
            Ok(Ok(result)) => result,
            // Its task was ending already.
            Ok(Err(_)) => self.freed().await,
            Err(_) => Err(format!("machine {} did not end within {DESTROY_BOUND:?}", self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn abandoned(requests: &mut mpsc::Receiver<Request>) -> String {
        loop {
            if let Some(Request::Abandon { id, outcome: Outcome::Cancelled }) = requests.recv().await {
                return id;
            }
        }
    }

    #[tokio::test]
    async fn a_caller_who_drops_the_future_gives_the_exec_up_even_where_the_queue_is_full() {
        let (requests, mut queue) = mpsc::channel(1);
        drop(GiveUp { requests: &requests, id: Some("first".into()) });
        drop(GiveUp { requests: &requests, id: Some("second".into()) });
        drop(GiveUp { requests: &requests, id: None });
        assert_eq!(abandoned(&mut queue).await, "first");
        assert_eq!(abandoned(&mut queue).await, "second");
        drop(requests);
        assert!(queue.recv().await.is_none(), "one with a verdict is not given up");
    }
}
