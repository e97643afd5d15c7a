//! What a fake machine is told to do.

use std::time::Duration;

use crate::runtime::{Outcome, SetupFailure, Stream};

/// How the setup goes.
#[derive(Debug, Clone)]
pub enum ScriptedSetup {
    Ready,
    Fails(SetupFailure),
    /// Never ends by itself: only a deadline or a cancel ends it.
    Hangs,
}

/// How one exec goes: output first, then a wait, then its end.
#[derive(Debug, Clone)]
pub struct ScriptedExec {
    pub output: Vec<(Stream, Vec<u8>)>,
    pub takes: Duration,
    /// `None`: it never ends by itself.
    pub outcome: Option<Outcome>,
}

impl ScriptedExec {
    /// Ends at once with this outcome.
    pub fn ends(outcome: Outcome) -> Self {
        Self { output: Vec::new(), takes: Duration::ZERO, outcome: Some(outcome) }
    }

    /// Exits at once with this code.
    pub fn exits(code: i32) -> Self {
        Self::ends(Outcome::Exited { code })
    }

    /// Runs until a deadline or a cancel.
    pub fn hangs() -> Self {
        Self { output: Vec::new(), takes: Duration::ZERO, outcome: None }
    }

    /// Writes this before it ends.
    #[must_use]
    pub fn writing(mut self, stream: Stream, bytes: impl Into<Vec<u8>>) -> Self {
        self.output.push((stream, bytes.into()));
        self
    }
}
