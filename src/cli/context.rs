//! What subcommands share: configuration, and the parts that it leads to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::failure::{Failure, with_causes};
use crate::config::{Config, Environment};
use crate::image::{Arch, ImageStore, Kit, KitError};
use crate::runtime::Runtime;
use crate::runtime::microvm::qemu::{FindError, Qemu};
use crate::runtime::microvm::{self, MicroVm};

/// Loaded once, at the start of a command.
#[derive(Debug)]
pub struct Context {
    config: Config,
    images: ImageStore,
}

impl Context {
    /// Reads the configuration. Nothing is made on disk by it.
    pub fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let config = Config::load(&Environment::from_process(), file)
            .map_err(|error| Failure::usage(with_causes(&error)))?;
        let images = ImageStore::new(config.places.images.clone());
        Ok(Self { config, images })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    pub fn default_image(&self) -> &str {
        &self.config.images.default
    }

    pub fn workflow_timeout(&self) -> Duration {
        self.config.engine.workflow_timeout.into()
    }

    pub fn max_step_log_bytes(&self) -> u64 {
        self.config.logs.max_step.bytes()
    }

    /// The kit: as configured, else beside this program, else where packages put it.
    pub fn kit(&self) -> Result<Kit, KitError> {
        let mut candidates = self.config.places.kit.clone();
        let beside: Option<PathBuf> =
            std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        if let Some(beside) = beside {
            let at = candidates.len().min(1);
            candidates.splice(at..at, [beside.join("../kit"), beside.join("../lib/creel/kit")]);
        }
        Kit::discover(candidates)
    }

    /// The QEMU of this host's architecture.
    pub async fn qemu(&self) -> Result<Qemu, FindError> {
        // Where there are no images, there is no QEMU for them either, and the error says so.
        let arch = Arch::native().unwrap_or(Arch::X86_64);
        match &self.config.qemu.path {
            Some(path) => Qemu::at(arch, path.clone()).await,
            None => Qemu::find(arch, &std::env::var_os("PATH").unwrap_or_default()).await,
        }
    }

    /// Where files without a name live: logs, source disks, volumes.
    pub fn scratch(&self) -> Result<&Path, Failure> {
        let directory = self.config.places.cache.as_path();
        std::fs::create_dir_all(directory).map_err(|error| {
            Failure::host(format!(
                "failed to make `{}`: {error}; set `cache.dir` to a directory that you may write",
                directory.display()
            ))
        })?;
        Ok(directory)
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
        let kit = self.kit().map_err(|error| Failure::host(with_causes(&error)))?;
        let qemu = self.qemu().await.map_err(|error| Failure::host(with_causes(&error)))?;
        let settings = microvm::Settings {
            images: self.images.clone(),
            kit,
            qemu,
            accel: self.config.machine.accel,
            transport: self.config.machine.transport,
            run_dir: self.config.places.run.clone(),
            cache_dir: self.scratch()?.to_owned(),
            agent_timeout: self.config.machine.agent_timeout.into(),
            shutdown_timeout: self.config.machine.shutdown_timeout.into(),
        };
        MicroVm::new(settings).map_err(|error| Failure::host(with_causes(&error)))
    }
}
