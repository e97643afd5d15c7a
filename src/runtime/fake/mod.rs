//! A runtime that follows a script, for tests of verdicts, deadlines and teardown.
//!
//! It stands in for machines that fail in ways that are hard to arrange, never for real ones: what a
//! machine does is shown with real microVMs.

mod machine;
mod script;
mod shell;

pub use machine::{Death, FakeConsole, FakeRuntime, Journal};
pub use script::{ScriptedExec, ScriptedSetup};
