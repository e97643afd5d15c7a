//! What a run shows: steps' output on stdout, all else on stderr.
//!
//! [`screen`] owns the two streams ([`palette`] their colours); a [`workflow`] renderer turns one workflow's events and log records
//! into writes to it, as text or as JSON lines; [`summary`] is the table at the end.

pub mod palette;
pub mod screen;
pub mod summary;
pub mod workflow;

pub use palette::{Colour, Palette};
pub use screen::{Screen, Style};
pub use workflow::WorkflowRenderer;
