//! One machine of a daemon, held by the call that created it.

use std::time::Duration;

use async_trait::async_trait;
use creel_proto::names::extensions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::runtime::{ANSWER_BOUND, DESTROY_BOUND, Share};
use crate::api::{ApiError, Creating, NewExec, Progress};
use crate::machines::Summary;
use crate::runtime::{
    DestroyMode, ExecRequest, ExecStreams, Machine, MachineFacts, MachineId, MachineUsage, Outcome, Shell,
    ShellError, ShellRequest, SignalError, Usage, Verdict,
};

/// How soon the call that holds a machine tells of an end that another call has told of.
const END_BOUND: Duration = Duration::from_secs(5);

/// A signal is a message to the guest and waits for no answer of it.
const SIGNAL_BOUND: Duration = Duration::from_secs(5);

/// The guest has fifteen seconds, and others may have asked before.
const SHELL_BOUND: Duration = Duration::from_secs(45);

#[derive(Debug)]
pub(super) struct RemoteMachine {
    share: Share,
    id: MachineId,
    facts: MachineFacts,
    end: watch::Receiver<Option<Verdict>>,
    /// Ends the call, and the machine with it.
    let_go: CancellationToken,
    _guard: DropGuard,
}

impl RemoteMachine {
    pub(super) fn new(share: Share, machine: Summary, creating: Creating) -> Self {
        let (sender, end) = watch::channel(None);
        let let_go = CancellationToken::new();
        tokio::spawn(hold(creating, sender, let_go.clone()));
        let guard = let_go.clone().drop_guard();
        Self { share, id: machine.id, facts: machine.facts, end, let_go, _guard: guard }
    }

    async fn failed(&self, error: ApiError) -> Verdict {
        match error {
            // creeld has forgotten it, so it ended; the call that holds it knows how.
            ApiError::NotFound(_) => match timeout(END_BOUND, self.ended()).await {
                Ok(verdict) => verdict,
                Err(_) => Verdict::of(Outcome::internal(error)),
            },
            error => Verdict::of(lost(&error)),
        }
    }
}

/// Keeps the call open until the machine has ended or nobody wants it any more.
async fn hold(mut creating: Creating, end: watch::Sender<Option<Verdict>>, let_go: CancellationToken) {
    let ended = async {
        loop {
            match creating.next().await {
                Ok(Some(Progress::Ended(machine))) => {
                    let unsaid =
                        || Verdict::of(Outcome::internal("creeld did not say how the machine ended"));
                    return machine.verdict.unwrap_or_else(unsaid);
                }
                Ok(Some(_)) => {}
                Ok(None) => return Verdict::of(lost(&ApiError::Lost("the answer ended early".into()))),
                Err(error) => return Verdict::of(lost(&error)),
            }
        }
    };
    let verdict = tokio::select! {
        verdict = ended => verdict,
        () = let_go.cancelled() => Verdict::of(Outcome::Cancelled),
    };
    end.send_replace(Some(verdict));
}

fn lost(error: &ApiError) -> Outcome {
    match error {
        ApiError::Lost(_) => Outcome::internal(format!("{error}; creeld ends the machine by itself")),
        other => Outcome::internal(other),
    }
}

#[async_trait]
impl Machine for RemoteMachine {
    fn id(&self) -> &MachineId {
        &self.id
    }

    fn facts(&self) -> MachineFacts {
        self.facts.clone()
    }

    /// Known at the end only: asking takes a call.
    fn usage(&self) -> Option<MachineUsage> {
        self.end.borrow().as_ref().and_then(|verdict| verdict.usage.machine.as_deref().cloned())
    }

    async fn ended(&self) -> Verdict {
        let mut end = self.end.clone();
        let end = end.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
        end.unwrap_or_else(|| Verdict::of(Outcome::internal("the task that held the machine was dropped")))
    }

    async fn exec(&self, request: ExecRequest, streams: ExecStreams, cancel: CancellationToken) -> Verdict {
        let (started, deadline) = (Instant::now(), request.deadline);
        let too_late = async {
            match deadline {
                Some(deadline) => sleep_until(deadline + ANSWER_BOUND).await,
                None => std::future::pending().await,
            }
        };
        let limit = deadline.map(|deadline| deadline.saturating_duration_since(started));
        let exec = NewExec { id: Some(request.id), work: request.work, timeout: limit };
        let verdict = tokio::select! {
            biased;
            () = too_late => Verdict::of(Outcome::TimedOut),
            verdict = self.share.client.run(&self.id, exec, streams, &cancel) => match verdict {
                Ok(verdict) => verdict,
                Err(error) => self.failed(error).await,
            },
        };
        if verdict.usage == Usage::default() {
            // What the guest counted is not told any more.
            return Verdict { usage: Usage { wall: started.elapsed(), ..Usage::default() }, ..verdict };
        }
        verdict
    }

    async fn signal(&self, exec_id: &str, signal: i32) -> Result<(), SignalError> {
        match timeout(SIGNAL_BOUND, self.share.client.signal(&self.id, exec_id, signal)).await {
            Ok(Ok(())) => Ok(()),
            // A machine that creeld has forgotten runs nothing either.
            Ok(Err(ApiError::NotFound(_))) => Err(SignalError::NoExec(exec_id.to_owned())),
            Ok(Err(ApiError::NotNow(_))) => Err(SignalError::Ended),
            Ok(Err(ApiError::Unsupported(_))) => {
                Err(SignalError::Unsupported { extension: extensions::SIGNAL_1 })
            }
            Ok(Err(error)) => Err(SignalError::Unreachable(error.to_string())),
            Err(_) => Err(SignalError::Unreachable(format!("creeld did not answer within {SIGNAL_BOUND:?}"))),
        }
    }

    async fn shell(&self, request: ShellRequest) -> Result<Shell, ShellError> {
        // On a connection of its own: a shell is a call that lasts, and those of the machines' connection are counted.
        match timeout(SHELL_BOUND, self.share.client.another().shell(&self.id, request)).await {
            Ok(Ok(shell)) => Ok(shell),
            Ok(Err(ApiError::NotFound(_))) => Err(ShellError::Ended),
            Ok(Err(error)) => Err(ShellError::Unreachable(error.to_string())),
            Err(_) => Err(ShellError::Unreachable(format!("creeld opened no shell within {SHELL_BOUND:?}"))),
        }
    }

    async fn destroy(&self, mode: DestroyMode) -> Result<(), String> {
        let destroyed = timeout(DESTROY_BOUND, self.share.client.destroy(&self.id, mode)).await;
        let result = match destroyed {
            // Forgotten: it ended long ago.
            Ok(Ok(_) | Err(ApiError::NotFound(_))) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("creeld did not end machine {} within {DESTROY_BOUND:?}", self.id)),
        };
        if result.is_ok() {
            let _ = timeout(END_BOUND, self.ended()).await;
        }
        self.let_go.cancel();
        result
    }
}
