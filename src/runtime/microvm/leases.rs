//! What a machine holds before it runs: acquired in order, each freed by its own drop.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::cgroup::{CgroupError, CgroupRoot, Limits, MachineCgroup};
use super::cids::CidLease;
use super::directory::{DirectoryError, MachineDirectory, RunDir};
use super::evidence::Sign;
use super::jail::{JailError, MachineJail};
use super::launch::Disks;
use super::qemu::Accel;
use super::qemu::args::TCG_CODE_CACHE_MIB;
use super::runtime::{CgroupSettings, Confinement, Settings};
use super::vsock::{Acquired, GuestEnd, Vsocks};
use crate::agent::Hub;
use crate::error::with_causes;
use crate::failpoint;
use crate::host::tmpfile::read_only;
use crate::host::uids::UidLease;
use crate::image::{Arch, Image, ImageError, VolumeError, VolumeTemplates};
use crate::runtime::{HeldLeases, MachineId, MachineUsage, Outcome, Phase, SetupError, SetupFailure};
use crate::transport::Listener;

/// The unix socket that QEMU's control protocol is served on, in the machine's directory.
const QMP_SOCKET: &str = "qmp";

/// How long killed processes may take to be gone.
const CGROUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel's own default (Documentation/admin-guide/cgroup-v2.rst, `cpu.max`).
const CPU_PERIOD_US: u64 = 100_000;

/// Freed when the machine is gone: what outlives its processes.
#[derive(Debug)]
pub(super) struct Leases {
    pub directory: MachineDirectory,
    /// Its content stays while the machine may read it, whatever becomes of its name.
    pub image: Image,
    /// `None`: the machine has no limits but QEMU's own, and ends with this process.
    pub cgroup: Option<MachineCgroup>,
    /// The guest's vsock address; none on the hybrid transport.
    pub cid: Option<CidLease>,
    /// `None`: its processes are confined by nothing but namespaces.
    pub jail: Option<MachineJail>,
}

impl Leases {
    /// What the machine's cgroup says of its end. After QEMU's there is no race: the kernel counts before it kills.
    pub(super) fn signs(&self) -> Vec<Sign> {
        let Some(cgroup) = &self.cgroup else { return Vec::new() };
        let limits = cgroup.limits();
        match cgroup.signs() {
            Ok(signs) => {
                let memory = signs.killed_at_own_limit().then(|| Sign::MemoryLimit {
                    limit_mib: limits.memory_max_bytes >> 20,
                    peak_mib: cgroup.memory_peak_bytes().unwrap_or(limits.memory_max_bytes) >> 20,
                });
                let host = signs.killed_for_others_need().then_some(Sign::HostMemory);
                let pids =
                    (signs.pids_max_hits > 0).then(|| Sign::PidsLimit { limit: limits.pids_max.into() });
                memory.into_iter().chain(host).chain(pids).collect()
            }
            Err(error) => {
                warn!(%error, "failed to read what the kernel says of a machine's end");
                Vec::new()
            }
        }
    }

    /// What is held, for whoever comes after this process.
    pub(super) fn held(&self) -> HeldLeases {
        HeldLeases {
            directory: Some(self.directory.path().to_owned()),
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
            cid: self.cid.as_ref().map(CidLease::cid),
            uid: self.jail.as_ref().and_then(MachineJail::user).map(UidLease::uid),
        }
    }

    /// What the machine has used until now.
    pub(super) fn usage(&self) -> Option<Box<MachineUsage>> {
        self.cgroup.as_ref().map(|cgroup| Box::new(cgroup.usage()))
    }

    /// Returns when [`Self::signs`] may say something new.
    pub(super) async fn changed(&mut self) {
        match &mut self.cgroup {
            Some(cgroup) => cgroup.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Kills whatever is left in the cgroup and removes it; usage can still be read.
    pub(super) async fn end_cgroup(&mut self) -> Option<String> {
        self.cgroup.as_mut()?.end(CGROUP_TIMEOUT).await.err().map(|error| with_causes(&error))
    }

    /// Frees everything, and says what could not be freed.
    pub(super) async fn free(mut self) -> Vec<String> {
        let mut failures: Vec<String> = self.end_cgroup().await.into_iter().collect();
        let path = self.directory.path().to_owned();
        drop(self);
        if path.symlink_metadata().is_ok() {
            failures.push(format!("`{}` could not be removed", path.display()));
        }
        failures
    }
}

/// Ready to be started.
#[derive(Debug)]
pub(super) struct Prepared {
    pub leases: Leases,
    pub size: Size,
    pub disks: Disks,
    pub qmp_path: PathBuf,
    pub guest_end: GuestEnd,
    pub agent_listener: Box<dyn Listener>,
}

/// Why a machine can't be prepared.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(
        "image `{image}` is for {arch}, and this host is {host}: run it on a host that is, or build it here"
    )]
    Arch { image: String, arch: Arch, host: Arch },
    #[error("failed to open image `{image}`: `{}`: {source}", path.display())]
    Open { image: String, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error("failed to make what the machine needs: {0}")]
    Socket(#[from] std::io::Error),
}

impl PrepareError {
    fn failure(&self) -> SetupFailure {
        let text = crate::error::with_causes(self);
        match self {
            Self::Image(ImageError::Unknown { .. } | ImageError::InvalidName { .. }) => {
                SetupFailure::BadInput(text)
            }
            Self::Volume(VolumeError::DiskFull { .. }) => {
                SetupFailure::Ended(Outcome::HostDiskFull { detail: text })
            }
            _ if self.is_disk_full() => SetupFailure::Ended(Outcome::HostDiskFull { detail: text }),
            _ => SetupFailure::HostCannot(text),
        }
    }

    fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<std::io::Error>()
                && error.kind() == std::io::ErrorKind::StorageFull
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// The limits that a machine gets on its host.
#[derive(Debug)]
pub(super) struct CgroupPlan {
    pub root: CgroupRoot,
    pub settings: CgroupSettings,
    /// What is asked for in place of the guest's memory and what running it costs.
    pub memory_limit_mib: Option<u32>,
    /// Guests are emulated, which takes room for the code that QEMU makes.
    pub emulated: bool,
}

impl CgroupPlan {
    fn limits(&self, memory_mib: u32, vcpus: u32) -> Limits {
        let mib = |count: u32| u64::from(count) << 20;
        let code_cache = if self.emulated { mib(TCG_CODE_CACHE_MIB) } else { 0 };
        let needed =
            mib(memory_mib).saturating_add(self.settings.memory_overhead_bytes).saturating_add(code_cache);
        Limits {
            memory_max_bytes: self.memory_limit_mib.map_or(needed, mib),
            pids_max: self.settings.max_pids,
            // One CPU more than the guest has: QEMU's own threads and the kernel's vhost worker run beside its CPUs.
            cpu_quota_us: Some((u64::from(vcpus) + 1) * CPU_PERIOD_US),
            cpu_period_us: CPU_PERIOD_US,
            cpu_weight: self.settings.cpu_weight,
            io_weight: self.settings.io_weight,
        }
    }
}

/// A machine's memory and CPUs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub memory_mib: u32,
    pub vcpus: u32,
}

/// What a machine's leases are acquired from.
#[derive(Debug)]
pub(super) struct Preparation {
    pub settings: Arc<Settings>,
    pub run_dir: Arc<RunDir>,
    pub vsocks: Arc<Vsocks>,
    pub hub: Option<Hub>,
    pub id: MachineId,
    pub image: String,
    /// `None`: the image's own.
    pub memory_mib: Option<u32>,
    pub vcpus: Option<u32>,
    pub source: Option<File>,
    pub cgroup: Option<CgroupPlan>,
    pub confinement: Option<Confinement>,
    pub accel: Accel,
}

impl Preparation {
    /// Acquires everything, in an order in which each failure frees what came before it. Blocking.
    ///
    /// # Errors
    /// What could not be had. Nothing is left then.
    pub(super) fn run(self) -> Result<Prepared, SetupError> {
        self.acquire().map_err(|error| SetupError::new(Phase::Prepare, error.failure()))
    }

    fn acquire(self) -> Result<Prepared, PrepareError> {
        let Self {
            settings,
            run_dir,
            vsocks,
            hub,
            id,
            image,
            memory_mib,
            vcpus,
            source,
            cgroup,
            confinement,
            accel,
        } = self;
        let image = settings.images.resolve(&image)?;
        if image.spec.arch != settings.qemu.arch {
            let (arch, host) = (image.spec.arch, settings.qemu.arch);
            return Err(PrepareError::Arch { image: image.name, arch, host });
        }
        let open = |path: &Path| -> Result<File, PrepareError> {
            File::open(path).map_err(|source| PrepareError::Open {
                image: image.name.clone(),
                path: path.to_owned(),
                source,
            })
        };
        let (kernel, initrd) = (open(&image.spec.kernel)?, open(&image.spec.initrd)?);
        let store = open(&image.spec.store_disk)?.into();
        let templates = VolumeTemplates::new(settings.cache_dir.join("volumes"));
        let volumes = image
            .spec
            .volumes
            .iter()
            .map(|volume| templates.instantiate(volume, &settings.cache_dir))
            .collect::<Result<Vec<_>, _>>()?;
        // QEMU refuses a descriptor that could do more than the disk says, and so would we.
        let source = source.map(|file| read_only(&file).map(OwnedFd::from)).transpose()?;
        let directory = MachineDirectory::acquire(&run_dir, id.as_str())?;
        failpoint::hit("setup.directory")?;
        let qmp_path = directory.socket_path(QMP_SOCKET)?;
        let qmp_listener = std::os::unix::net::UnixListener::bind(&qmp_path)?;
        std::fs::set_permissions(&qmp_path, std::fs::Permissions::from_mode(0o600))?;
        let size = Size {
            memory_mib: memory_mib.unwrap_or(image.spec.memory_mib),
            vcpus: vcpus.unwrap_or(image.spec.vcpus),
        };
        let cgroup = cgroup
            .map(|plan| {
                MachineCgroup::acquire(&plan.root, id.as_str(), plan.limits(size.memory_mib, size.vcpus))
            })
            .transpose()?;
        failpoint::hit("setup.cgroup")?;
        let mut jail = confinement
            .map(|Confinement { layers, contents }| {
                let boot = [(image.spec.kernel.as_path(), &kernel), (image.spec.initrd.as_path(), &initrd)];
                MachineJail::acquire(layers, settings.jail, &contents, boot, accel == Accel::Kvm)
            })
            .transpose()?;
        failpoint::hit("setup.jail")?;
        let us = rustix::process::geteuid().as_raw();
        let user = jail.as_ref().and_then(MachineJail::user).map_or(us, UidLease::uid);
        if hub.is_none() {
            directory.make_sockets(user)?;
            if let Some(jail) = &mut jail {
                jail.share_sockets(&directory)?;
            }
        }
        let Acquired { guest_end, listener: agent_listener, cid } =
            vsocks.acquire(hub.as_ref(), &directory, user)?;
        failpoint::hit("setup.vsock")?;
        Ok(Prepared {
            leases: Leases { directory, image, cgroup, cid, jail },
            size,
            disks: Disks { kernel, initrd, store, volumes, source, qmp: qmp_listener.into() },
            qmp_path,
            guest_end,
            agent_listener,
        })
    }
}
