//! What outlives a request, and some of it a restart: today the log of a workflow.

pub mod log;
