//! How a step or a machine ended: exactly one of these, never "failed" for "we lost track of it".

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How something ended. Causes come from the kernel, QMP and the keeper; never from console text,
/// which the guest writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The program ended by itself with this code.
    Exited {
        code: i32,
    },
    /// A signal ended the program, and it was not one of the causes below.
    Signalled {
        signal: i32,
    },
    /// The deadline passed.
    TimedOut,
    /// Somebody asked for it.
    Cancelled,
    OutOfMemory {
        scope: OutOfMemory,
    },
    /// The machine ended under the step.
    MachineCrashed {
        cause: CrashCause,
    },
    /// The host's disk had no room for what the guest wrote, or for what creel had to.
    HostDiskFull {
        detail: String,
    },
    /// The machine lives, but the agent's connection is gone.
    AgentLost {
        detail: String,
    },
    /// creel itself failed.
    Internal {
        detail: String,
    },
}

/// Whose memory ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfMemory {
    /// The guest kernel's OOM killer ended a process of the step.
    GuestProcess,
    /// The machine as a whole reached its cgroup's limit on the host.
    MachineLimit { limit_mib: u64, peak_mib: u64 },
}

/// Why a machine ended that nobody had told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrashCause {
    /// The guest reset itself, which is what a Linux panic does under `panic=-1`, or told pvpanic.
    GuestResetOrPanic,
    /// The guest powered itself off.
    GuestPoweredOff,
    /// QEMU exited by itself with this status.
    QemuExited { status: i32 },
    /// A signal ended QEMU.
    QemuSignalled { signal: i32 },
    /// The machine had as many processes and threads as its cgroup allows, and QEMU needed another.
    PidsLimit { limit: u64 },
    /// The kernel's OOM killer chose the machine, which was below its own limit: the host's memory ran out, or that of the
    /// slice that all machines are in.
    HostOutOfMemory,
    /// The keeper was told to end the machine, and not by creel: somebody stopped `creel-machines.service`, or the
    /// host is shutting down.
    HolderStopped,
    /// A helper that the machine can't live without has ended.
    HelperEnded { name: String, how: String },
}

impl Outcome {
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }

    pub fn internal(detail: impl fmt::Display) -> Self {
        Self::Internal { detail: detail.to_string() }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code: 0 } => write!(f, "ok"),
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Signalled { signal } => write!(f, "killed by signal {signal}"),
            Self::TimedOut => write!(f, "timed out"),
            Self::Cancelled => write!(f, "cancelled"),
            Self::OutOfMemory { scope: OutOfMemory::GuestProcess } => {
                write!(f, "out of memory (the guest kernel killed a process of this step)")
            }
            Self::OutOfMemory { scope: OutOfMemory::MachineLimit { limit_mib, peak_mib } } => {
                write!(f, "out of memory (the machine's limit of {limit_mib} MiB; peak {peak_mib} MiB)")
            }
            Self::MachineCrashed { cause } => write!(f, "machine crashed ({cause})"),
            Self::HostDiskFull { detail } => write!(f, "host disk full ({detail})"),
            Self::AgentLost { detail } => write!(f, "agent lost ({detail})"),
            Self::Internal { detail } => write!(f, "creel's own fault: {detail}"),
        }
    }
}

impl fmt::Display for CrashCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestResetOrPanic => write!(f, "guest reset or panic"),
            Self::GuestPoweredOff => write!(f, "guest powered off"),
            Self::QemuExited { status } => write!(f, "QEMU: exit status {status}"),
            Self::QemuSignalled { signal } => write!(f, "QEMU: signal {signal}"),
            Self::PidsLimit { limit } => write!(f, "the machine's limit of {limit} processes and threads"),
            Self::HostOutOfMemory => {
                write!(f, "killed for want of memory on the host, or in creel.slice, below its own limit")
            }
            Self::HolderStopped => write!(f, "ended from outside, as stopping creel-machines.service does"),
            Self::HelperEnded { name, how } => write!(f, "{name}: {how}"),
        }
    }
}

/// What was used; `None` where this runtime can't tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(rename = "wall_us", with = "microseconds")]
    pub wall: Duration,
    /// CPU time of the exec's own processes, as the guest counts it.
    #[serde(rename = "cpu_us", with = "optional_microseconds", default)]
    pub cpu: Option<Duration>,
    /// The largest resident set of one process.
    pub peak_memory_kib: Option<u64>,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    /// What the machine as a whole has used since its start, as the host counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Box<MachineUsage>>,
}

/// What a machine has used of its host, guest and helpers together, as its cgroup counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineUsage {
    #[serde(rename = "cpu_us", with = "microseconds")]
    pub cpu: Duration,
    /// `memory.peak`, page cache included; `None` where the controller is missing.
    pub peak_memory_kib: Option<u64>,
    pub memory_limit_kib: Option<u64>,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// `pids.peak`, or the count when this was read, where the kernel keeps no peak.
    pub peak_pids: Option<u64>,
    /// How long some process of the machine waited, `total` of the `some` line (Documentation/accounting/psi.rst).
    #[serde(rename = "cpu_pressure_us", with = "optional_microseconds", default)]
    pub cpu_pressure: Option<Duration>,
    #[serde(rename = "memory_pressure_us", with = "optional_microseconds", default)]
    pub memory_pressure: Option<Duration>,
    #[serde(rename = "io_pressure_us", with = "optional_microseconds", default)]
    pub io_pressure: Option<Duration>,
}

/// An outcome, what it took, and what may explain it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// What was said beside the outcome, e.g. why a program could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub usage: Usage,
    /// The end of the machine's console, where the machine or the agent failed. It may explain the
    /// outcome; it never decides it.
    #[serde(skip)]
    pub console_tail: Option<Vec<u8>>,
}

impl Verdict {
    /// An outcome with nothing to add.
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, detail: None, usage: Usage::default(), console_tail: None }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) if !self.outcome.is_success() => write!(f, "{} ({detail})", self.outcome),
            _ => self.outcome.fmt(f),
        }
    }
}

mod microseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

mod optional_microseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands the field by reference")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::microseconds::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_micros))
    }
}
