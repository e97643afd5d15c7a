//! What creel and the keeper agree on: the plan that creel hands down, the files that the keeper leaves in the
//! machine's directory, and how that directory is removed.
//!
//! The keeper takes no commands. creel writes one [`Plan`] into a memfd before it starts the keeper; from then on it
//! only watches files: one [`ExitRecord`] a process, the bounded [`console`] history, and a [`DoneRecord`] at the end.

#![forbid(unsafe_code)]

pub mod console;
pub mod plan;
pub mod records;
pub mod removal;

pub use console::{ConsoleError, ConsoleHistory, ConsoleSizes, ConsoleWriter};
pub use plan::{
    Entry, EntryKind, FdGrant, FdSource, Identity, Jail, JailUser, Output, Owner, PLAN_VERSION, Plan,
    PlanError, Process, Program, Ready, Root,
};
pub use records::{DoneRecord, Ending, ExitRecord, ProcessEnd, Usage};
pub use removal::{is_still, remove_contents, remove_directory};
