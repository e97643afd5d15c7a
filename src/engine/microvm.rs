//! `engine: microvm`: each step is a command that the agent runs in a virtual machine.

use super::clone_step;
use super::environment::{self, name_fault, value_fault};
use super::plan::{Action, ExecPlan, Plan, Step, StepKind};
use super::{EngineKind, Environment, Location, Manifest, PlanError, PlanInput, TriggerKind};
use crate::text::printable;

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
    let image =
        input.image.as_ref().ok_or_else(|| PlanError::NoImage { file: manifest.file_name.clone() })?;
    refuse_nixos_options(manifest, &image.name, image.base_config_hash.is_some())?;
    refuse_bad_variables(input)?;

    let environment = workflow_environment(manifest, input);
    let exec = |command: &str, own: &[(String, String)]| {
        let mut env = environment.clone();
        env.extend_secrets(&input.secrets);
        env.extend(own);
        Action::Exec(ExecPlan {
            argv: vec![image.shell.clone(), "-lc".to_owned(), with_devshell(command)],
            env,
            cwd: WORK_DIR.to_owned(),
            user: WORKFLOW_USER.to_owned(),
        })
    };

    let mut steps = Vec::with_capacity(manifest.steps.len() + 1);
    if !manifest.clone.skip {
        let clone = clone_step::build(&manifest.clone, input);
        let action = match clone.script {
            Some(script) => exec(&script, &[]),
            None => Action::UnpackSource { destination: WORK_DIR.to_owned() },
        };
        steps.push(Step {
            index: 0,
            name: "clone".to_owned(),
            kind: StepKind::System,
            command: clone.shown,
            action,
        });
    }
    for step in &manifest.steps {
        steps.push(Step {
            index: steps.len(),
            name: step.name.clone(),
            kind: StepKind::User,
            command: step.command.clone(),
            action: exec(&step.command, &step.environment),
        });
    }
    Ok(Plan {
        name: input.workflow_name.clone(),
        engine: EngineKind::Microvm,
        image: Some(image.name.clone()),
        steps,
        environment,
        clone: manifest.clone,
        caches: manifest.caches.clone(),
    })
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

fn refuse_nixos_options(manifest: &Manifest, image: &str, is_nixos: bool) -> Result<(), PlanError> {
    let options = manifest.nixos_options();
    let Some(first) = options.iter().map(|option| option.span).min() else { return Ok(()) };
    let keys = options.iter().map(|option| option.key).collect();
    let at = Location::new(&manifest.file_name, first);
    if is_nixos {
        Err(PlanError::NixosNotYet { keys, at })
    } else {
        Err(PlanError::NotNixos { image: image.to_owned(), keys, at })
    }
}

fn refuse_bad_variables(input: &PlanInput) -> Result<(), PlanError> {
    for (name, secret) in &input.secrets {
        if let Some(fault) = name_fault(name).or_else(|| value_fault(name, secret.expose())) {
            return Err(PlanError::Secret { name: printable(name), fault });
        }
    }
    if let TriggerKind::Manual { inputs, .. } = &input.trigger.kind {
        for (name, value) in inputs {
            if let Some(fault) = name_fault(name).or_else(|| value_fault(name, value)) {
                return Err(PlanError::Input { name: printable(name), fault });
            }
        }
    }
    Ok(())
}
