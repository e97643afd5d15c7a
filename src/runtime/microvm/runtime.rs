//! The runtime's face: settings, what it can do here, and setup from end to end.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument};

use super::cgroup::{CgroupError, CgroupRoot};
use super::directory::{DirectoryError, RunDir};
use super::interrupt::Interrupt;
use super::jail::{Contents, JailSettings, Layers};
use super::leases::{CgroupPlan, Preparation};
use super::qemu::{Accel, KvmProof, ProbeInput, Qemu, prove_kvm};
use super::setup::set_up;
use super::vsock::Vsocks;
use crate::config;
use crate::error::with_causes;
use crate::host;
use crate::image::{ImageStore, Kit};
use crate::runtime::{
    Machine, Mode, Runtime, RuntimeInfo, RuntimeStatus, SetupError, SetupEvents, SetupRequest,
};

/// How long the killed processes of a machine may take to be gone.
const STALE_TIMEOUT: Duration = Duration::from_secs(10);

/// How guests reach this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Unix sockets in the machine's directory, through a helper process.
    Hybrid,
    /// AF_VSOCK; all machines share the ports.
    Kernel,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hybrid => "hybrid",
            Self::Kernel => "kernel",
        })
    }
}

/// What a machine may take of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupSettings {
    /// No machine without a cgroup; else one runs without where none can be made.
    pub required: bool,
    /// The delegated cgroup of creel-machines.service.
    pub root: PathBuf,
    /// Beside the guest's own memory.
    pub memory_overhead_bytes: u64,
    pub max_pids: u32,
    pub cpu_weight: u16,
    pub io_weight: u16,
}

/// What the runtime works with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub images: ImageStore,
    pub kit: Kit,
    pub qemu: Qemu,
    pub jail: JailSettings,
    pub accel: config::Accel,
    /// Whether guests may be emulated, which QEMU does not promise to isolate.
    pub allow_tcg: bool,
    pub transport: Transport,
    /// The vsock port that agents dial.
    pub agent_port: u32,
    /// `None`: machines get no cgroup and end with this process, which is a person's.
    pub cgroups: Option<CgroupSettings>,
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
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("machine {id} could not be ended")]
    Stale {
        id: String,
        #[source]
        source: CgroupError,
    },
}

/// Provides QEMU microVMs.
#[derive(Debug)]
pub struct MicroVm {
    settings: Arc<Settings>,
    run_dir: Arc<RunDir>,
    vsocks: Arc<Vsocks>,
    accelerator: OnceCell<Result<Accel, String>>,
    confinement: OnceCell<Result<Option<Confinement>, String>>,
}

/// What all machines are confined by.
#[derive(Debug, Clone)]
pub(super) struct Confinement {
    pub layers: Layers,
    pub contents: Contents,
}

impl MicroVm {
    /// Opens the runtime directory, and removes from it what runs that were killed have left.
    ///
    /// # Errors
    /// When the directory is not ours alone.
    pub fn new(settings: Settings) -> Result<Self, MicroVmError> {
        let vsocks = Arc::new(Vsocks::new(settings.transport, settings.agent_port));
        Self::with_vsocks(settings, vsocks)
    }

    /// The same, on a transport that others share: `vsocks` decides which one and the port.
    ///
    /// # Errors
    /// When the directory is not ours alone.
    pub fn with_vsocks(settings: Settings, vsocks: Arc<Vsocks>) -> Result<Self, MicroVmError> {
        let settings = Settings { transport: vsocks.transport(), agent_port: vsocks.port(), ..settings };
        let run_dir = RunDir::open(&settings.run_dir)?;
        remove_dead(&run_dir)?;
        let (settings, run_dir) = (Arc::new(settings), Arc::new(run_dir));
        let (accelerator, confinement) = (OnceCell::new(), OnceCell::new());
        Ok(Self { settings, run_dir, vsocks, accelerator, confinement })
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
        request: SetupRequest,
        cgroup: Option<CgroupPlan>,
        (confinement, accel): (Option<Confinement>, Accel),
    ) -> io::Result<Preparation> {
        Ok(Preparation {
            confinement,
            accel,
            settings: Arc::clone(&self.settings),
            run_dir: Arc::clone(&self.run_dir),
            vsocks: Arc::clone(&self.vsocks),
            hub: self.vsocks.hub().await?,
            id: request.id,
            image: request.image,
            memory_mib: request.memory_mib,
            vcpus: request.vcpus,
            source: request.source,
            cgroup,
        })
    }

    /// What confines machines here; found out once. `None`: nothing does.
    ///
    /// # Errors
    /// Why that is less than has to be.
    pub(super) async fn confinement(&self) -> Result<Option<Confinement>, String> {
        let find = || async {
            let settings = Arc::clone(&self.settings);
            let found = tokio::task::spawn_blocking(move || find_confinement(&settings)).await;
            found.unwrap_or_else(|error| Err(error.to_string()))
        };
        self.confinement.get_or_init(find).await.clone()
    }

