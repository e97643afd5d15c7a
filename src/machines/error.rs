//! Why something could not be done with a machine.

use crate::runtime::{self, MachineId, OffsetError, SetupError};

/// Why there is no new machine.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(
        "there are {max} machines already, which is as many as there may be; destroy one, or raise `daemon.max_machines`"
    )]
    Full { max: usize },
    #[error("no new machines are taken, since creel is shutting down")]
    Draining,
    #[error("there is a machine {0} already")]
    Exists(MachineId),
    #[error("these are the machines of a `creel run`, which alone creates them; `creel create` asks creeld")]
    OfARun,
}

/// Why nothing was run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("there is no machine {0}; `creel ps` lists those that there are")]
    Unknown(MachineId),
    #[error("machine {0} is still being set up; wait until it is ready")]
    SettingUp(MachineId),
    #[error(
        "machine {machine} has had an exec `{exec}` already, and an id may be used once in a machine's life; leave it \
         out, and creeld makes one"
    )]
    Duplicate { machine: MachineId, exec: String },
    /// Of ids that callers chose.
    #[error("machine {0} has had as many execs with ids of their callers as it may have; leave the id out")]
    Exhausted(MachineId),
    /// Nobody can attach to it: it never was, or it was cancelled or told to its end.
    #[error("machine {machine} has no exec `{exec}` that could be attached to")]
    UnknownExec { machine: MachineId, exec: String },
    /// The output can't be read from where the caller wants to go on.
    #[error("exec `{exec}` can't go on from there: {why}")]
    Offset {
        exec: String,
        #[source]
        why: OffsetError,
    },
}

/// Why a caller is no longer attached to an exec that goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Detached {
    #[error("another caller has attached to exec `{0}`")]
    Replaced(String),
    #[error("input comes from offset {claimed}, and the next byte is that of {expected}")]
    InputOffset { claimed: u64, expected: u64 },
    #[error("the exec was not started with `input`")]
    NoInput,
    #[error("input comes after its end")]
    InputAfterEnd,
    #[error("offset {offset} is acknowledged, and nothing behind {sent} was sent")]
    Acknowledged { offset: u64, sent: u64 },
    #[error("the call did not say that it acknowledges")]
    AcknowledgesNot,
    /// creel's own fault.
    #[error("the task that owned the exec has ended without a verdict")]
    Orphaned,
}

/// Why no signal was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    #[error("there is no machine {0}; `creel ps` lists those that there are")]
    Unknown(MachineId),
    #[error("machine {0} is still being set up; wait until it is ready")]
    SettingUp(MachineId),
    /// Or is about to.
    #[error("machine {0} has ended")]
    Ended(MachineId),
    #[error("machine {machine}: {why}")]
    Machine { machine: MachineId, why: runtime::SignalError },
}

/// Why there is no shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    #[error("there is no machine {0}; `creel ps` lists those that there are")]
    Unknown(MachineId),
    #[error("machine {0} is still being set up; wait until it is ready")]
    SettingUp(MachineId),
    /// Or is about to.
    #[error("machine {0} has ended")]
    Ended(MachineId),
    #[error("machine {machine}: {why}")]
    Machine { machine: MachineId, why: runtime::ShellError },
}

/// What is wrong with a destroy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestroyError {
    #[error("there is no machine {0}; `creel ps` lists those that there are")]
    Unknown(MachineId),
    /// The machine has ended; this is what is left of it.
    #[error("machine {id} has ended, but not all that it held could be freed: {what}")]
    NotFreed { id: MachineId, what: String },
    /// It goes on being waited for, and listed.
    #[error("machine {id} has not ended yet, and is listed as ending until it has: {what}")]
    NotEnded { id: MachineId, what: String },
}

/// Why there is no console to read.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("there is no machine {0}; `creel ps` lists those that there are")]
    Unknown(MachineId),
    #[error("machine {0} is still being set up; follow its console, or wait until it is ready")]
    SettingUp(MachineId),
    #[error("failed to read the console of machine {id}")]
    Unreadable {
        id: MachineId,
        #[source]
        source: std::io::Error,
    },
}
