//! The record of one run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Plan;
use crate::runtime::{MachineId, Tenant, Verdict};
use crate::state::log::Mask;

/// The form of records that this creel writes. A field more that may be missing is no new version.
pub const VERSION: u32 = 1;

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    Running,
    Ended,
}

/// What is remembered of a run. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// Of the run, and of its machine unless `machine` says otherwise.
    pub id: MachineId,
    pub workflow_id: String,
    pub tenant: Tenant,
    /// The workflow's name.
    pub name: String,
    pub engine: String,
    pub image: String,
    pub creator_uid: u32,
    pub state: RecordState,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// All that the plan has, in order.
    pub steps: Vec<StepRecord>,
    /// Of the run as a whole.
    pub verdict: Option<Verdict>,
    /// Why there was no machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_error: Option<String>,
    /// The machine's own id, where a daemon gave it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Its creel died while it went on: it is shown as ended, though nobody could write that down.
    #[serde(skip)]
    pub lost: bool,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub name: String,
    /// `system` or `user`.
    pub kind: String,
    /// What is shown as its command.
    pub command: String,
    /// Once it has ended.
    pub verdict: Option<Verdict>,
}

impl Record {
    /// Of a run that begins.
    pub fn new(id: MachineId, workflow_id: String, tenant: Tenant, creator_uid: u32, plan: &Plan) -> Self {
        let steps = plan.steps.iter().map(|step| StepRecord {
            name: step.name.clone(),
            kind: step.kind.as_str().to_owned(),
            command: step.command.clone(),
            verdict: None,
        });
        Self {
            version: VERSION,
            id,
            workflow_id,
            tenant,
            name: plan.name.clone(),
            engine: plan.engine.as_str().to_owned(),
            image: plan.image.clone().unwrap_or_default(),
            creator_uid,
            state: RecordState::Running,
            created_at: Timestamp::now(),
            ended_at: None,
            steps: steps.collect(),
            verdict: None,
            setup_error: None,
            machine: None,
            lost: false,
        }
    }

    /// How it ended, as a sentence; `None` while it goes on.
    pub fn ended_as(&self) -> Option<String> {
        if self.state == RecordState::Running {
            return None;
        }
        Some(match (&self.setup_error, &self.verdict) {
            _ if self.lost => "lost: its creel ended while it ran".to_owned(),
            (Some(error), _) => format!("setup failed: {error}"),
            (None, Some(verdict)) => verdict.to_string(),
            (None, None) => String::new(),
        })
    }

    /// Hides secrets in what a workflow's author and the guest have said.
    pub(super) fn hide(&mut self, mask: &Mask) {
        let hide = |text: &mut String| {
            *text = String::from_utf8_lossy(&mask.apply(text.as_bytes())).into_owned();
        };
        let hide_in = |verdict: &mut Option<Verdict>| {
            verdict.as_mut().and_then(|verdict| verdict.detail.as_mut()).map(hide);
        };
        for step in &mut self.steps {
            hide(&mut step.name);
            hide(&mut step.command);
            hide_in(&mut step.verdict);
        }
        hide_in(&mut self.verdict);
        self.setup_error.as_mut().map(hide);
    }
}