    /// Whether machines can have the jail that is configured.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub async fn can_confine(&self) -> Result<(), String> {
        self.confinement().await.map(drop)
    }

    /// How guests run here; proven once.
    ///
    /// # Errors
    /// Why they can't, as a sentence with the remedy.
    pub async fn accelerator(&self) -> Result<Accel, String> {
        self.accelerator.get_or_init(|| self.find_accelerator()).await.clone()
    }

    async fn find_accelerator(&self) -> Result<Accel, String> {
        const REFUSED: &str = "creeld emulates no guests unless `machine.allow_tcg` is true, since QEMU does not \
                               promise to isolate emulated ones";
        // Measured only where it is needed: it takes ten milliseconds.
        let tcg = || Accel::Tcg { tsc_khz: host::tsc_khz() };
        let Settings { accel, allow_tcg, .. } = *self.settings;
        match (accel, allow_tcg) {
            (config::Accel::Tcg, true) => return Ok(tcg()),
            (config::Accel::Tcg, false) => return Err(format!("`machine.accel` is `tcg`, and {REFUSED}")),
            (config::Accel::Auto | config::Accel::Kvm, _) => {}
        }
        let input = ProbeInput {
            qemu: &self.settings.qemu,
            cache_directory: Some(&self.settings.cache_dir),
            alternative: accel == config::Accel::Auto && allow_tcg,
        };
        match (prove_kvm(input).await, accel, allow_tcg) {
            (KvmProof::Usable, _, _) => Ok(Accel::Kvm),
            (KvmProof::Unusable { why }, config::Accel::Kvm, _) => {
                Err(format!("`machine.accel` is `kvm`, and KVM can't be used here: {why}"))
            }
            (KvmProof::Unusable { why }, _, false) => {
                Err(format!("KVM can't be used here: {why}; {REFUSED}"))
            }
            (KvmProof::Unusable { why }, _, true) => {
                info!(%why, "KVM can't be used, falling back to TCG");
                Ok(tcg())
            }
        }
    }
}

/// Ends the machines that a creeld before this one has left below the cgroup `root`, since they can't be taken over
/// yet, and removes what they held in `run_dir`. To be called before the first setup. Returns the ids of the ended;
/// what can't be ended is logged, and stays.
///
/// # Errors
/// When the runtime directory or the cgroup can't be read.
pub async fn end_stale(root: &Path, run_dir: &Path) -> Result<Vec<String>, MicroVmError> {
    let run_dir = RunDir::open(run_dir)?;
    // Without the holder's cgroup there is nothing that lives in it.
    let root = CgroupRoot::find(root)?;
    let found = root.as_ref().map_or(Ok(Vec::new()), CgroupRoot::discover)?;
    // A machine has its directory before its cgroup and after it: without one it is not of this runtime directory, and
    // so perhaps another creeld's.
    let known = run_dir.discover()?;
    let (ids, strange): (Vec<_>, Vec<_>) = found.into_iter().partition(|id| known.contains(id));
    if !strange.is_empty() {
        tracing::warn!(
            machines = strange.join(","),
            run_dir = %run_dir.path().display(),
            "machines that have no directory in the runtime directory are left alone"
        );
    }
    let ending = ids.into_iter().filter_map(|id| {
        let root = root.as_ref()?;
        Some(async move {
            let ended = root.reclaim(&id, STALE_TIMEOUT).await;
            (id, ended)
        })
    });
    let (mut ended, mut left) = (Vec::new(), None);
    for (id, result) in join_all(ending).await {
        match result {
            Ok(()) => ended.push(id),
            Err(source) => {
                tracing::error!(machine = %id, error = %with_causes(&source), "failed to end a machine of a creeld before");
                left.get_or_insert(MicroVmError::Stale { id, source });
            }
        }
    }
    // Their locks are free now.
    remove_dead(&run_dir)?;
    left.map_or(Ok(ended), Err)
}

fn find_confinement(settings: &Settings) -> Result<Option<Confinement>, String> {
    let Some(layers) = Layers::by(settings.jail.mode)? else { return Ok(None) };
    let programs = [settings.qemu.path.as_path(), settings.kit.vsock_helper.as_path()];
    let contents = Contents::of(&programs).map_err(|error| error.to_string())?;
    Ok(Some(Confinement { layers, contents }))
}

fn remove_dead(run_dir: &RunDir) -> Result<(), DirectoryError> {
    let reclaimed = run_dir.reclaim()?;
    if reclaimed.count() > 0 {
        info!(machines = ?reclaimed.names, "removed what killed runs had left");
    }
    for error in reclaimed.failed {
        tracing::warn!(%error, "failed to remove what a killed run had left");
    }
    Ok(())
}

#[async_trait]
impl Runtime for MicroVm {
    async fn info(&self) -> RuntimeInfo {
        let usable = self.accelerator().await.map(|_| ());
        RuntimeInfo { name: "microvm", mode: Mode::Exec, source_disk: true, usable }
    }

    fn status(&self) -> RuntimeStatus {
        let (accel, problem) = match self.accelerator.get() {
            None => (None, None),
            Some(Ok(accel)) => (Some(accel.name().to_owned()), None),
            Some(Err(why)) => (None, Some(why.clone())),
        };
        RuntimeStatus { accel, transport: Some(self.settings.transport.to_string()), problem }
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
