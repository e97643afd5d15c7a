//! The tree of a workflow file to a [`Manifest`](super::Manifest), strictly.
//!
//! Each function reads one part and returns `None` where it could not, having said why in [`Problems`]; the caller goes
//! on with the next part, so that one run shows every mistake in the file.

mod conditions;
mod engine_rules;
mod environment;
mod expected;
mod field;
mod nix;
mod problems;
mod steps;
mod suggestion;
mod workflow;

use expected::Expected;
use field::{Field, Fields};
use problems::Problems;
pub(super) use workflow::manifest;
