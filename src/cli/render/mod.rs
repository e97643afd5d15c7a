//! What a run shows: steps' output on stdout, all else on stderr.
//!
//! [`screen`] owns the two streams; a [`workflow`] renderer turns one workflow's events and log records
//! into writes to it, as text or as JSON lines; [`summary`] is the table at the end.

pub mod screen;
pub mod summary;
pub mod workflow;

pub use screen::{Screen, Style};
pub use workflow::WorkflowRenderer;
