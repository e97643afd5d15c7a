//! From a configuration to the parts that it leads to: images, kit, QEMU, the microVM runtime. What `creel` and creeld
//! have in common before they differ.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, CgroupMode, Config, JailMode};
use crate::host::uids::UidRange;
use crate::host::vhost_vsock;
use crate::image::{Arch, ImageStore, Kit, KitError};
use crate::runtime::microvm::qemu::{FindError, Qemu};
use crate::runtime::microvm::{CgroupSettings, JailSettings, Settings, Transport};
use crate::state::records::{Records, Retention};

/// Why a part can't be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error(transparent)]
    Qemu(#[from] FindError),
    #[error("failed to make `{}`; set `cache.dir` to a directory that you may write", path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A configuration, and what can be made of it. Nothing is made on disk by having one.
#[derive(Debug, Clone)]
pub struct Assembly {
    config: Config,
    images: ImageStore,
}

impl Assembly {
    pub fn new(config: Config) -> Self {
        let images = ImageStore::new(config.places.images.clone());
        Self { config, images }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// What this user's state directory remembers of runs, within the configured bounds.
    pub fn records(&self) -> Records {
        let logs = &self.config.logs;
        Records::new(&self.config.places.state).keeping(Retention {
            keep_for: logs.keep_for.into(),
            max_total_bytes: logs.max_total.bytes(),
            max_runs: logs.max_runs.into(),
        })
    }

    /// The kit: as configured, else beside this program, else where packages put it.
    ///
    /// # Errors
    /// When there is none, or one that is broken.
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
    ///
    /// # Errors
    /// When there is none, or one that is too old.
    pub async fn qemu(&self) -> Result<Qemu, FindError> {
        // Where there are no images, there is no QEMU for them either, and the error says so.
        let arch = Arch::native().unwrap_or(Arch::X86_64);
        match &self.config.qemu.path {
            Some(path) => Qemu::at(arch, path.clone()).await,
            None => Qemu::find(arch, &std::env::var_os("PATH").unwrap_or_default()).await,
        }
    }

    /// Where files without a name live: logs, source disks, volumes.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn scratch(&self) -> Result<&Path, AssemblyError> {
        let path = self.config.places.cache.as_path();
        std::fs::create_dir_all(path)
            .map_err(|source| AssemblyError::Scratch { path: path.to_owned(), source })?;
        Ok(path)
    }

    /// What the microVM runtime works with, for a run that ends with this process.
    ///
    /// # Errors
    /// When kit or QEMU are missing, or the cache can't be made.
    pub async fn embedded(&self) -> Result<Settings, AssemblyError> {
        let transport = match self.config.machine.transport {
            // Needs neither root nor a kernel module, and two runs do not meet on a port.
            config::Transport::Auto | config::Transport::Hybrid => Transport::Hybrid,
            config::Transport::Kernel => Transport::Kernel,
        };
        let settings = self.settings(transport, JailMode::Auto).await?;
        Ok(Settings { allow_tcg: true, ..settings })
    }

    /// How machines are confined; `unset` where the configuration does not say.
    pub fn jail(&self, unset: JailMode) -> JailSettings {
        let jail = &self.config.jail;
        JailSettings {
            mode: jail.mode.unwrap_or(unset),
            uids: UidRange { first: jail.first_uid, count: jail.uid_count },
            // Behind the cgroup's, whose refusal the kernel counts, so that a verdict can name it.
            max_processes: self.config.cgroups.max_pids.saturating_add(64),
        }
    }

    /// How machines of creeld reach it.
    pub fn daemon_transport(&self) -> Transport {
        match self.config.machine.transport {
            config::Transport::Auto if Path::new(vhost_vsock::DEVICE).exists() => Transport::Kernel,
            config::Transport::Auto | config::Transport::Hybrid => Transport::Hybrid,
            config::Transport::Kernel => Transport::Kernel,
        }
    }

    /// The same as [`Self::embedded`], for creeld.
    ///
    /// # Errors
    /// When kit or QEMU are missing, or the cache can't be made.
    pub async fn daemon(&self) -> Result<Settings, AssemblyError> {
        let transport = self.daemon_transport();
        let settings = self.settings(transport, JailMode::Required).await?;
        let cgroups = &self.config.cgroups;
        let cgroups = CgroupSettings {
            required: cgroups.mode == CgroupMode::Required,
            root: cgroups.root.clone(),
            memory_overhead_bytes: cgroups.memory_overhead.bytes(),
            max_pids: cgroups.max_pids,
            cpu_weight: cgroups.cpu_weight,
            io_weight: cgroups.io_weight,
        };
        Ok(Settings { allow_tcg: self.config.machine.allow_tcg, cgroups: Some(cgroups), ..settings })
    }

    async fn settings(&self, transport: Transport, jail: JailMode) -> Result<Settings, AssemblyError> {
        let config = &self.config;
        let (kit, qemu) = (self.kit()?, self.qemu().await?);
        let jail = self.jail(jail);
        Ok(Settings {
            images: self.images.clone(),
            kit,
            qemu,
            jail,
            accel: config.machine.accel,
            allow_tcg: false,
            transport,
            agent_port: config.vsock_ports.agent,
            cgroups: None,
            run_dir: config.places.run.clone(),
            cache_dir: self.scratch()?.to_owned(),
            agent_timeout: config.machine.agent_timeout.into(),
            shutdown_timeout: config.machine.shutdown_timeout.into(),
        })
    }
}
