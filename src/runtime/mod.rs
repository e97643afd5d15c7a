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
pub mod microvm;
pub mod verdict;

pub use contract::{
    DestroyMode, Machine, Mode, Runtime, RuntimeInfo, SetupError, SetupFailure, SetupRequest,
};
pub use event::{Phase, SetupEvent, SetupEvents};
pub use exec::{ExecRequest, OUTPUT_QUEUE_CHUNKS, OutputChunk, Stream, Work};
pub use id::{MachineId, Tenant};
pub use verdict::{CrashCause, OutOfMemory, Outcome, Usage, Verdict};
