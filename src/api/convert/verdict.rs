//! Verdicts: what they say must survive the way through the API unchanged.

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::{crash, out_of_memory, outcome};

use super::{Malformed, microseconds, required};
use crate::runtime::{CrashCause, MachineUsage, OutOfMemory, Outcome, Usage, Verdict};

const NOTHING: wire::Empty = wire::Empty {};

impl From<Outcome> for wire::Outcome {
    fn from(outcome: Outcome) -> Self {
        let outcome = match outcome {
            Outcome::Exited { code } => outcome::Outcome::Exited(code),
            Outcome::Signalled { signal } => outcome::Outcome::Signalled(signal),
            Outcome::TimedOut => outcome::Outcome::TimedOut(NOTHING),
            Outcome::Cancelled => outcome::Outcome::Cancelled(NOTHING),
            Outcome::OutOfMemory { scope } => outcome::Outcome::OutOfMemory(scope.into()),
            Outcome::MachineCrashed { cause } => outcome::Outcome::MachineCrashed(cause.into()),
            Outcome::HostDiskFull { detail } => outcome::Outcome::HostDiskFull(detail),
            Outcome::AgentLost { detail } => outcome::Outcome::AgentLost(detail),
            Outcome::Internal { detail } => outcome::Outcome::Internal(detail),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<wire::Outcome> for Outcome {
    type Error = Malformed;

    fn try_from(outcome: wire::Outcome) -> Result<Self, Malformed> {
        Ok(match required(outcome.outcome, "outcome")? {
            outcome::Outcome::Exited(code) => Self::Exited { code },
            outcome::Outcome::Signalled(signal) => Self::Signalled { signal },
            outcome::Outcome::TimedOut(_) => Self::TimedOut,
            outcome::Outcome::Cancelled(_) => Self::Cancelled,
            outcome::Outcome::OutOfMemory(scope) => Self::OutOfMemory { scope: scope.try_into()? },
            outcome::Outcome::MachineCrashed(cause) => Self::MachineCrashed { cause: cause.try_into()? },
            outcome::Outcome::HostDiskFull(detail) => Self::HostDiskFull { detail },
            outcome::Outcome::AgentLost(detail) => Self::AgentLost { detail },
            outcome::Outcome::Internal(detail) => Self::Internal { detail },
        })
    }
}

impl From<OutOfMemory> for wire::OutOfMemory {
    fn from(scope: OutOfMemory) -> Self {
        let scope = match scope {
            OutOfMemory::GuestProcess => out_of_memory::Scope::GuestProcess(NOTHING),
            OutOfMemory::MachineLimit { limit_mib, peak_mib } => {
                out_of_memory::Scope::MachineLimit(wire::MachineLimit { limit_mib, peak_mib })
            }
        };
        Self { scope: Some(scope) }
    }
}

impl TryFrom<wire::OutOfMemory> for OutOfMemory {
    type Error = Malformed;

    fn try_from(scope: wire::OutOfMemory) -> Result<Self, Malformed> {
        Ok(match required(scope.scope, "out_of_memory.scope")? {
            out_of_memory::Scope::GuestProcess(_) => Self::GuestProcess,
            out_of_memory::Scope::MachineLimit(wire::MachineLimit { limit_mib, peak_mib }) => {
                Self::MachineLimit { limit_mib, peak_mib }
            }
        })
    }
}

impl From<CrashCause> for wire::Crash {
    fn from(cause: CrashCause) -> Self {
        let cause = match cause {
            CrashCause::GuestResetOrPanic => crash::Cause::GuestResetOrPanic(NOTHING),
            CrashCause::GuestPoweredOff => crash::Cause::GuestPoweredOff(NOTHING),
            CrashCause::QemuExited { status } => crash::Cause::QemuExited(status),
            CrashCause::QemuSignalled { signal } => crash::Cause::QemuSignalled(signal),
            CrashCause::PidsLimit { limit } => crash::Cause::PidsLimit(limit),
            CrashCause::HostOutOfMemory => crash::Cause::HostOutOfMemory(NOTHING),
            CrashCause::HolderStopped => crash::Cause::HolderStopped(NOTHING),
            CrashCause::HelperEnded { name, how } => {
                crash::Cause::HelperEnded(wire::HelperEnded { name, how })
            }
        };
        Self { cause: Some(cause) }
    }
}

impl TryFrom<wire::Crash> for CrashCause {
    type Error = Malformed;

    fn try_from(crash: wire::Crash) -> Result<Self, Malformed> {
        Ok(match required(crash.cause, "machine_crashed.cause")? {
            crash::Cause::GuestResetOrPanic(_) => Self::GuestResetOrPanic,
            crash::Cause::GuestPoweredOff(_) => Self::GuestPoweredOff,
            crash::Cause::QemuExited(status) => Self::QemuExited { status },
            crash::Cause::QemuSignalled(signal) => Self::QemuSignalled { signal },
            crash::Cause::PidsLimit(limit) => Self::PidsLimit { limit },
            crash::Cause::HostOutOfMemory(_) => Self::HostOutOfMemory,
            crash::Cause::HolderStopped(_) => Self::HolderStopped,
            crash::Cause::HelperEnded(wire::HelperEnded { name, how }) => Self::HelperEnded { name, how },
        })
    }
}

impl From<MachineUsage> for wire::MachineUsage {
    fn from(usage: MachineUsage) -> Self {
        Self {
            cpu_us: microseconds(usage.cpu),
            peak_memory_kib: usage.peak_memory_kib,
            memory_limit_kib: usage.memory_limit_kib,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
            peak_pids: usage.peak_pids,
            cpu_pressure_us: usage.cpu_pressure.map(microseconds),
            memory_pressure_us: usage.memory_pressure.map(microseconds),
            io_pressure_us: usage.io_pressure.map(microseconds),
        }
    }
}

impl From<wire::MachineUsage> for MachineUsage {
    fn from(usage: wire::MachineUsage) -> Self {
        Self {
            cpu: Duration::from_micros(usage.cpu_us),
            peak_memory_kib: usage.peak_memory_kib,
            memory_limit_kib: usage.memory_limit_kib,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
            peak_pids: usage.peak_pids,
            cpu_pressure: usage.cpu_pressure_us.map(Duration::from_micros),
            memory_pressure: usage.memory_pressure_us.map(Duration::from_micros),
            io_pressure: usage.io_pressure_us.map(Duration::from_micros),
        }
    }
}

impl From<Usage> for wire::Usage {
    fn from(usage: Usage) -> Self {
        Self {
            wall_us: microseconds(usage.wall),
            cpu_us: usage.cpu.map(microseconds),
            peak_memory_kib: usage.peak_memory_kib,
            stdout_bytes: usage.stdout_bytes,
            stderr_bytes: usage.stderr_bytes,
            machine: usage.machine.map(|usage| (*usage).into()),
        }
    }
}

impl From<wire::Usage> for Usage {
    fn from(usage: wire::Usage) -> Self {
        Self {
            wall: Duration::from_micros(usage.wall_us),
            cpu: usage.cpu_us.map(Duration::from_micros),
            peak_memory_kib: usage.peak_memory_kib,
            stdout_bytes: usage.stdout_bytes,
            stderr_bytes: usage.stderr_bytes,
            machine: usage.machine.map(|usage| Box::new(usage.into())),
        }
    }
}

impl From<Verdict> for wire::Verdict {
    fn from(verdict: Verdict) -> Self {
        Self {
            outcome: Some(verdict.outcome.into()),
            detail: verdict.detail,
            usage: Some(verdict.usage.into()),
            console_tail: verdict.console_tail.map(Into::into),
        }
    }
}

impl TryFrom<wire::Verdict> for Verdict {
    type Error = Malformed;

    fn try_from(verdict: wire::Verdict) -> Result<Self, Malformed> {
        Ok(Self {
            outcome: required(verdict.outcome, "verdict.outcome")?.try_into()?,
            detail: verdict.detail,
            usage: verdict.usage.map(Into::into).unwrap_or_default(),
            console_tail: verdict.console_tail.map(Into::into),
        })
    }
}
