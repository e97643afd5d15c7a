//! Reads a workflow file and plans its steps.
//!
//! Everything here is pure: no file, no clock, no environment. Text and facts go in, a [`Manifest`] and a [`Plan`] come
//! out, so that `creel run`, `creel workflow ls`, the daemon and a fuzzer all share one reading of a file.
//!
//! ```text
//! text ─ yaml ─▶ tree with positions ─ decode ─▶ Manifest ─ plan + one file an engine ─▶ Plan ─▶ runnable, or what is lacking
//!                                                   └── when ─▶ does this trigger match, and why not
//! ```
//!
//! The workflow author is not trusted: sizes, depth, alias expansion and pattern lengths are bounded, and text from a
//! file is cleaned before it is shown on a terminal.

mod clone_step;
mod container;
mod decode;
mod diagnostic;
mod docker;
mod environment;
mod facts;
mod kubernetes;
mod manifest;
mod microvm;
mod nixery;
mod not_yet;
mod pattern;
mod plan;
mod plan_error;
mod secret;
mod step_name;
mod when;
mod workflow_id;
pub mod yaml;

pub use diagnostic::{Diagnostic, ManifestErrors};
pub use environment::{Environment, check_secrets};
pub use facts::{ImageFacts, PlanInput, Repository, RunFacts, SourceKind};
pub use manifest::{
    Cache, CloneOptions, Condition, Dependencies, EngineKind, Event, Manifest, ManifestStep, NixosOption,
    PullRequestAction, Spanned,
};
pub use microvm::{BASE_PATH, DEVSHELL_ENV, HOME, WORK_DIR, WORKFLOW_USER};
pub use not_yet::NotYet;
pub use pattern::{Pattern, PatternError};
pub use plan::{Action, Container, ExecPlan, Plan, Step, StepKind, plan};
pub use plan_error::{Location, PlanError};
pub use secret::Secret;
pub use when::{GitRef, Match, Trigger, TriggerKind};
pub use workflow_id::WorkflowId;

#[cfg(test)]
mod tests;
