//! What a plan needs to know besides the file.

use super::Trigger;

/// All that goes into a plan. Nothing in it is looked up here: the caller has read the image and git.
/// Secrets are no part of it: a plan can be shown and kept.
#[derive(Clone, Debug)]
pub struct PlanInput {
    /// The file's name without folder and ending.
    pub workflow_name: String,
    pub trigger: Trigger,
    pub facts: RunFacts,
    /// The image that `image:`, or the default, led to. Engine `microvm` needs it; others have none.
    pub image: Option<ImageFacts>,
    pub source: SourceKind,
}

/// What is known of the run; an unknown fact leaves its `TANGLED_*` unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// The pipeline record's AT URI.
    pub pipeline_id: Option<String>,
    pub repository: Repository,
    /// The commit that runs: pushed, a pull request's source, or checked out. For [`SourceKind::Disk`] the disk's
    /// commit stands in for it.
    pub sha: Option<String>,
}

/// What is known of the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repository {
    /// The knot's host, with its port if it has one; a scheme before it (`http://`) counts.
    pub knot: Option<String>,
    pub owner_did: Option<String>,
    pub repo_did: Option<String>,
    pub name: Option<String>,
    pub default_branch: Option<String>,
    /// Where it is cloned from; `None` means `<scheme>://<knot>/<repo_did>`.
    pub url: Option<String>,
}

/// What a plan needs to know of an image's `spec.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    pub name: String,
    /// The login shell, absolute.
    pub shell: String,
    /// NixOS images only.
    pub base_config_hash: Option<String>,
}

/// Where the repository's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A read-only disk that the agent unpacks.
    Disk {
        commit: Option<String>,
        /// Whether the disk holds the work tree instead of the commit.
        dirty: bool,
    },
    /// `git fetch` from the repository's URL, in the machine.
    Remote {
        /// False only for a development set-up with a self-signed certificate.
        verify_tls: bool,
    },
}

impl PlanInput {
    /// The commit that runs.
    pub(super) fn sha(&self) -> Option<&str> {
        self.facts.sha.as_deref().or(match &self.source {
            SourceKind::Disk { commit, .. } => commit.as_deref(),
            SourceKind::Remote { .. } => None,
        })
    }
}

impl Repository {
    /// Where the repository is cloned from, if that is known.
    #[must_use]
    pub fn clone_url(&self) -> Option<String> {
        match (&self.url, &self.knot, &self.repo_did) {
            (Some(url), ..) => Some(url.clone()),
            (None, Some(knot), Some(did)) => Some(format!("{}/{did}", knot_url(knot)?)),
            _ => None,
        }
    }
}

/// Upstream's reading of a knot: `https`, unless it says otherwise or is a developer's own machine. Websocket schemes
/// stand for their http ones; the host is in lower case.
fn knot_url(knot: &str) -> Option<String> {
    let (scheme, host) = match knot.split_once("://") {
        Some(("https" | "wss", host)) => ("https", host),
        Some(("http" | "ws", host)) => ("http", host),
        Some(_) => return None,
        None if knot.starts_with("localhost:") => ("http", knot),
        None => ("https", knot),
    };
    Some(format!("{scheme}://{}", host.trim_end_matches('/').to_lowercase()))
}
