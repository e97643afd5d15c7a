//! The record of one machine.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::ProcessIdentity;
use crate::runtime::{HeldLeases, MachineId, Made, Tenant};

/// How far a machine has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineStage {
    /// It was asked for. What it holds by now is named after it; it has no process.
    Preparing,
    /// Its leases are held; its keeper may run.
    Leased,
    /// Its keeper runs.
    Started,
    /// It takes execs.
    Ready,
    /// It is being ended.
    Ending,
}

impl MachineStage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Leased => "leased",
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Ending => "ending",
        }
    }
}

/// What is remembered of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    pub version: u32,
    pub id: MachineId,
    pub stage: MachineStage,
    pub workflow_id: String,
    pub tenant: Tenant,
    pub image: String,
    pub creator_uid: u32,
    pub created_at: Timestamp,
    /// After which it is ended, in microseconds; `None`: never, or with the call that made it.
    pub max_age_us: Option<u64>,
    /// It ends with the call that made it.
    pub attached: bool,
    /// Of the host, when it was made: a machine outlives no boot.
    pub boot_id: String,
    #[serde(default)]
    pub leases: HeldLeases,
    pub keeper: Option<ProcessIdentity>,
}

impl MachineRecord {
    /// The form of records that this creel writes. A field more that may be missing is no new version.
    pub const VERSION: u32 = 1;

    /// One thing more that it is made of.
    pub(super) fn note(&mut self, made: Made) {
        match made {
            Made::Leases(leases) => (self.stage, self.leases) = (MachineStage::Leased, leases),
            Made::Keeper(keeper) => (self.stage, self.keeper) = (MachineStage::Started, Some(keeper)),
        }
    }

    /// Whether its keeper is there: not, after another boot.
    pub fn keeper_lives(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id && self.keeper.is_some_and(ProcessIdentity::lives)
    }
}
