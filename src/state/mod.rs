//! What outlives a request, and some of it a restart: the log of a workflow, and the records of runs and of machines.

mod durable;
pub mod log;
pub mod machines;
mod own;
pub mod records;
