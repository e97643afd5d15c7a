//! What there is to say of a machine.

use std::time::SystemTime;

use crate::runtime::{MachineFacts, MachineId, MachineUsage, Verdict};

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    SettingUp,
    Ready,
    /// Being destroyed.
    Ending,
    Ended,
}

/// One machine at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub id: MachineId,
    pub state: State,
    pub image: String,
    pub workflow_id: String,
    pub creator_uid: u32,
    pub created_at: SystemTime,
    /// Until it is ready: what was asked for.
    pub facts: MachineFacts,
    /// How many execs run now.
    pub execs: u32,
    /// Until now, or until its end; `None` where nothing counts it.
    pub usage: Option<MachineUsage>,
    /// How it ended, once it has.
    pub verdict: Option<Verdict>,
    pub ended_at: Option<SystemTime>,
}

/// How many machines live, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub setting_up: usize,
    pub ready: usize,
    pub ending: usize,
}

impl Counts {
    pub fn living(self) -> usize {
        self.setting_up + self.ready + self.ending
    }
}
