//! How far a workflow has come, and what may follow on that. Pure.
//!
//! ```text
//!            claim_setup          set_up(Ok)          step_ended (failed, or the last), stop
//!  (new) pending ──▶ setting up ──▶ running ──────────────────▶ stopped ──end──▶ ended
//!           │            │ set_up(Err)                             ▲
//!           └────────────┴──────────── stop ───────────────────────┘
//! ```
//!
//! Calls claim (the first gets to begin, the others attach); the owner's task does the rest.

use std::time::SystemTime;

use crate::runtime::{Outcome, Phase, SetupError, SetupFailure, Verdict};
use crate::workflow::StepOrder;

/// Where a workflow is in its life. Whether a pending one waits for a slot is the queue's to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Pending,
    SettingUp,
    Running,
    /// No further step runs. What it holds is freed by its end.
    Stopped,
    Ended,
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepProgress {
    pub name: String,
    /// `system` or `user`.
    pub kind: String,
    /// What is shown as its command.
    pub command: String,
    /// Once it has ended.
    pub verdict: Option<Verdict>,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    state: State,
    setup: Option<Result<(), SetupError>>,
    steps: Vec<StepProgress>,
    running: Option<usize>,
    /// Of the whole, from *stopped* on.
    verdict: Option<Verdict>,
    ended_at: Option<SystemTime>,
    /// What could not be freed.
    unfreed: Option<String>,
}

/// What comes of wanting a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SetupClaim {
    /// It is the claimer's to have it begun.
    Begin,
    Attach,
    Ready,
    Failed(SetupError),
    /// It stopped before it had a machine, or has ended since.
    Over(Verdict),
}

/// What comes of wanting a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StepClaim {
    Begin,
    Attach,
    Ended(Verdict),
    Over(Verdict),
    Refused(StepOrder),
}

impl Progress {
    pub(super) fn new(steps: Vec<StepProgress>) -> Self {
        let (setup, running, verdict, ended_at, unfreed) = (None, None, None, None, None);
        Self { state: State::Pending, setup, steps, running, verdict, ended_at, unfreed }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn is_over(&self) -> bool {
        self.state >= State::Stopped
    }

    pub(super) fn steps(&self) -> &[StepProgress] {
        &self.steps
    }

    pub(super) fn running(&self) -> Option<usize> {
        self.running
    }

    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    pub(super) fn ended_at(&self) -> Option<SystemTime> {
        self.ended_at
    }

    pub(super) fn unfreed(&self) -> Option<&str> {
        self.unfreed.as_deref()
    }

    /// What a claim would come to; nothing is begun by looking.
    pub(super) fn setup_seen(&self) -> SetupClaim {
        match (&self.setup, self.state) {
            (Some(Err(error)), _) => SetupClaim::Failed(error.clone()),
            (_, State::Ended) | (None, State::Stopped) => SetupClaim::Over(self.known_verdict()),
            (Some(Ok(())), _) => SetupClaim::Ready,
            (None, State::SettingUp | State::Running) => SetupClaim::Attach,
            (None, State::Pending) => SetupClaim::Begin,
        }
    }

    pub(super) fn claim_setup(&mut self) -> SetupClaim {
        let claim = self.setup_seen();
        if claim == SetupClaim::Begin {
            self.state = State::SettingUp;
        }
        claim
    }

    /// The setup has ended; one that failed stops the workflow.
    pub(super) fn set_up(&mut self, result: Result<(), SetupError>) {
        if self.state != State::SettingUp {
            return;
        }
        let failure = result.as_ref().err().map(verdict_of);
        self.setup = Some(result);
        self.state = State::Running;
        if let Some(verdict) = failure {
            self.stop(verdict);
        }
    }

    pub(super) fn step_seen(&self, index: usize) -> StepClaim {
        let count = self.steps.len();
        let Some(step) = self.steps.get(index) else {
            return StepClaim::Refused(StepOrder::Unknown { index, count });
        };
        if let Some(verdict) = &step.verdict {
            return StepClaim::Ended(verdict.clone());
        }
        if self.running == Some(index) {
            return StepClaim::Attach;
        }
        match self.state {
            State::Stopped | State::Ended => StepClaim::Over(self.known_verdict()),
            State::Pending | State::SettingUp => StepClaim::Refused(StepOrder::NoMachine { index }),
            State::Running => {
                let next = self.next();
                match self.running {
                    None if next == index => StepClaim::Begin,
                    _ => StepClaim::Refused(StepOrder::NotNext { index, next }),
                }
            }
        }
    }

    pub(super) fn claim_step(&mut self, index: usize) -> StepClaim {
        let claim = self.step_seen(index);
        if claim == StepClaim::Begin {
            self.running = Some(index);
        }
        claim
    }

    /// The step that ran has ended; a failure and the end of the last one stop the workflow.
    pub(super) fn step_ended(&mut self, verdict: Verdict) {
        let Some(step) = self.running.take().and_then(|index| self.steps.get_mut(index)) else { return };
        step.verdict = Some(verdict.clone());
        if !verdict.outcome.is_success() {
            self.stop(verdict);
        } else if self.next() == self.steps.len() {
            self.stop(Verdict::of(Outcome::Exited { code: 0 }));
        }
    }

    /// No further step runs. What was claimed and has not begun ends with the same verdict.
    pub(super) fn stop(&mut self, verdict: Verdict) {
        if self.is_over() {
            return;
        }
        if self.state == State::SettingUp {
            let failure = SetupFailure::Ended(verdict.outcome.clone());
            self.setup = Some(Err(SetupError::new(Phase::Prepare, failure)));
        }
        if let Some(step) = self.running.take().and_then(|index| self.steps.get_mut(index)) {
            step.verdict = Some(verdict.clone());
        }
        (self.state, self.verdict) = (State::Stopped, Some(verdict));
    }

    /// Nothing of it is left, but what could not be freed.
    pub(super) fn end(&mut self, at: SystemTime, unfreed: Option<String>) {
        if self.state == State::Ended {
            return;
        }
        self.stop(Verdict::of(Outcome::Cancelled));
        (self.state, self.ended_at, self.unfreed) = (State::Ended, Some(at), unfreed);
    }

    /// The first step that has not ended.
    fn next(&self) -> usize {
        self.steps.iter().take_while(|step| step.verdict.is_some()).count()
    }

    fn known_verdict(&self) -> Verdict {
        self.verdict.clone().unwrap_or_else(|| Verdict::of(Outcome::Cancelled))
    }
}

/// A setup's failure as the verdict of its workflow. There is no outcome for "not on this host": the text says it.
fn verdict_of(error: &SetupError) -> Verdict {
    let outcome = match &error.failure {
        SetupFailure::Ended(outcome) => outcome.clone(),
        SetupFailure::BadInput(text) | SetupFailure::HostCannot(text) => Outcome::internal(text),
    };
    error.verdict(outcome)
}

#[cfg(test)]
mod tests;
