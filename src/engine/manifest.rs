//! A workflow file, checked: everything that later code may rely on.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::yaml::{self, Limits, Span};
use super::{Diagnostic, ManifestErrors, Pattern, decode};

/// A workflow file whose every key was known and every value made sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The name it was parsed under, for messages.
    pub file_name: String,
    pub engine: Spanned<EngineKind>,
    /// At least one.
    pub when: Vec<Condition>,
    pub clone: CloneOptions,
    /// `environment` of the whole workflow, in the file's order, names unique.
    pub environment: Vec<(String, String)>,
    /// At least one.
    pub steps: Vec<ManifestStep>,
    /// For engine `microvm` a plain name or none (the default image); for `docker` and `kubernetes` always given.
    pub image: Option<Spanned<String>>,
    /// A hint for engines that can choose.
    pub architecture: Option<Spanned<String>>,
    /// Labels that an executor must have, all of them, exactly.
    pub runs_on: Vec<String>,
    pub dependencies: Option<Spanned<Dependencies>>,
    pub caches: Vec<Cache>,
    /// `services` (microvm): a map for NixOS's `services.*`.
    pub services: Option<Spanned<Value>>,
    /// `virtualisation` (microvm): a map for NixOS's `virtualisation.*`.
    pub virtualisation: Option<Spanned<Value>>,
    /// `registry` (microvm): flake name to flake reference, as text or attributes.
    pub registry: Option<Spanned<Value>>,
}

/// A value and the place where its key stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

/// What reads a manifest and plans its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    Microvm,
    Nixery,
    Docker,
    Kubernetes,
}

/// What can set a workflow off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Push,
    PullRequest,
    Manual,
}

/// What happened to a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestAction {
    Opened,
    Reopened,
    Synchronize,
    Closed,
    Merged,
}

/// One entry of `when`; any one that matches is enough.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub events: Vec<Event>,
    /// Against the pushed branch, or a pull request's target.
    pub branches: Vec<Pattern>,
    /// Against a pushed tag.
    pub tags: Vec<Pattern>,
    /// Against the changed files; empty means any.
    pub paths: Vec<Pattern>,
    /// Pull requests only; empty means opened, reopened and synchronize.
    pub types: Vec<PullRequestAction>,
    pub span: Span,
}

/// How the repository gets into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneOptions {
    pub skip: bool,
    /// Commits to fetch; 0 in the file means the default, 1, as upstream has it.
    pub depth: u32,
    pub submodules: bool,
    pub tags: bool,
}

impl Default for CloneOptions {
    fn default() -> Self {
        Self { skip: false, depth: 1, submodules: false, tags: false }
    }
}

/// One entry of `steps`.
#[derive(Clone, Debug, PartialEq)]
pub struct ManifestStep {
    /// The given name, or the command's first line; one printable line.
    pub name: String,
    pub command: String,
    pub environment: Vec<(String, String)>,
    pub span: Span,
}

/// `dependencies`: two engines, two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependencies {
    /// microvm: nixpkgs attributes (`go`, `python3Packages.requests`) or `flakeref#attribute`.
    Packages(Vec<String>),
    /// nixery: registry (`nixpkgs` or a flake reference) to packages.
    ByRegistry(Vec<(String, Vec<String>)>),
}

/// One Nix cache to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// `http` or `https`.
    pub url: String,
    /// `None` for a cache whose paths need no signature of its own.
    pub public_key: Option<String>,
}

/// A key that changes a NixOS image's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NixosOption {
    pub key: &'static str,
    pub span: Span,
}

impl Manifest {
    /// Reads a workflow file. `file_name` is only used in messages.
    ///
    /// # Errors
    /// Everything that is wrong with the file, not only the first thing.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, ManifestErrors> {
        let loaded = yaml::load(text, &Limits::default());
        decode::manifest(file_name, loaded).map_err(|problems| ManifestErrors::new(file_name, text, problems))
    }

    /// Reads a workflow file as it is on a disk.
    ///
    /// # Errors
    /// As [`Manifest::parse`]; and when it is no UTF-8 text, at its first byte that is none.
    pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Self, ManifestErrors> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(file_name, text),
            Err(error) => {
                let text = String::from_utf8_lossy(bytes);
                // What is before the fault reads the same in both.
                let span = Span::of_offset(&text, error.valid_up_to());
                let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
                let message = format!("byte 0x{byte:02x} is not UTF-8 text; save the file as UTF-8");
                Err(ManifestErrors::new(file_name, &text, vec![Diagnostic::new(span, message)]))
            }
        }
    }

    /// The keys that ask for a NixOS configuration and are not empty: what upstream calls an enabled config.
    #[must_use]
    pub fn nixos_options(&self) -> Vec<NixosOption> {
        let filled = |option: &Option<Spanned<Value>>| {
            let spanned = option.as_ref()?;
            spanned.value.as_object().is_some_and(|map| !map.is_empty()).then_some(spanned.span)
        };
        let packages = self.dependencies.as_ref().and_then(|spanned| match &spanned.value {
            Dependencies::Packages(packages) if !packages.is_empty() => Some(spanned.span),
            _ => None,
        });
        [
            ("services", filled(&self.services)),
            ("virtualisation", filled(&self.virtualisation)),
            ("dependencies", packages),
            ("registry", filled(&self.registry)),
        ]
        .into_iter()
        .filter_map(|(key, span)| span.map(|span| NixosOption { key, span }))
        .collect()
    }
}

impl EngineKind {
    /// Every engine, in the order that messages name them.
    pub const ALL: [Self; 4] = [Self::Microvm, Self::Nixery, Self::Docker, Self::Kubernetes];

    /// The name used in `engine:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Nixery => "nixery",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 3] = [Self::Push, Self::PullRequest, Self::Manual];

    /// The name used in `event:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PullRequest => "pull_request",
            Self::Manual => "manual",
        }
    }
}

impl PullRequestAction {
    /// Every action.
    pub const ALL: [Self; 5] = [Self::Opened, Self::Reopened, Self::Synchronize, Self::Closed, Self::Merged];

    /// The name used in `types:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reopened => "reopened",
            Self::Synchronize => "synchronize",
            Self::Closed => "closed",
            Self::Merged => "merged",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
