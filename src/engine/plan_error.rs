//! Why a manifest has no plan.

use std::fmt;

use thiserror::Error;

use super::EngineKind;
use super::yaml::Span;
use crate::text::printable;

/// A place in a workflow file, shown as `file.yml:3:1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub file: String,
    pub line: usize,
    pub column: usize,
}

/// Why a manifest has no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Upstream's words after the name, so that a search finds them.
    #[error(
        "{at}: microVM image `{image}` is not a NixOS image: services, virtualisation, dependencies and registry workflow \
         options require a NixOS image (used here: {})", listed(.keys)
    )]
    NotNixos { image: String, keys: Vec<&'static str>, at: Location },

    #[error("{file}: engine `{engine}` needs an image, and none was given")]
    NoImage { file: String, engine: EngineKind },

    #[error("secret `{name}` can't be put into the environment: {fault}")]
    Secret { name: String, fault: &'static str },

    #[error("input `{name}` can't be put into the environment: {fault}")]
    Input { name: String, fault: &'static str },
}

impl Location {
    pub(super) fn new(file: &str, span: Span) -> Self {
        Self { file: file.to_owned(), line: span.line, column: span.column }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", printable(&self.file), self.line, self.column)
    }
}

fn listed(keys: &[&str]) -> String {
    format!("`{}`", keys.join("`, `"))
}
