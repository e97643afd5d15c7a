//! What a workflow reports while it goes on. The bytes of its steps are in the log store, not here.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::engine::StepKind;
use crate::runtime::{SetupEvent, Verdict};

/// One thing that a renderer may want to show.
#[derive(Debug, Clone)]
pub enum WorkflowEvent {
    Setup(SetupEvent),
    SetupEnded { took: Duration },
    StepStarted { index: usize, name: String, kind: StepKind },
    StepEnded { index: usize, verdict: Verdict },
    TeardownStarted,
}

/// Where a workflow reports. Unbounded because a workflow sends a few events a step.
pub type WorkflowEvents = mpsc::UnboundedSender<WorkflowEvent>;
