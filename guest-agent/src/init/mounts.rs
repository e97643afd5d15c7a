//! The file systems that every Linux userspace expects.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use rustix::mount::MountFlags;

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("failed to make mount point `{target}`: {source}")]
    Target { target: String, source: io::Error },
    #[error("failed to mount {kind} on `{target}`: {source}")]
    Mount { kind: String, target: String, source: io::Error },
    #[error("failed to make `{path}`: {source}")]
    Link { path: String, source: io::Error },
}

const NOTHING_SPECIAL: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const DATA_ONLY: MountFlags = NOTHING_SPECIAL.union(MountFlags::NOEXEC);

/// What the boot itself needs.
pub fn kernel_file_systems() -> Result<(), MountError> {
    mount("proc", "proc", "/proc", DATA_ONLY, None)?;
    mount("sysfs", "sysfs", "/sys", DATA_ONLY, None)?;
    match mount("devtmpfs", "devtmpfs", "/dev", MountFlags::NOSUID, Some(c"mode=0755")) {
        // Some kernels have mounted it by themselves (CONFIG_DEVTMPFS_MOUNT).
        Err(MountError::Mount { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        other => other,
    }
}

/// What programs need, once the root is the image's.
pub fn runtime_file_systems() -> Result<(), MountError> {
    // gid 5 is `tty` in every distribution; grantpt(3) wants it.
    let terminals = c"gid=5,mode=0620,ptmxmode=0666";
    mount("devpts", "devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), Some(terminals))?;
    mount("tmpfs", "shm", "/dev/shm", NOTHING_SPECIAL, Some(c"mode=1777"))?;
    mount("tmpfs", "run", "/run", NOTHING_SPECIAL, Some(c"mode=0755"))?;
    mount("tmpfs", "tmp", "/tmp", NOTHING_SPECIAL, Some(c"mode=1777"))?;
    mount("cgroup2", "cgroup2", "/sys/fs/cgroup", DATA_ONLY, None)?;
    // devtmpfs has none of these; shells need them (`<(...)`, `> /dev/stderr`).
    link("/proc/self/fd", "/dev/fd")?;
    link("/proc/self/fd/0", "/dev/stdin")?;
    link("/proc/self/fd/1", "/dev/stdout")?;
    link("/proc/self/fd/2", "/dev/stderr")
}

/// Mounts on a directory, made if need be.
pub fn mount(
    kind: &str,
    source: &str,
    target: &str,
    flags: MountFlags,
    options: Option<&CStr>,
) -> Result<(), MountError> {
    fs::create_dir_all(target).map_err(|source| MountError::Target { target: target.to_owned(), source })?;
    rustix::mount::mount(source, target, kind, flags, options).map_err(|errno| MountError::Mount {
        kind: kind.to_owned(),
        target: target.to_owned(),
        source: errno.into(),
    })
}

fn link(target: &str, path: &str) -> Result<(), MountError> {
    match symlink(target, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(MountError::Link { path: path.to_owned(), source }),
    }
}
