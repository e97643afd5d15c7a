//! Drives a plan over a runtime: the only place that knows step order, deadlines and verdicts.
//!
//! ```text
//! Job (plan, source, deadline) ── run ──▶ setup ─▶ step ─▶ step ─▶ ... ─▶ destroy ──▶ Report
//!                                   │       └── output ──▶ recorder ──▶ log store (masked, bounded)
//!                                   └── WorkflowEvent: what a renderer shows while it goes on
//! ```
//!
//! A failed step ends the workflow; the machine is destroyed in every case, and nothing can cancel that.

pub mod driver;
pub mod event;
pub mod recorder;
pub mod report;
pub mod source;

#[cfg(test)]
mod tests;

pub use driver::{Job, run};
pub use event::{WorkflowEvent, WorkflowEvents};
pub use report::{Ending, Report, StepReport};
