//! Makes a job of a workflow file: plan, source disk, deadline.

use std::fs::File;
use std::path::Path;

use tokio::time::Instant;

use super::place::{Images, NoImage};
use super::select::Selected;
use crate::cli::failure::{Failure, with_causes};
use crate::engine::{
    Action, EngineKind, Manifest, Plan, PlanError, PlanInput, RunFacts, SourceKind, Trigger, WorkflowId,
};
use crate::exit::Exit;
use crate::host::tmpfile::anonymous_file;
use crate::image::ImageError;
use crate::runtime::{MachineId, Outcome, Tenant};
use crate::workflow::Job;
use crate::workflow::source::{GitError, Repository, SourceError, Tree, write_archive};

/// What all workflows of a run share.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub trigger: &'a Trigger,
    pub repository: Result<&'a Repository, &'a GitError>,
    pub tree: Tree,
    /// `--env`: over the file's own environment.
    pub environment: &'a [(String, String)],
    /// `--image`.
    pub image: Option<&'a str>,
    pub default_image: &'a str,
    pub images: &'a Images,
    /// Where the source disk's bytes live, without a name.
    pub scratch: &'a Path,
    pub deadline: Instant,
}

impl Shared<'_> {
    /// Plans one workflow.
    ///
    /// # Errors
    /// Each says what is wrong and carries the exit code that belongs to it.
    pub(super) fn job(&self, selected: Selected) -> Result<Job, Failure> {
        let Selected { name, mut manifest } = selected;
        for (key, value) in self.environment {
            manifest.environment.retain(|(existing, _)| existing != key);
            manifest.environment.push((key.clone(), value.clone()));
        }
        let named = manifest.image.as_ref().map(|image| image.value.as_str());
        let image_name = self.image.or(named).unwrap_or(self.default_image).to_owned();
        let image = match manifest.engine.value {
            EngineKind::Microvm => {
                let facts = self
                    .images
                    .facts(&image_name)
                    .map_err(|error| not_yet(&manifest, &error).unwrap_or_else(|| error.failure()))?;
                Some(facts)
            }
            EngineKind::Nixery | EngineKind::Docker | EngineKind::Kubernetes => None,
        };
        let input = PlanInput {
            workflow_name: name,
            trigger: self.trigger.clone(),
            facts: self.facts(),
            image,
            source: SourceKind::Disk {
                commit: self.repository.ok().and_then(|repository| repository.commit.clone()),
                dirty: self.tree == Tree::Work,
            },
        };
        let plan = crate::engine::plan(&manifest, &input).map_err(|error| {
            let not_here = matches!(error, PlanError::NotNixos { .. });
            let exit = if not_here { Exit::HostCannot } else { Exit::Usage };
            Failure::new(exit, error.to_string())
        })?;
        plan.runnable().map_err(Failure::host)?;
        let source = self.source(&plan)?;
        let run = MachineId::random().map_err(Failure::internal)?;
        Ok(Job {
            workflow_id: WorkflowId::new(run.as_str(), &plan.name).to_string(),
            id: run,
            tenant: Tenant::local(rustix::process::getuid().as_raw()),
            plan,
            image: image_name,
            source,
            deadline: Some(self.deadline),
        })
    }

    fn facts(&self) -> RunFacts {
        let repository = self.repository.ok().map(|found| crate::engine::Repository {
            name: Some(found.name()),
            url: found.origin.clone(),
            ..Default::default()
        });
        RunFacts { repository: repository.unwrap_or_default(), ..Default::default() }
    }

    fn source(&self, plan: &Plan) -> Result<Option<File>, Failure> {
        if !plan.steps.iter().any(|step| matches!(step.action, Action::UnpackSource { .. })) {
            return Ok(None);
        }
        let repository = self.repository.map_err(|error| {
            Failure::usage(format!(
                "workflow `{}` clones the repository around the current directory: {error}; or set \
                 `clone: {{ skip: true }}`",
                plan.name
            ))
        })?;
        let disk = anonymous_file(self.scratch).map_err(|error| {
            Failure::host(format!("failed to make the source disk in `{}`: {error}", self.scratch.display()))
        })?;
        let written = disk.try_clone().map_err(Failure::internal)?;
        write_archive(repository, self.tree, written).map_err(|error| match &error {
            error if error.is_disk_full() => {
                let detail = format!("no room for the source disk in `{}`", self.scratch.display());
                Failure::internal(Outcome::HostDiskFull { detail })
            }
            SourceError::Write(_) => Failure::host(with_causes(&error)),
            SourceError::Git(_)
            | SourceError::Read { .. }
            | SourceError::LinkTooLong { .. }
            | SourceError::Answer(_) => Failure::usage(with_causes(&error)),
        })?;
        Ok(Some(disk))
    }
}

/// A file with NixOS options names a NixOS image that this host hardly has; what stands in its way is
/// that creel can't configure NixOS yet, and making the image would not help.
fn not_yet(manifest: &Manifest, error: &NoImage) -> Option<Failure> {
    let (not_yet, name) = (manifest.not_yet()?, error.unknown()?);
    Some(Failure::host(format!("{not_yet} (and there is no image `{name}`)")))
}

/// A name that leads nowhere is input; an image that is broken or unreadable is this host's trouble.
pub(in crate::cli) fn image_failure(error: &ImageError) -> Failure {
    let exit = match error {
        ImageError::InvalidName { .. } | ImageError::Unknown { .. } => Exit::Usage,
        _ => Exit::HostCannot,
    };
    Failure::new(exit, with_causes(error))
}
