//! Where the parts of the decoder leave their complaints.

use crate::engine::Diagnostic;
use crate::engine::yaml::Span;

/// A growing list of problems.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Diagnostic>);

impl Problems {
    pub(super) fn starting_with(found: Vec<Diagnostic>) -> Self {
        Self(found)
    }

    /// Notes a problem. Returns `None`, so that a reader can end with `problems.add(…)`.
    pub(super) fn add<T>(&mut self, span: Span, message: impl AsRef<str>) -> Option<T> {
        self.0.push(Diagnostic::new(span, message));
        None
    }

    pub(super) fn into_vec(self) -> Vec<Diagnostic> {
        self.0
    }
}
