//! Why a command ends without having done its work: a sentence and an exit code.

use std::fmt;

pub(super) use crate::error::with_causes;
use crate::exit::Exit;

/// A command's failure. The text says what failed, on what, and what to do.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    text: String,
}

impl Failure {
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// Bad usage or input.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// This host can't.
    pub fn host(error: impl fmt::Display) -> Self {
        Self::new(Exit::HostCannot, error.to_string())
    }

    /// creel's own fault.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::new(Exit::Broken, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
