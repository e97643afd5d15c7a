//! What a fake machine is told to do.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
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

/// How one exec goes: output first, then a wait, then its end. It reads nothing, unless it echoes.
#[derive(Debug, Clone)]
pub struct ScriptedExec {
    pub output: Vec<(Stream, Vec<u8>)>,
    /// Once `output` is written: writes without end, and counts the bytes that were taken here.
    pub flood: Option<Arc<AtomicU64>>,
    /// Once `output` is written: writes to its standard output what it reads, up to the end of that.
    pub echoes: bool,
    pub takes: Duration,
    /// `None`: it never ends by itself.
    pub outcome: Option<Outcome>,
}

impl ScriptedExec {
    /// Ends at once with this outcome.
    pub fn ends(outcome: Outcome) -> Self {
        Self { output: Vec::new(), flood: None, echoes: false, takes: Duration::ZERO, outcome: Some(outcome) }
    }

    /// Exits at once with this code.
    pub fn exits(code: i32) -> Self {
        Self::ends(Outcome::Exited { code })
    }

    /// Runs until a deadline or a cancel.
    pub fn hangs() -> Self {
        Self { output: Vec::new(), flood: None, echoes: false, takes: Duration::ZERO, outcome: None }
    }

    /// Writes to its standard output until a deadline or a cancel, as fast as it is read.
    pub fn floods(taken_bytes: Arc<AtomicU64>) -> Self {
        Self { flood: Some(taken_bytes), ..Self::hangs() }
    }

    /// Writes what it reads, and exits with 0 at the end of its input. Sizes of its terminal go into the journal.
    pub fn echoes() -> Self {
        Self { echoes: true, ..Self::exits(0) }
    }

    /// Writes this before it ends.
    #[must_use]
    pub fn writing(mut self, stream: Stream, bytes: impl Into<Vec<u8>>) -> Self {
        self.output.push((stream, bytes.into()));
        self
    }
}
