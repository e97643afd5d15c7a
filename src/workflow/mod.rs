//! Drives a plan over a runtime: the only place that knows step order, deadlines and verdicts.
//!
//! ```text
//! Job (plan, source, deadline) ─▶ Session: setup ─▶ step ─▶ step ─▶ ... ─▶ tear_down ──▶ Report
//!                                  │               └── output ──▶ recorder ──▶ log store (masked, bounded)
//!                                  └── WorkflowEvent: what a renderer shows while it goes on
//! ```
//!
//! [`run`] drives a session to its end (`creel run`); the API hands its calls to one, see `workflows`.
//! A failed step ends the workflow; the machine is destroyed in every case, and nothing can cancel that. It may be kept for a
//! while before ([`Session::keeping_failed`]), for people who want to look.

pub mod event;
pub mod recorder;
pub mod report;
pub mod session;
pub mod source;

#[cfg(test)]
mod tests;

pub use event::{LetGo, WorkflowEvent, WorkflowEvents};
pub use report::{Ending, Report, StepReport};
pub use session::{Job, Session, StepOrder, run};
