//! What a workflow is made of, and the plan that it leads to.

use std::sync::Arc;
use std::time::Duration;

use super::key::Key;
use crate::engine::{
    EngineKind, ImageFacts, Manifest, ManifestErrors, NotYet, Plan, PlanError, PlanInput, RunFacts,
    SourceKind, Trigger, TriggerKind, plan,
};
use crate::error::with_causes;
use crate::image::{ImageError, ImageStore};

/// Of a request, so that the same one is known again.
pub type Digest = [u8; 32];

/// More steps than anybody writes by hand; each is listed, recorded and shown.
const MAX_STEPS: usize = 1000;

/// Names and commands of all steps together, aliases expanded: as much as the file itself may have. They are held several
/// times over, and recorded.
const MAX_COMMANDS_BYTES: usize = 256 << 10;

/// The environment of all steps together: each has the workflow's own in its plan.
const MAX_ENVIRONMENTS_BYTES: usize = 4 << 20;

/// A workflow to be.
#[derive(Debug)]
pub struct NewWorkflow {
    pub key: Key,
    /// Equal for equal requests.
    pub digest: Digest,
    /// For messages; the workflow is called like it, without its ending.
    pub file_name: String,
    pub manifest: String,
    pub trigger: Trigger,
    pub facts: RunFacts,
    /// `None`: as configured.
    pub timeout: Option<Duration>,
}

/// What is wrong with a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Manifest(Arc<ManifestErrors>),
    /// The file as a whole asks for too much.
    #[error("{0}")]
    TooMuch(String),
    #[error(transparent)]
    Plan(PlanError),
    /// The file is fine, and creel can't run it yet.
    #[error(transparent)]
    NotYet(NotYet),
    #[error("{0}")]
    NoImage(String),
    #[error("{0}")]
    BadImageName(String),
    #[error("{0}")]
    BrokenImage(String),
}

/// The plan of a request. Reads the image's spec, so it blocks.
pub(super) fn planned(
    request: &NewWorkflow,
    images: &ImageStore,
    default_image: &str,
) -> Result<Plan, Fault> {
    let manifest = Manifest::parse(&request.file_name, &request.manifest)
        .map_err(|errors| Fault::Manifest(Arc::new(errors)))?;
    check_size(&manifest, &request.trigger)?;
    let image = match manifest.engine.value {
        EngineKind::Microvm => Some(image(&manifest, images, default_image)?),
        EngineKind::Nixery | EngineKind::Docker | EngineKind::Kubernetes => None,
    };
    let input = PlanInput {
        workflow_name: workflow_name(&request.file_name).to_owned(),
        trigger: request.trigger.clone(),
        facts: request.facts.clone(),
        image,
        source: SourceKind::Remote { verify_tls: true },
    };
    let plan = plan(&manifest, &input).map_err(Fault::Plan)?;
    plan.runnable().map_err(Fault::NotYet)?;
    Ok(plan)
}

fn check_size(manifest: &Manifest, trigger: &Trigger) -> Result<(), Fault> {
    let steps = manifest.steps.len();
    if steps > MAX_STEPS {
        return Err(Fault::TooMuch(format!("the file has {steps} steps; a workflow may have {MAX_STEPS}")));
    }
    let commands: usize = manifest.steps.iter().map(|step| step.name.len() + step.command.len()).sum();
    if commands > MAX_COMMANDS_BYTES {
        return Err(Fault::TooMuch(format!(
            "the commands of all steps have {commands} bytes together; a workflow may have {MAX_COMMANDS_BYTES}. Put a long \
             script into a file in the repository"
        )));
    }
    let size = |variables: &[(String, String)]| -> usize {
        variables.iter().map(|(name, value)| name.len() + value.len()).sum()
    };
    let own: usize = manifest.steps.iter().map(|step| size(&step.environment)).sum();
    let inputs = match &trigger.kind {
        TriggerKind::Manual { inputs, .. } => size(inputs),
        TriggerKind::Push { .. } | TriggerKind::PullRequest { .. } => 0,
    };
    let all = (size(&manifest.environment) + inputs) * (steps + 1) + own;
    if all > MAX_ENVIRONMENTS_BYTES {
        return Err(Fault::TooMuch(format!(
            "the environments of all steps have {all} bytes together; a workflow may have {MAX_ENVIRONMENTS_BYTES}. Put \
             large values into a file in the repository"
        )));
    }
    Ok(())
}

/// `test` of `test.yml`.
fn workflow_name(file_name: &str) -> &str {
    match file_name.rsplit_once('.') {
        Some((name, _)) if !name.is_empty() => name,
        _ => file_name,
    }
}

fn image(manifest: &Manifest, images: &ImageStore, default: &str) -> Result<ImageFacts, Fault> {
    let name = manifest.image.as_ref().map_or(default, |image| image.value.as_str());
    match images.resolve(name) {
        Ok(image) => Ok(ImageFacts {
            name: image.name,
            shell: image.spec.shell,
            base_config_hash: image.spec.base_config_hash,
        }),
        Err(error @ ImageError::Unknown { .. }) => {
            Err(manifest.not_yet().map_or_else(|| Fault::NoImage(with_causes(&error)), Fault::NotYet))
        }
        Err(error @ ImageError::InvalidName { .. }) => Err(Fault::BadImageName(error.to_string())),
        Err(error) => Err(Fault::BrokenImage(with_causes(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_called_like_its_file() {
        let table = [("test.yml", "test"), ("a.b.yaml", "a.b"), ("test", "test"), (".yml", ".yml")];
        for (file, name) in table {
            assert_eq!(workflow_name(file), name);
        }
    }

    #[test]
    fn a_small_file_can_not_ask_for_much_memory() {
        let header = "engine: microvm\nwhen:\n  - event: manual\n";
        let large = "x".repeat(100 << 10);
        let steps = "  - command: a\n".repeat(900);
        let file = format!("{header}environment:\n  A: {large}\nsteps:\n{steps}");
        assert!(file.len() < 256 << 10);
        let checked = check_size(&Manifest::parse("a.yml", &file).unwrap(), &Trigger::manual());
        assert!(
            matches!(&checked, Err(Fault::TooMuch(text)) if text.contains("environments")),
            "{checked:?}"
        );
        let inputs = vec![("A".to_owned(), large.clone()); 9];
        let trigger = Trigger { kind: TriggerKind::Manual { git_ref: None, inputs }, changed_paths: None };
        let few = format!("{header}steps:\n{}", "  - command: a\n".repeat(9));
        assert!(
            check_size(&Manifest::parse("a.yml", &few).unwrap(), &trigger).is_err(),
            "inputs are in each, too"
        );
        let anchored = format!("  - command: &c {large}\n{}", "  - command: *c\n".repeat(2));
        let checked = check_size(
            &Manifest::parse("a.yml", &format!("{header}steps:\n{anchored}")).unwrap(),
            &Trigger::manual(),
        );
        assert!(matches!(&checked, Err(Fault::TooMuch(text)) if text.contains("commands")), "{checked:?}");
        let many = format!("{header}steps:\n{}", "  - command: a\n".repeat(1001));
        let checked = check_size(&Manifest::parse("a.yml", &many).unwrap(), &Trigger::manual());
        assert!(matches!(&checked, Err(Fault::TooMuch(text)) if text.contains("1001 steps")), "{checked:?}");
    }
}
