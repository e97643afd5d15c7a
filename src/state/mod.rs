//! What outlives a request, and some of it a restart: the log of a workflow, and the records of runs.

pub mod log;
pub mod records;
