//! What holders of a machine have of it: a way into its task's queue.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

use super::driver::{Request, State};
use crate::runtime::{DestroyMode, ExecRequest, Machine, MachineId, Outcome, OutputChunk, Verdict};

/// Longer than all of ending's bounds together: only a fault of ours reaches it.
const DESTROY_BOUND: Duration = Duration::from_secs(60);

/// A microVM, as its holder sees it.
#[derive(Debug)]
pub(super) struct MicroVmMachine {
    pub id: MachineId,
    pub requests: mpsc::Sender<Request>,
    pub state: watch::Receiver<State>,
}

impl MicroVmMachine {
    /// The verdict of a machine whose task takes no more requests.
    async fn after_its_end(&self) -> Verdict {
        let mut state = self.state.clone();
        // The sender is dropped only after it has said Gone.
        let _ = state.wait_for(|state| matches!(state, State::Gone { .. })).await.map(drop);
        let state = state.borrow();
        match &*state {
            State::Gone { outcome, console_tail, .. } => {
                Verdict { console_tail: Some(console_tail.clone()), ..Verdict::of(outcome.clone()) }
            }
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

    /// The console's last words, once the machine is gone: better than those when its end was noticed.
    pub(super) async fn ended(&self) -> (Outcome, Vec<u8>) {
        let verdict = self.after_its_end().await;
        (verdict.outcome, verdict.console_tail.unwrap_or_default())
    }
}

#[async_trait]
impl Machine for MicroVmMachine {
    fn id(&self) -> &MachineId {
        &self.id
    }

    async fn exec(
        &self,
        request: ExecRequest,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Verdict {
        let id = request.id.clone();
        let (reply, mut verdict) = oneshot::channel();
        if self.requests.send(Request::Exec { request, output, reply }).await.is_err() {
            return self.after_its_end().await;
        }
        let verdict = tokio::select! {
            verdict = &mut verdict => verdict,
            () = cancel.cancelled() => {
                let _ = self.requests.send(Request::Abandon { id, outcome: Outcome::Cancelled }).await;
                verdict.await
            }
        };
        match verdict {
            Ok(verdict) if verdict.console_tail.is_some() => {
                // The machine ended under it: wait until its console is complete.
                let (_, console_tail) = self.ended().await;
                Verdict { console_tail: Some(console_tail), ..verdict }
            }
            Ok(verdict) => verdict,
            Err(_) => self.after_its_end().await,
        }
    }

    async fn destroy(&self, mode: DestroyMode) -> Result<(), String> {
        let (reply, result) = oneshot::channel();
        if self.requests.send(Request::Destroy { mode, reply }).await.is_err() {
            return self.freed().await;
        }
        match timeout(DESTROY_BOUND, result).await {
            Ok(Ok(result)) => result,
            // Its task was ending already.
            Ok(Err(_)) => self.freed().await,
            Err(_) => Err(format!("machine {} did not end within {DESTROY_BOUND:?}", self.id)),
        }
    }
}
