//! The runtime's face: settings, what it can do here, and setup from end to end.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument};

use super::directory::{DirectoryError, RunDir};
use super::interrupt::Interrupt;
use super::leases::Preparation;
use super::qemu::{Accel, KvmProof, ProbeInput, Qemu, prove_kvm};
use super::setup::set_up;
use super::vsock::Vsocks;
use crate::config;
use crate::host;
use crate::image::{ImageStore, Kit};
use crate::runtime::{Machine, MachineId, Mode, Runtime, RuntimeInfo, SetupError, SetupEvents, SetupRequest};

/// The vsock port that agents dial.
pub(super) const AGENT_PORT: u32 = creel_proto::names::ports::AGENT;

/// What the runtime works with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub images: ImageStore,
    pub kit: Kit,
    pub qemu: Qemu,
    pub accel: config::Accel,
    pub transport: config::Transport,
    /// Holds the machines' directories; short, since sockets lie in it.
    pub run_dir: PathBuf,
    /// Volume templates, the throw-away disks (without names), the proof of KVM.
    pub cache_dir: PathBuf,
    pub agent_timeout: Duration,
    pub shutdown_timeout: Duration,
}

/// Why the runtime can't be used here.
#[derive(Debug, thiserror::Error)]
pub enum MicroVmError {
    #[error(transparent)]
    RunDir(#[from] DirectoryError),
}

/// Provides QEMU microVMs that end with this process.
#[derive(Debug)]
pub struct MicroVm {
    settings: Arc<Settings>,
    run_dir: Arc<RunDir>,
    vsocks: Arc<Vsocks>,
    accelerator: OnceCell<Result<Accel, String>>,
}

impl MicroVm {
    /// Opens the runtime directory, and removes from it what runs that were killed have left.
    ///
    /// # Errors
    /// When the directory is not ours alone.
    pub fn new(settings: Settings) -> Result<Self, MicroVmError> {
        let run_dir = RunDir::open(&settings.run_dir)?;
        let reclaimed = run_dir.reclaim()?;
        if reclaimed.count() > 0 {
            info!(machines = ?reclaimed.names, "removed what killed runs had left");
        }
        for error in reclaimed.failed {
            tracing::warn!(%error, "failed to remove what a killed run had left");
        }
        let vsocks = Arc::new(Vsocks::new(settings.transport, AGENT_PORT));
        let (settings, run_dir) = (Arc::new(settings), Arc::new(run_dir));
        Ok(Self { settings, run_dir, vsocks, accelerator: OnceCell::new() })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a new machine's leases are acquired from.
    ///
    /// # Errors
    /// When the kernel transport's port can't be bound.
    pub(super) async fn preparation(
        &self,
        id: MachineId,
        image: String,
        source: Option<File>,
    ) -> io::Result<Preparation> {
        Ok(Preparation {
            settings: Arc::clone(&self.settings),
            run_dir: Arc::clone(&self.run_dir),
            vsocks: Arc::clone(&self.vsocks),
            hub: self.vsocks.hub().await?,
            id,
            image,
            source,
        })
    }

    /// How guests run here; proven once.
    pub async fn accelerator(&self) -> Result<Accel, String> {
        self.accelerator.get_or_init(|| self.find_accelerator()).await.clone()
    }

    async fn find_accelerator(&self) -> Result<Accel, String> {
        // Measured only where it is needed: it takes ten milliseconds.
        let tcg = || Accel::Tcg { tsc_khz: host::tsc_khz() };
        if self.settings.accel == config::Accel::Tcg {
            return Ok(tcg());
        }
        let input = ProbeInput { qemu: &self.settings.qemu, cache_directory: Some(&self.settings.cache_dir) };
        match (prove_kvm(input).await, self.settings.accel) {
            (KvmProof::Usable, _) => Ok(Accel::Kvm),
            (KvmProof::Unusable { why }, config::Accel::Kvm) => {
                Err(format!("`machine.accel` is `kvm`, and KVM can't be used here: {why}"))
            }
            (KvmProof::Unusable { why }, _) => {
                info!(%why, "KVM can't be used, falling back to TCG");
                Ok(tcg())
            }
        }
    }
}

#[async_trait]
impl Runtime for MicroVm {
    async fn info(&self) -> RuntimeInfo {
        let usable = self.accelerator().await.map(|_| ());
        RuntimeInfo { name: "microvm", mode: Mode::Exec, source_disk: true, usable }
    }

    #[instrument(skip_all, fields(machine))]
    async fn setup(
        &self,
        request: SetupRequest,
        events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError> {
        let interrupt = Interrupt { deadline: request.deadline, cancel };
        Ok(Box::new(set_up(self, request, &events, interrupt).await?))
    }
}
