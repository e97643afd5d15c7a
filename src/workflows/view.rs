//! What there is to say of a workflow.

use std::time::SystemTime;

use super::entry::Entry;
use super::key::{Key, Name};
use super::progress::{State, StepProgress};
use super::slots::{Place, Slots};
use crate::runtime::{MachineId, Outcome, Verdict};
use crate::state::records::{Record, RecordState};

/// One workflow at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub key: Key,
    pub machine_id: MachineId,
    pub name: String,
    pub engine: String,
    pub image: String,
    pub state: State,
    /// Its place in the queue for slots, if it asked for one.
    pub slot: Option<Place>,
    pub created_at: SystemTime,
    /// `None` where only its record is left.
    pub deadline_at: Option<SystemTime>,
    pub steps: Vec<StepProgress>,
    pub running: Option<usize>,
    /// Of the whole, once it has stopped.
    pub verdict: Option<Verdict>,
    pub ended_at: Option<SystemTime>,
}

impl View {
    pub(super) fn of(entry: &Entry, slots: &Slots) -> Self {
        let slot = slots.place(entry.serial);
        let progress = entry.progress.borrow();
        Self {
            key: entry.key.clone(),
            machine_id: entry.machine_id.clone(),
            name: entry.name.clone(),
            engine: entry.engine.to_owned(),
            image: entry.image.clone(),
            state: progress.state(),
            slot,
            created_at: entry.created_at,
            deadline_at: Some(entry.deadline_at),
            steps: progress.steps().to_vec(),
            running: progress.running(),
            verdict: progress.verdict().cloned(),
            ended_at: progress.ended_at(),
        }
    }

    /// Of a workflow that only its record knows of. One that its record has running was left by a creeld that is no
    /// more.
    pub(super) fn past(record: Record) -> Self {
        let verdict = match (record.state, record.verdict) {
            (RecordState::Ended, Some(verdict)) => verdict,
            (RecordState::Ended, None) if !record.lost => {
                Verdict::of(Outcome::internal("its record has no verdict"))
            }
            (RecordState::Ended, None) | (RecordState::Running, _) => {
                Verdict::of(Outcome::internal("creeld ended while it ran"))
            }
        };
        let steps = record.steps.into_iter().map(|step| StepProgress {
            name: step.name,
            kind: step.kind,
            command: step.command,
            verdict: step.verdict,
        });
        Self {
            key: key_of(record.tenant, record.workflow_id, record.creator_uid),
            machine_id: record.id,
            name: record.name,
            engine: record.engine,
            image: record.image,
            state: State::Ended,
            slot: None,
            created_at: record.created_at.into(),
            deadline_at: None,
            steps: steps.collect(),
            running: None,
            verdict: Some(verdict),
            ended_at: record.ended_at.map(Into::into),
        }
    }
}

pub(super) fn key_of(tenant: crate::runtime::Tenant, workflow_id: String, creator_uid: u32) -> Key {
    Key { name: Name { tenant, workflow_id }, creator_uid }
}
