//! Runtimes: what provides the place where a workflow's steps run.
//!
//! [`Runtime`] is the contract (Setup -> Exec* -> Destroy) that `microvm`, later the container engines
//! and Kubernetes, and the scriptable [`fake`] implement. `workflow` drives a plan over it and knows
//! nothing of what stands behind it.

pub mod contract;
pub mod event;
pub mod exec;
pub mod fake;
pub mod id;
pub mod ledger;
pub mod microvm;
pub mod observe;
pub mod retained;
pub mod shell;
pub mod streams;
pub mod verdict;

pub use contract::{
    DestroyMode, Machine, MachineFacts, Mode, Runtime, RuntimeInfo, SetupError, SetupFailure, SetupRequest,
    SignalError,
};
pub use event::{Observer, Phase, SetupEvent, SetupEvents};
pub use exec::{ExecRequest, OutputChunk, Stream, Terminal, Work};
pub use id::{MachineId, Tenant};
pub use ledger::{HeldLeases, Ledger, Made};
pub use observe::{
    Console, ConsoleHistory, HostProcess, MachineDetails, MachineLimits, MachineLoad, RuntimeStatus,
};
pub use retained::OffsetError;
pub use shell::{
    MAX_SHELL_INPUT_BYTES, MAX_SHELLS, SHELL_QUEUE, Shell, ShellError, ShellInput, ShellRequest, TerminalSize,
};
pub use streams::{
    ExecStreams, InputEvent, InputProgress, InputReader, InputWriter, OutputOffsets, OutputReader,
    OutputWriter, STREAM_WINDOW_BYTES,
};
pub use verdict::{CrashCause, MachineUsage, OutOfMemory, Outcome, Usage, Verdict};
