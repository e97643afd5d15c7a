//! How a workflow ended, and where its time went.

use std::time::Duration;

use crate::engine::StepKind;
use crate::runtime::{MachineId, Outcome, Phase, SetupError, Verdict};

/// One step that was run.
#[derive(Debug, Clone)]
pub struct StepReport {
    pub index: usize,
    pub name: String,
    pub kind: StepKind,
    pub verdict: Verdict,
}

/// Why a workflow ended.
#[derive(Debug, Clone)]
pub enum Ending {
    Success,
    SetupFailed(SetupError),
    /// The last step of the report did not succeed.
    StepFailed,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Of the run and of its machine.
    pub id: MachineId,
    pub workflow: String,
    pub phases: Vec<(Phase, Duration)>,
    pub setup: Duration,
    pub steps: Vec<StepReport>,
    /// How many steps the plan had.
    pub planned_steps: usize,
    pub teardown: Duration,
    /// What could not be freed, should there be anything.
    pub teardown_error: Option<String>,
    pub total: Duration,
    pub ending: Ending,
}

impl Report {
    /// The step that ended the workflow, if one did.
    pub fn failed_step(&self) -> Option<&StepReport> {
        self.steps.last().filter(|step| !step.verdict.outcome.is_success())
    }

    /// Text of the guest's console that may explain the ending.
    pub fn console_tail(&self) -> Option<&[u8]> {
        match &self.ending {
            Ending::SetupFailed(error) => error.console_tail.as_deref(),
            Ending::StepFailed => self.failed_step()?.verdict.console_tail.as_deref(),
            Ending::Success => None,
        }
    }

    pub fn succeeded(&self) -> bool {
        matches!(self.ending, Ending::Success)
    }

    /// The outcome of the workflow as a whole; `None` when there was no machine to have one.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.ending {
            Ending::Success => Some(&Outcome::Exited { code: 0 }),
            Ending::StepFailed => self.failed_step().map(|step| &step.verdict.outcome),
            Ending::SetupFailed(_) => None,
        }
    }
}
