//! What subcommands share: configuration, and the parts that it leads to, with errors as commands end with them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{Failure, with_causes};
use crate::assembly::{Assembly, AssemblyError};
use crate::config::{Config, Environment};
use crate::image::{ImageStore, Kit, KitError};
use crate::runtime::Runtime;
use crate::runtime::microvm::MicroVm;
use crate::runtime::microvm::qemu::{FindError, Qemu};
use crate::state::records::Records;

/// Loaded once, at the start of a command.
#[derive(Debug)]
pub struct Context {
    assembly: Assembly,
}

impl Context {
    /// Reads the configuration. Nothing is made on disk by it.
    pub fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let config = Config::load(&Environment::from_process(), file)
            .map_err(|error| Failure::usage(with_causes(&error)))?;
        Ok(Self { assembly: Assembly::new(config) })
    }

    pub fn config(&self) -> &Config {
        self.assembly.config()
    }

    pub fn images(&self) -> &ImageStore {
        self.assembly.images()
    }

    pub fn default_image(&self) -> &str {
        &self.config().images.default
    }

    pub fn workflow_timeout(&self) -> Duration {
        self.config().engine.workflow_timeout.into()
    }

    /// How many workflows run at once.
    pub fn slots(&self) -> usize {
        self.config().scheduler.slots()
    }

    pub fn max_step_log_bytes(&self) -> u64 {
        self.config().logs.max_step.bytes()
    }

    /// What this user's state directory remembers of runs.
    pub fn records(&self) -> Records {
        self.assembly.records()
    }

    pub fn kit(&self) -> Result<Kit, KitError> {
        self.assembly.kit()
    }

    pub async fn qemu(&self) -> Result<Qemu, FindError> {
        self.assembly.qemu().await
    }

    /// Where files without a name live: logs, source disks, volumes.
    pub fn scratch(&self) -> Result<&Path, Failure> {
        self.assembly.scratch().map_err(host)
    }

    /// The runtime of that name.
    pub async fn runtime(&self, name: &str) -> Result<Arc<dyn Runtime>, Failure> {
        match name {
            "microvm" => Ok(Arc::new(self.microvm().await?)),
            "docker" | "podman" | "kubernetes" => {
                Err(Failure::host(format!("runtime `{name}` is not supported yet; use `microvm`")))
            }
            _ => Err(Failure::usage(format!("there is no runtime `{name}`; use `microvm`"))),
        }
    }

    pub async fn microvm(&self) -> Result<MicroVm, Failure> {
        let settings = self.assembly.embedded().await.map_err(host)?;
        MicroVm::new(settings).map_err(|error| Failure::host(with_causes(&error)))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn host(error: AssemblyError) -> Failure {
    Failure::host(with_causes(&error))
}
