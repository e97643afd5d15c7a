//! The values that labels may have.

use crate::runtime::{Outcome, Phase, SetupFailure};

/// A label and its value. Both are in the program's text, so their number is bounded by it.
pub(super) type Label = (&'static str, &'static str);

/// What a machine may hold of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// A vsock CID of a machine.
    Cid,
    /// A vsock CID that was given back and rests before it is given out again.
    RestingCid,
    /// A directory `m-<id>` in the runtime directory.
    Directory,
    /// A cgroup `m-<id>` of the holder.
    Cgroup,
}

impl Lease {
    pub(super) const ALL: [Self; 4] = [Self::Cid, Self::RestingCid, Self::Directory, Self::Cgroup];

    pub(super) fn label(self) -> Label {
        let kind = match self {
            Self::Cid => "cid",
            Self::RestingCid => "cid_resting",
            Self::Directory => "directory",
            Self::Cgroup => "cgroup",
        };
        ("kind", kind)
    }
}

/// Where somebody may dial and be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestPort {
    Agent,
    NixRead,
    NixUpload,
    Dns,
}

impl GuestPort {
    pub(super) const ALL: [Self; 4] = [Self::Agent, Self::NixRead, Self::NixUpload, Self::Dns];

    pub(super) fn label(self) -> Label {
        let port = match self {
            Self::Agent => "agent",
            Self::NixRead => "nix_read",
            Self::NixUpload => "nix_upload",
            Self::Dns => "dns",
        };
        ("port", port)
    }
}

/// The states that living machines are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    SettingUp,
    Ready,
    Ending,
}

impl MachineState {
    pub(super) const ALL: [Self; 3] = [Self::SettingUp, Self::Ready, Self::Ending];

    pub(super) fn label(self) -> Label {
        let state = match self {
            Self::SettingUp => "setting_up",
            Self::Ready => "ready",
            Self::Ending => "ending",
        };
        ("state", state)
    }
}

pub(super) const PHASES: [Phase; 4] = [Phase::Prepare, Phase::Spawn, Phase::Boot, Phase::Handshake];

/// Every value of [`outcome`].
pub(super) const OUTCOMES: [&str; 10] = [
    "success",
    "exited",
    "signalled",
    "timed_out",
    "cancelled",
    "out_of_memory",
    "machine_crashed",
    "host_disk_full",
    "agent_lost",
    "internal",
];

/// The kind of an outcome, named as records name it; a program that ended with 0 has a name of its own.
pub(super) fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Exited { code: 0 } => "success",
        Outcome::Exited { .. } => "exited",
        Outcome::Signalled { .. } => "signalled",
        Outcome::TimedOut => "timed_out",
        Outcome::Cancelled => "cancelled",
        Outcome::OutOfMemory { .. } => "out_of_memory",
        Outcome::MachineCrashed { .. } => "machine_crashed",
        Outcome::HostDiskFull { .. } => "host_disk_full",
        Outcome::AgentLost { .. } => "agent_lost",
        Outcome::Internal { .. } => "internal",
    }
}

/// Causes of failed setups beside the outcomes.
pub(super) const INPUT: &str = "bad_input";
pub(super) const HOST: &str = "host_cannot";

pub(super) fn cause(failure: &SetupFailure) -> &'static str {
    match failure {
        SetupFailure::BadInput(_) => INPUT,
        SetupFailure::HostCannot(_) => HOST,
        SetupFailure::Ended(ended) => outcome(ended),
    }
}
