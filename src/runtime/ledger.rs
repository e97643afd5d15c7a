//! What is written down of a machine while it is made, so that a process that comes later can find it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::ProcessIdentity;

/// What a machine holds of its host before it has a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLeases {
    pub directory: Option<PathBuf>,
    pub cgroup: Option<PathBuf>,
    /// The guest's vsock address.
    pub cid: Option<u32>,
    /// The user that its processes run as.
    pub uid: Option<u32>,
}

/// One thing more of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    Leases(HeldLeases),
    /// Its keeper runs, and with it the machine's first process.
    Keeper(ProcessIdentity),
}

/// Where a runtime says what it has made, each before it makes the next.
pub trait Ledger: Send + Sync + fmt::Debug {
    /// Returns once it is where it survives this process and a power cut. Blocks.
    ///
    /// # Errors
    /// Why it is not; the machine must not be used then.
    fn note(&self, made: Made) -> io::Result<()>;
}
