//! What the engines of containers have in common: the runtime proposal's folders, shell and capabilities.
//!
//! A container is made from an image that anybody may have built. So nothing is assumed of it but `bash`, as upstream
//! does: no user of our own, no login shell, and its `PATH` is left alone unless the engine made the image.

use super::clone_step;
use super::environment;
use super::plan::{Action, Container, ExecPlan, Plan, Step, StepKind};
use super::{Environment, Manifest, PlanError, PlanInput};

/// The repository in a container, and the folder that steps start in.
pub(super) const WORK_DIR: &str = "/tangled/workspace";
/// `HOME` of every step.
pub(super) const HOME: &str = "/tangled/home";

/// What is left of root in the container.
const CAPABILITIES: [&str; 5] = ["DAC_OVERRIDE", "CHOWN", "FOWNER", "SETUID", "SETGID"];

/// What the engines differ in.
pub(super) struct Surroundings {
    /// What the runtime pulls.
    pub(super) image: String,
    pub(super) architecture: Option<String>,
    /// Whether the runtime takes all steps in one go.
    pub(super) batch: bool,
    /// Set after everything else, for every step.
    pub(super) fixed_environment: Vec<(String, String)>,
    /// Before and after the clone step.
    pub(super) before_clone: Vec<SystemStep>,
    pub(super) after_clone: Vec<SystemStep>,
}

/// A step that an engine adds.
pub(super) struct SystemStep {
    pub(super) name: &'static str,
    pub(super) script: String,
    pub(super) environment: Vec<(String, String)>,
}

pub(super) fn plan(
    manifest: &Manifest,
    input: &PlanInput,
    surroundings: Surroundings,
) -> Result<Plan, PlanError> {
    environment::check_inputs(&input.trigger)?;
    let mut environment = Environment::default();
    environment.extend(&manifest.environment);
    environment.extend(&environment::predefined(&input.trigger, &input.facts, input.sha()));

    let exec = |script: &str, own: &[(String, String)]| {
        Action::Exec(ExecPlan {
            argv: ["bash", "-c", script].map(str::to_owned).to_vec(),
            environment: environment.clone(),
            own_environment: own.to_vec(),
            fixed_environment: surroundings.fixed_environment.clone(),
            cwd: WORK_DIR.to_owned(),
            user: None,
        })
    };
    let system = |step: &SystemStep| Step {
        index: 0,
        name: step.name.to_owned(),
        kind: StepKind::System,
        command: step.script.clone(),
        action: exec(&step.script, &step.environment),
    };
    let mut steps: Vec<_> = surroundings.before_clone.iter().map(system).collect();
    steps.extend(clone_step::plan(manifest, input, WORK_DIR, |script| exec(script, &[])));
    steps.extend(surroundings.after_clone.iter().map(system));
    steps.extend(manifest.steps.iter().map(|step| Step {
        index: 0,
        name: step.name.clone(),
        kind: StepKind::User,
        command: step.command.clone(),
        action: exec(&step.command, &step.environment),
    }));
    let container = Container {
        work_dir: WORK_DIR.to_owned(),
        directories: [WORK_DIR, HOME].map(str::to_owned).to_vec(),
        capabilities: CAPABILITIES.to_vec(),
        architecture: surroundings.architecture,
        batch: surroundings.batch,
    };
    Ok(Plan::new(manifest, input, Some(surroundings.image), steps, environment, Some(container)))
}

/// `HOME` alone: an image of somebody else's has its own `PATH`.
pub(super) fn home_only() -> Vec<(String, String)> {
    vec![("HOME".to_owned(), HOME.to_owned())]
}
