//! What a step finds in its environment, and which source wins.
//!
//! Upstream's order, later wins: the base of the engine (`HOME`, `LOGNAME`, `PATH`, `USER`), the file's `environment`,
//! the predefined `CI` and `TANGLED_*`, secrets, the step's `environment`. The predefined ones come after the file's
//! because upstream injects them last, so that a workflow can't mislead its own scripts about where it runs; a step can.

use std::collections::HashMap;
use std::fmt;

use super::{PlanError, RunFacts, Secret, Trigger, TriggerKind};
use crate::text::printable;

/// Linux takes no `NAME=value` longer than this (`MAX_ARG_STRLEN`, 32 pages, less the final NUL).
const LONGEST_VARIABLE_BYTES: usize = 128 * 1024 - 1;

/// Variables in the order they were first set, each name once.
///
/// It may hold secrets, so `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: Vec<(String, String)>,
    position: HashMap<String, usize>,
}

impl Environment {
    /// Sets `name`, whatever it was before.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.position.get(name) {
            Some(&at) => value.clone_into(&mut self.variables[at].1),
            None => {
                self.position.insert(name.to_owned(), self.variables.len());
                self.variables.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Sets each of `variables`.
    pub fn extend(&mut self, variables: &[(String, String)]) {
        for (name, value) in variables {
            self.set(name, value);
        }
    }

    /// Sets each of `secrets`.
    pub fn extend_secrets(&mut self, secrets: &[(String, Secret)]) {
        for (name, value) in secrets {
            self.set(name, value.expose());
        }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.position.get(name).map(|&at| self.variables[at].1.as_str())
    }

    /// All variables, each name once.
    #[must_use]
    pub fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// All variables as `NAME=value`, the form that the agent contract and `execve` take.
    #[must_use]
    pub fn to_entries(&self) -> Vec<String> {
        self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[must_use]
    pub fn into_vec(self) -> Vec<(String, String)> {
        self.variables
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables.iter().map(|(name, _)| name)).finish()
    }
}

/// `CI` and the `TANGLED_*` that exist for this trigger; a fact that is not known leaves its variable unset.
pub(super) fn predefined(trigger: &Trigger, facts: &RunFacts, sha: Option<&str>) -> Vec<(String, String)> {
    let mut variables = vec![("CI".to_owned(), "true".to_owned())];
    let mut known = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            variables.push((name.to_owned(), value.to_owned()));
        }
    };
    let repository = &facts.repository;
    known("TANGLED_PIPELINE_ID", facts.pipeline_id.as_deref());
    known("TANGLED_PIPELINE_KIND", Some(trigger.event().as_str()));
    known("TANGLED_REPO_KNOT", repository.knot.as_deref());
    known("TANGLED_REPO_DID", repository.owner_did.as_deref());
    known("TANGLED_REPO_REPO_DID", repository.repo_did.as_deref());
    known("TANGLED_REPO_NAME", repository.name.as_deref());
    known("TANGLED_REPO_DEFAULT_BRANCH", repository.default_branch.as_deref());
    known("TANGLED_REPO_URL", repository.clone_url().as_deref());
    // For a pull request the ref is the source branch.
    if let Some(git_ref) = trigger.source_ref() {
        known("TANGLED_REF", Some(&git_ref.full()));
        known("TANGLED_REF_NAME", Some(git_ref.name()));
        known("TANGLED_REF_TYPE", Some(git_ref.kind()));
    }
    known("TANGLED_SHA", sha);
    known("TANGLED_COMMIT_SHA", sha);
    match &trigger.kind {
        TriggerKind::Push { .. } => {}
        TriggerKind::PullRequest { source_branch, target_branch, action } => {
            known("TANGLED_PR_SOURCE_BRANCH", source_branch.as_deref());
            known("TANGLED_PR_TARGET_BRANCH", Some(target_branch));
            known("TANGLED_PR_SOURCE_SHA", sha);
            known("TANGLED_PR_ACTION", action.map(|action| action.as_str()));
        }
        TriggerKind::Manual { inputs, .. } => {
            for (key, value) in inputs {
                known(&format!("TANGLED_INPUT_{}", key.to_uppercase()), Some(value));
            }
        }
    }
    variables
}

/// Whether each of `secrets` can be put into an environment.
///
/// # Errors
/// [`PlanError::Secret`] names the first that can't.
pub fn check_secrets(secrets: &[(String, Secret)]) -> Result<(), PlanError> {
    secrets.iter().try_for_each(|(name, secret)| match fault(name, secret.expose()) {
        Some(fault) => Err(PlanError::Secret { name: printable(name), fault }),
        None => Ok(()),
    })
}

/// The same of a manual run's inputs.
pub(super) fn check_inputs(trigger: &Trigger) -> Result<(), PlanError> {
    let TriggerKind::Manual { inputs, .. } = &trigger.kind else { return Ok(()) };
    inputs.iter().try_for_each(|(name, value)| match fault(name, value) {
        Some(fault) => Err(PlanError::Input { name: printable(name), fault }),
        None => Ok(()),
    })
}

fn fault(name: &str, value: &str) -> Option<&'static str> {
    name_fault(name).or_else(|| value_fault(name, value))
}

/// Why `name` can't be a variable's name.
pub(super) fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains('=') {
        Some("it contains `=`")
    } else if name.contains('\0') {
        Some("it contains a NUL")
    } else {
        None
    }
}

/// Why `value` can't be what `name` is set to.
pub(super) fn value_fault(name: &str, value: &str) -> Option<&'static str> {
    if value.contains('\0') {
        Some("contains a NUL, which no variable can; remove it")
    } else if name.len() + 1 + value.len() > LONGEST_VARIABLE_BYTES {
        Some("is too long, Linux takes 128 KiB for a variable; put it into a file in the repository")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
