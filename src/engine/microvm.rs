//! `engine: microvm`: each step is a command that the agent runs in a virtual machine.

use serde::Serialize;
use serde_json::Value;

use super::clone_step;
use super::environment;
use super::plan::{Action, ExecPlan, Plan, Step, StepKind};
use super::{Dependencies, EngineKind, Environment, Location, Manifest, PlanError, PlanInput, Spanned};

/// The repository in the guest, and the folder that steps start in.
pub const WORK_DIR: &str = "/workspace/repo";
/// The workflow user's home.
pub const HOME: &str = "/workspace";
/// The user that steps run as; every image has it.
pub const WORKFLOW_USER: &str = "spindle-workflow";
/// What an activated NixOS configuration leaves for steps to source.
pub const DEVSHELL_ENV: &str = "/run/spindle/devshell-env.sh";
/// `PATH` on every image, NixOS or not.
pub const BASE_PATH: &str = "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/local/sbin:\
                             /usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn plan(manifest: &Manifest, input: &PlanInput) -> Result<Plan, PlanError> {
    let image = input.image.as_ref().ok_or_else(|| PlanError::NoImage {
        file: manifest.file_name.clone(),
        engine: EngineKind::Microvm,
    })?;
    if image.base_config_hash.is_none() {
        refuse_nixos_options(manifest, &image.name)?;
    }
    environment::check_inputs(&input.trigger)?;

    let environment = workflow_environment(manifest, input);
    let exec = |command: &str, own: &[(String, String)]| {
        Action::Exec(ExecPlan {
            argv: vec![image.shell.clone(), "-lc".to_owned(), with_devshell(command)],
            environment: environment.clone(),
            own_environment: own.to_vec(),
            fixed_environment: Vec::new(),
            cwd: WORK_DIR.to_owned(),
            user: Some(WORKFLOW_USER.to_owned()),
        })
    };
    let mut steps = Vec::with_capacity(manifest.steps.len() + 2);
    steps.extend(clone_step::plan(manifest, input, WORK_DIR, |script| exec(script, &[])));
    steps.extend(activation(manifest));
    steps.extend(manifest.steps.iter().map(|step| Step {
        index: 0,
        name: step.name.clone(),
        kind: StepKind::User,
        command: step.command.clone(),
        action: exec(&step.command, &step.environment),
    }));
    Ok(Plan::new(manifest, input, Some(image.name.clone()), steps, environment, None))
}

/// Upstream's step for a file with NixOS options; its place is after the clone step, which may bring flakes along.
fn activation(manifest: &Manifest) -> Option<Step> {
    (!manifest.nixos_options().is_empty()).then(|| Step {
        index: 0,
        name: "NixOS config activation".to_owned(),
        kind: StepKind::System,
        command: "activate nixos config".to_owned(),
        action: Action::ActivateConfig { user_config: UserConfig::of(manifest).to_json() },
    })
}

/// What the guest's NixOS takes, in upstream's order of keys.
#[derive(Serialize)]
struct UserConfig<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<&'m Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtualisation: Option<&'m Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    dependencies: &'m [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<&'m Value>,
}

impl<'m> UserConfig<'m> {
    fn of(manifest: &'m Manifest) -> Self {
        let filled = |option: &'m Option<Spanned<Value>>| {
            let value = option.as_ref().map(|spanned| &spanned.value)?;
            value.as_object().is_some_and(|map| !map.is_empty()).then_some(value)
        };
        let dependencies = match manifest.dependencies.as_ref().map(|spanned| &spanned.value) {
            Some(Dependencies::Packages(packages)) => packages.as_slice(),
            Some(Dependencies::ByRegistry(_)) | None => &[],
        };
        Self {
            services: filled(&manifest.services),
            virtualisation: filled(&manifest.virtualisation),
            dependencies,
            registry: filled(&manifest.registry),
        }
    }

    fn to_json(&self) -> String {
        // Maps of text to JSON values always have a form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Upstream's prologue: not every image has the file, and the dev shell's own `PATH` must not hide the system's tools.
fn with_devshell(command: &str) -> String {
    format!(
        "if [ -f {DEVSHELL_ENV} ]; then . {DEVSHELL_ENV}; export PATH=\"$PATH:{BASE_PATH}\"; fi; {command}"
    )
}

fn workflow_environment(manifest: &Manifest, input: &PlanInput) -> Environment {
    let mut environment = Environment::default();
    environment.set("HOME", HOME);
    environment.set("LOGNAME", WORKFLOW_USER);
    environment.set("PATH", BASE_PATH);
    environment.set("USER", WORKFLOW_USER);
    environment.extend(&manifest.environment);
    environment.extend(&environment::predefined(&input.trigger, &input.facts, input.sha()));
    environment
}

fn refuse_nixos_options(manifest: &Manifest, image: &str) -> Result<(), PlanError> {
    let options = manifest.nixos_options();
    let Some(first) = options.iter().map(|option| option.span).min() else { return Ok(()) };
    let keys = options.iter().map(|option| option.key).collect();
    Err(PlanError::NotNixos { image: image.to_owned(), keys, at: Location::new(&manifest.file_name, first) })
}
