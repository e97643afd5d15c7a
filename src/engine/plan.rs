//! A plan: the steps of a workflow, ready for a runtime.

use super::{Cache, CloneOptions, EngineKind, Environment, Manifest, PlanError, PlanInput};
use super::{docker, kubernetes, microvm, nixery};

/// What a runtime is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The workflow's name.
    pub name: String,
    pub engine: EngineKind,
    pub image: Option<String>,
    /// In order; `steps[i].index == i`.
    pub steps: Vec<Step>,
    /// What every step starts from, without secrets and the steps' own.
    pub environment: Environment,
    pub clone: CloneOptions,
    pub caches: Vec<Cache>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub index: usize,
    /// One printable line.
    pub name: String,
    pub kind: StepKind,
    /// What is shown as the step's command; not what is run.
    pub command: String,
    pub action: Action,
}

/// Whose step it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// creel's own, such as the clone step.
    System,
    /// The author's.
    User,
}

impl StepKind {
    /// As the log's `step_kind` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The agent unpacks the source disk.
    UnpackSource {
        /// A folder in the guest, absolute.
        destination: String,
    },
    Exec(ExecPlan),
}

/// A command and its surroundings in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecPlan {
    pub argv: Vec<String>,
    /// May hold secrets.
    pub env: Environment,
    pub cwd: String,
    pub user: String,
}

/// Plans `manifest`'s steps.
///
/// # Errors
/// When the engine or the options that the file asks for can't be had, or a secret or input can't be passed on.
pub fn plan(manifest: &Manifest, input: &PlanInput) -> Result<Plan, PlanError> {
    match manifest.engine.value {
        EngineKind::Microvm => microvm::plan(manifest, input),
        EngineKind::Docker => Err(docker::not_yet(manifest)),
        EngineKind::Nixery => Err(nixery::not_yet(manifest)),
        EngineKind::Kubernetes => Err(kubernetes::not_yet(manifest)),
    }
}
