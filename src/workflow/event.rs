//! What a workflow reports while it goes on. The bytes of its steps are in the log store, not here.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::engine::StepKind;
use crate::runtime::{MachineId, Outcome, SetupEvent, Verdict};

/// One thing that a renderer may want to show.
#[derive(Debug, Clone)]
pub enum WorkflowEvent {
    Setup(SetupEvent),
    /// With the machine's id, unless the setup has failed. It is the run's own where no daemon has chosen another.
    SetupEnded {
        took: Duration,
        machine: Option<MachineId>,
    },
    StepStarted {
        index: usize,
        name: String,
        kind: StepKind,
    },
    StepEnded {
        index: usize,
        verdict: Verdict,
    },
    /// A step has failed and the machine stays, for `limit` at most. All that was logged before has a number below
    /// `log_end`.
    Kept {
        machine: MachineId,
        limit: Duration,
        log_end: u64,
    },
    /// It stays no longer.
    LetGo(LetGo),
    TeardownStarted,
}

/// Why a machine that was kept is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetGo {
    /// Somebody asked for it.
    Cancelled,
    TimeLimit,
    /// It has ended by itself.
    Ended(Outcome),
}

/// Where a workflow reports. Unbounded because a workflow sends a few events a step.
pub type WorkflowEvents = mpsc::UnboundedSender<WorkflowEvent>;
