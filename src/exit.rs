//! Exit codes: stable, scripts depend on them.

use std::process::ExitCode;

use crate::runtime::{OutOfMemory, Outcome, SetupFailure};

/// What a `creel` process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success,
    /// The workflow's own doing: non-zero, signal, out of memory.
    Failed,
    /// Bad usage or input.
    Usage,
    /// This host can't.
    HostCannot,
    TimedOut,
    /// Machine crashed, agent lost, host disk full, creel's fault.
    Broken,
    Cancelled,
    /// `creel exec`: whatever its program ended with.
    Command(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::HostCannot => 3,
            Self::TimedOut => 124,
            Self::Broken => 125,
            Self::Cancelled => 130,
            Self::Command(code) => code,
        }
    }

    /// That of a program, as a shell has it: the lowest eight bits.
    pub fn of_command(code: i32) -> Self {
        Self::Command((code & 0xff).try_into().unwrap_or(u8::MAX))
    }

    /// Of several workflows: the first that occurs of 130, 125, 124, 3, 2, 1, 0.
    pub fn worst(exits: impl IntoIterator<Item = Self>) -> Self {
        const ORDER: [Exit; 6] =
            [Exit::Cancelled, Exit::Broken, Exit::TimedOut, Exit::HostCannot, Exit::Usage, Exit::Failed];
        let exits: Vec<Self> = exits.into_iter().collect();
        ORDER.into_iter().find(|exit| exits.contains(exit)).unwrap_or(Self::Success)
    }
}

impl From<&Outcome> for Exit {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited { code: 0 } => Self::Success,
            Outcome::Exited { .. }
            | Outcome::Signalled { .. }
            | Outcome::OutOfMemory { scope: OutOfMemory::GuestProcess | OutOfMemory::MachineLimit { .. } } => {
                Self::Failed
            }
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::MachineCrashed { .. }
            | Outcome::HostDiskFull { .. }
            | Outcome::AgentLost { .. }
            | Outcome::Internal { .. } => Self::Broken,
        }
    }
}

impl From<&SetupFailure> for Exit {
    fn from(failure: &SetupFailure) -> Self {
        match failure {
            SetupFailure::BadInput(_) => Self::Usage,
            SetupFailure::HostCannot(_) => Self::HostCannot,
            SetupFailure::Ended(outcome) => outcome.into(),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::CrashCause;

    #[test]
    fn each_verdict_has_the_code_that_scripts_expect() {
        let table = [
            (Outcome::Exited { code: 0 }, 0),
            (Outcome::Exited { code: 7 }, 1),
            (Outcome::Signalled { signal: 15 }, 1),
            (Outcome::OutOfMemory { scope: OutOfMemory::GuestProcess }, 1),
            (Outcome::OutOfMemory { scope: OutOfMemory::MachineLimit { limit_mib: 1, peak_mib: 1 } }, 1),
            (Outcome::TimedOut, 124),
            (Outcome::MachineCrashed { cause: CrashCause::GuestResetOrPanic }, 125),
            (Outcome::HostDiskFull { detail: String::new() }, 125),
            (Outcome::AgentLost { detail: String::new() }, 125),
            (Outcome::internal("x"), 125),
            (Outcome::Cancelled, 130),
        ];
        for (outcome, code) in table {
            assert_eq!(Exit::from(&outcome).code(), code, "{outcome}");
        }
    }

    #[test]
    fn the_gravest_of_several_decides() {
        let of = |exits: &[Exit]| Exit::worst(exits.iter().copied()).code();
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[Exit::Success, Exit::Failed, Exit::HostCannot]), 3);
        assert_eq!(of(&[Exit::TimedOut, Exit::Broken]), 125);
        assert_eq!(of(&[Exit::Broken, Exit::Cancelled]), 130);
    }
}
