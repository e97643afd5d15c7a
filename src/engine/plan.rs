//! A plan: the steps of a workflow, ready for a runtime.

use super::{Cache, CloneOptions, EngineKind, Environment, Manifest, NotYet, PlanError, PlanInput, Secret};
use super::{docker, kubernetes, microvm, nixery};

/// What a runtime is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The workflow's name.
    pub name: String,
    pub engine: EngineKind,
    /// For engine `microvm` an image's name, for the others what a container runtime pulls.
    pub image: Option<String>,
    /// In order; `steps[i].index == i`.
    pub steps: Vec<Step>,
    /// What every step starts from.
    pub environment: Environment,
    pub clone: CloneOptions,
    /// By URL, upstream's order.
    pub caches: Vec<Cache>,
    /// What the steps run in, if that is a container.
    pub container: Option<Container>,
    not_yet: Option<NotYet>,
}

/// What a container runtime is to set up before the first step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub work_dir: String,
    /// Folders to make, the work directory among them.
    pub directories: Vec<String>,
    /// What root may do in it, as Linux names capabilities without `CAP_`; everything else is dropped.
    pub capabilities: Vec<&'static str>,
    /// A hint for a runtime that can choose: `arm64`.
    pub architecture: Option<String>,
    /// Whether the runtime takes all steps in one go, instead of one after the other.
    pub batch: bool,
}

impl Plan {
    /// Numbers `steps`.
    pub(super) fn new(
        manifest: &Manifest,
        input: &PlanInput,
        image: Option<String>,
        mut steps: Vec<Step>,
        environment: Environment,
        container: Option<Container>,
    ) -> Self {
        for (index, step) in steps.iter_mut().enumerate() {
            step.index = index;
        }
        let mut caches = manifest.caches.clone();
        caches.sort_by(|one, other| one.url.cmp(&other.url));
        Self {
            name: input.workflow_name.clone(),
            engine: manifest.engine.value,
            image,
            steps,
            environment,
            clone: manifest.clone,
            caches,
            container,
            not_yet: manifest.not_yet(),
        }
    }

    /// Whether there is a runtime for this plan, to be asked before one is chosen.
    ///
    /// # Errors
    /// What is lacking, with the line that asks for it. The file is fine: this is about the host (exit code 3).
    pub fn runnable(&self) -> Result<(), NotYet> {
        self.not_yet.clone().map_or(Ok(()), Err)
    }
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
    /// The guest builds a NixOS configuration and switches to it.
    ActivateConfig {
        /// JSON, as the agent takes it: `services`, `virtualisation`, `dependencies`, `registry`, where filled.
        user_config: String,
    },
    Exec(ExecPlan),
}

/// A command and its surroundings in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecPlan {
    pub argv: Vec<String>,
    /// Before secrets: the workflow's.
    pub environment: Environment,
    /// After secrets: the step's own.
    pub own_environment: Vec<(String, String)>,
    /// After everything: what no file and no secret can change.
    pub fixed_environment: Vec<(String, String)>,
    pub cwd: String,
    /// `None`: the image's own.
    pub user: Option<String>,
}

impl ExecPlan {
    /// All that the step finds in its environment. It holds secrets: a plan does not, so that it can be shown and kept.
    #[must_use]
    pub fn environment_with(&self, secrets: &[(String, Secret)]) -> Environment {
        let mut environment = self.environment.clone();
        environment.extend_secrets(secrets);
        environment.extend(&self.own_environment);
        environment.extend(&self.fixed_environment);
        environment
    }
}

/// Plans `manifest`'s steps. What is planned may need more than creel has: see [`Plan::runnable`].
///
/// # Errors
/// When the file asks for what its image can't have, or an input can't be passed on.
pub fn plan(manifest: &Manifest, input: &PlanInput) -> Result<Plan, PlanError> {
    match manifest.engine.value {
        EngineKind::Microvm => microvm::plan(manifest, input),
        EngineKind::Docker => docker::plan(manifest, input),
        EngineKind::Nixery => nixery::plan(manifest, input),
        EngineKind::Kubernetes => kubernetes::plan(manifest, input),
    }
}
