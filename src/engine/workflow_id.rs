//! The name under which a workflow's run is known outside: in cgroups, files, job ids.

use std::fmt;

/// `<run>-<workflow>`, in characters that are safe in a path, a unit name and a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkflowId(String);

impl WorkflowId {
    /// The id of workflow `name` within the run `run`. As upstream does, every character other than `a-z A-Z 0-9 _ . -`
    /// becomes `-`; so two names may share an id, and what must be unique has to be in `run`.
    #[must_use]
    pub fn new(run: &str, name: &str) -> Self {
        Self(format!("{}-{}", Self::normalize(run), Self::normalize(name)))
    }

    /// Upstream's normalisation of one part.
    #[must_use]
    pub fn normalize(text: &str) -> String {
        text.chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' })
            .collect()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_characters_become_dashes() {
        assert_eq!(WorkflowId::new("3kx5", "rust test/../é.yml").as_str(), "3kx5-rust-test-..--.yml");
    }
}
