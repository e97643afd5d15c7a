//! The image's root: its read-only store disk under a writable layer in memory, and its volumes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use creel_proto::names::disks::{STORE, VOLUME_PREFIX};
use rustix::mount::MountFlags;

use super::mounts::{self, MountError};
use crate::cmdline::StoreType;
use crate::disks::{self, DiskError};

/// In the initramfs; hidden under the new root afterwards.
const STORE_DIRECTORY: &str = "/creel/store";
const SCRATCH_DIRECTORY: &str = "/creel/scratch";
const NEW_ROOT: &str = "/creel/root";

/// Virtio disks are there once their driver is loaded; this is for those that come later.
const DISK_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("failed to make `{path}`: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("failed to move `{from}` to `{to}`: {source}")]
    Move { from: String, to: String, source: io::Error },
    #[error("failed to enter the new root: {0}")]
    Enter(#[source] io::Error),
}

/// Makes the store disk the root.
pub fn switch_to_store(store_type: StoreType) -> Result<(), RootError> {
    let store = disks::wait_for(STORE, DISK_LIMIT)?;
    let read_only = MountFlags::RDONLY | MountFlags::NOATIME;
    mounts::mount(store_type.name(), &store.to_string_lossy(), STORE_DIRECTORY, read_only, None)?;
    mounts::mount("tmpfs", "scratch", SCRATCH_DIRECTORY, MountFlags::NOATIME, Some(c"mode=0755"))?;
    for layer in ["/creel/scratch/upper", "/creel/scratch/work"] {
        make_directory(Path::new(layer))?;
    }
    let layers = c"lowerdir=/creel/store,upperdir=/creel/scratch/upper,workdir=/creel/scratch/work";
    mounts::mount("overlay", "root", NEW_ROOT, MountFlags::NOATIME, Some(layers))?;
    for directory in ["/proc", "/sys", "/dev"] {
        let target = format!("{NEW_ROOT}{directory}");
        make_directory(Path::new(&target))?;
        move_mount(directory, &target)?;
    }
    // As switch_root(8) does. This program runs on without its file, which is memory.
    let _ = fs::remove_file("/init");
    let entered = |result: rustix::io::Result<()>| result.map_err(|errno| RootError::Enter(errno.into()));
    entered(rustix::process::chdir(NEW_ROOT))?;
    move_mount(".", "/")?;
    entered(rustix::process::chroot("."))?;
    entered(rustix::process::chdir("/"))
}

/// Mounts volume 0, 1, ... on these paths of the root.
pub fn mount_volumes(mount_points: &[PathBuf]) -> Result<(), RootError> {
    for (number, mount_point) in mount_points.iter().enumerate() {
        let disk = disks::wait_for(&format!("{VOLUME_PREFIX}{number}"), DISK_LIMIT)?;
        let (disk, mount_point) = (disk.to_string_lossy(), mount_point.to_string_lossy());
        mounts::mount("ext4", &disk, &mount_point, MountFlags::NOATIME, None)?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), RootError> {
    fs::create_dir_all(path).map_err(|source| RootError::Directory { path: path.to_owned(), source })
}

fn move_mount(from: &str, to: &str) -> Result<(), RootError> {
    rustix::mount::mount_move(from, to).map_err(|errno| RootError::Move {
        from: from.to_owned(),
        to: to.to_owned(),
        source: errno.into(),
    })
}
