//! What a machine holds before it runs: acquired in order, each freed by its own drop.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{DirectoryError, MachineDirectory, RunDir};
use super::launch::Disks;
use super::runtime::Settings;
use super::vsock::{GuestEnd, Vsocks};
use crate::agent::Hub;
use crate::host::tmpfile::read_only;
use crate::image::{Arch, Image, ImageError, VolumeError, VolumeTemplates};
use crate::runtime::{MachineId, Outcome, Phase, SetupError, SetupFailure};
use crate::transport::Listener;

/// The unix socket that QEMU's control protocol is served on, in the machine's directory.
const QMP_SOCKET: &str = "qmp";

/// Freed when the machine is gone: what outlives its processes.
#[derive(Debug)]
pub(super) struct Leases {
    pub directory: MachineDirectory,
    /// Its content stays while the machine may read it, whatever becomes of its name.
    pub image: Image,
}

impl Leases {
    /// Frees everything, and says what could not be freed.
    pub(super) fn free(self) -> Vec<String> {
        let path = self.directory.path().to_owned();
        drop(self);
        match path.symlink_metadata() {
            Ok(_) => vec![format!("`{}` could not be removed", path.display())],
            Err(_) => Vec::new(),
        }
    }
}

/// Ready to be started.
#[derive(Debug)]
pub(super) struct Prepared {
    pub leases: Leases,
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

/// What a machine's leases are acquired from.
#[derive(Debug)]
pub(super) struct Preparation {
    pub settings: Arc<Settings>,
    pub run_dir: Arc<RunDir>,
    pub vsocks: Arc<Vsocks>,
    pub hub: Option<Hub>,
    pub id: MachineId,
    pub image: String,
    pub source: Option<File>,
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
        let Self { settings, run_dir, vsocks, hub, id, image, source } = self;
        let image = settings.images.resolve(&image)?;
        if image.spec.arch != settings.qemu.arch {
            let (arch, host) = (image.spec.arch, settings.qemu.arch);
            return Err(PrepareError::Arch { image: image.name, arch, host });
        }
        let open = |path: &Path| -> Result<OwnedFd, PrepareError> {
            File::open(path).map(OwnedFd::from).map_err(|source| PrepareError::Open {
                image: image.name.clone(),
                path: path.to_owned(),
                source,
            })
        };
        let (kernel, initrd) = (open(&image.spec.kernel)?, open(&image.spec.initrd)?);
        let store = open(&image.spec.store_disk)?;
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
        let qmp_path = directory.socket_path(QMP_SOCKET)?;
        let qmp_listener = std::os::unix::net::UnixListener::bind(&qmp_path)?;
        std::fs::set_permissions(&qmp_path, std::fs::Permissions::from_mode(0o600))?;
        let (guest_end, agent_listener) = vsocks.acquire(hub.as_ref(), &directory)?;
        Ok(Prepared {
            leases: Leases { directory, image },
            disks: Disks { kernel, initrd, store, volumes, source, qmp: qmp_listener.into() },
            qmp_path,
            guest_end,
            agent_listener,
        })
    }
}
