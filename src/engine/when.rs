//! Does what happened set a workflow off, and if not, why not.

use super::manifest::{Condition, Event, Manifest, PullRequestAction};
use super::pattern::Pattern;
use crate::text::printable;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    pub kind: TriggerKind,
    /// Files that changed, relative to the repository's root; `None` when nobody knows, and then `paths` does not keep a
    /// workflow from running.
    pub changed_paths: Option<Vec<String>>,
}

/// The events, each with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TriggerKind {
    Manual {
        /// What is checked out, where it has a name.
        git_ref: Option<GitRef>,
        /// `--input KEY=VALUE`, which steps see as `TANGLED_INPUT_<KEY>`.
        inputs: Vec<(String, String)>,
    },
    Push {
        git_ref: GitRef,
    },
    PullRequest {
        source_branch: Option<String>,
        target_branch: String,
        /// `None` counts as opened.
        action: Option<PullRequestAction>,
    },
}

/// A branch or a tag, by its short name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitRef {
    Branch(String),
    Tag(String),
}

/// Whether a workflow runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Yes,
    /// One sentence for each condition of the file.
    No {
        reasons: Vec<String>,
    },
}

impl Trigger {
    /// A run that a person asked for.
    #[must_use]
    pub fn manual() -> Self {
        Self { kind: TriggerKind::Manual { git_ref: None, inputs: Vec::new() }, changed_paths: None }
    }

    /// A push to `git_ref`.
    #[must_use]
    pub fn push(git_ref: GitRef) -> Self {
        Self { kind: TriggerKind::Push { git_ref }, changed_paths: None }
    }

    /// A pull request into `target_branch`.
    #[must_use]
    pub fn pull_request(target_branch: impl Into<String>) -> Self {
        let kind = TriggerKind::PullRequest {
            source_branch: None,
            target_branch: target_branch.into(),
            action: None,
        };
        Self { kind, changed_paths: None }
    }

    #[must_use]
    pub fn event(&self) -> Event {
        match self.kind {
            TriggerKind::Manual { .. } => Event::Manual,
            TriggerKind::Push { .. } => Event::Push,
            TriggerKind::PullRequest { .. } => Event::PullRequest,
        }
    }

    /// What is checked out: the pushed ref, or a pull request's source branch.
    pub(super) fn source_ref(&self) -> Option<GitRef> {
        match &self.kind {
            TriggerKind::Manual { git_ref, .. } => git_ref.clone(),
            TriggerKind::Push { git_ref } => Some(git_ref.clone()),
            TriggerKind::PullRequest { source_branch, .. } => source_branch.clone().map(GitRef::Branch),
        }
    }
}

impl GitRef {
    /// Reads `refs/heads/…` or `refs/tags/…`; anything else is taken for a branch's short name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("refs/tags/") {
            Some(tag) => Self::Tag(tag.to_owned()),
            None => Self::Branch(text.strip_prefix("refs/heads/").unwrap_or(text).to_owned()),
        }
    }

    /// The short name: `main`, `v1.0`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Branch(name) | Self::Tag(name) => name,
        }
    }

    /// `branch` or `tag`, as in `TANGLED_REF_TYPE`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Branch(_) => "branch",
            Self::Tag(_) => "tag",
        }
    }

    /// The full name: `refs/heads/main`, `refs/tags/v1.0`.
    #[must_use]
    pub fn full(&self) -> String {
        match self {
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tag(name) => format!("refs/tags/{name}"),
        }
    }
}

impl Manifest {
    /// Whether `trigger` meets any condition of `when`.
    ///
    /// A manual run matches a condition that names `manual`; its branch, tag and paths have no say. (Upstream matches
    /// every file on a manual run, because there a person has chosen the file; naming one to `creel run` does that.)
    #[must_use]
    pub fn matches(&self, trigger: &Trigger) -> Match {
        let mut reasons = Vec::new();
        for (index, condition) in self.when.iter().enumerate() {
            match condition.refusal(trigger) {
                None => return Match::Yes,
                Some(reason) => reasons.push(format!("when[{index}]: {reason}")),
            }
        }
        Match::No { reasons }
    }
}

impl Condition {
    /// Why `trigger` does not meet this condition; `None` if it does.
    fn refusal(&self, trigger: &Trigger) -> Option<String> {
        let event = trigger.event();
        if !self.events.contains(&event) {
            let events: Vec<_> = self.events.iter().map(|event| event.as_str()).collect();
            return Some(format!("runs on {}, not on {event}", events.join(" and ")));
        }
        match &trigger.kind {
            TriggerKind::Manual { .. } => None,
            TriggerKind::Push { git_ref } => {
                let patterns = match git_ref {
                    GitRef::Branch(_) => &self.branches,
                    GitRef::Tag(_) => &self.tags,
                };
                name_refusal(git_ref.kind(), git_ref.name(), patterns).or_else(|| self.paths_refusal(trigger))
            }
            TriggerKind::PullRequest { target_branch, action, .. } => self
                .action_refusal(action.unwrap_or(PullRequestAction::Opened))
                .or_else(|| name_refusal("branch", target_branch, &self.branches))
                .or_else(|| self.paths_refusal(trigger)),
        }
    }

    fn action_refusal(&self, action: PullRequestAction) -> Option<String> {
        use PullRequestAction::{Opened, Reopened, Synchronize};
        let wanted =
            if self.types.is_empty() { &[Opened, Reopened, Synchronize] } else { self.types.as_slice() };
        if wanted.contains(&action) {
            return None;
        }
        let wanted: Vec<_> = wanted.iter().map(|action| action.as_str()).collect();
        Some(format!(
            "runs when a pull request is {}, not when it is {}",
            wanted.join(" or "),
            action.as_str()
        ))
    }

    fn paths_refusal(&self, trigger: &Trigger) -> Option<String> {
        let changed = trigger.changed_paths.as_ref()?;
        let touched = |pattern: &Pattern| changed.iter().any(|path| pattern.matches(path));
        if self.paths.is_empty() || self.paths.iter().any(touched) {
            return None;
        }
        Some(format!("no changed file matches paths {}", list(&self.paths)))
    }
}

fn name_refusal(kind: &str, name: &str, patterns: &[Pattern]) -> Option<String> {
    if patterns.is_empty() {
        return Some(format!("names no `{kind}`, so {kind} `{name}` does not match"));
    }
    if patterns.iter().any(|pattern| pattern.matches(name)) {
        return None;
    }
    Some(format!("{kind} `{name}` does not match {}", list(patterns)))
}

fn list(patterns: &[Pattern]) -> String {
    let quoted: Vec<_> =
        patterns.iter().map(|pattern| format!("`{}`", printable(pattern.as_str()))).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests;
