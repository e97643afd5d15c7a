//! The machine's root directory: a small read-only tree of bind mounts in the keeper's own mount namespace.
//!
//! There is no /proc in it (it would open what QEMU has open anew, by other paths and with other rights), no /sys, no shell,
//! and nothing of the host that is not named. What the keeper needs of the host it has as descriptors.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use creel_keeper::{Entry, EntryKind, Root};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
    unmount,
};

use crate::leave_out::is_left_out;

/// Any directory that each host has. What is below it is cloned before it is covered.
const MOUNT_POINT: &str = "/dev";

/// Names of directories and mount points, and nothing that has content.
const SIZE: &str = "256k";
const INODES: &str = "2048";

/// Why there is no root.
#[derive(Debug)]
pub(crate) struct RootError {
    what: String,
    source: io::Error,
}

impl std::fmt::Display for RootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, source } = self;
        write!(f, "failed to {what} for the machine's root directory: {source}")
    }
}

impl RootError {
    pub(crate) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> RootError {
    let what = what.into();
    move |source| RootError { what, source: source.into() }
}

/// Makes the root and enters it. The working directory is `/` afterwards. Needs a mount namespace of its own, and
/// CAP_SYS_ADMIN in the user namespace that this belongs to.
pub(crate) fn enter(root: &Root) -> Result<(), RootError> {
    // Nothing of what follows reaches the host, and nothing that the host mounts later comes here.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("make mounts private"))?;
    // Before anything is covered. A clone is attached to nothing yet.
    let entries =
        root.entries.iter().map(|entry| Ok((entry, clone(entry)?))).collect::<Result<Vec<_>, _>>()?;
    let tree = new_tree().map_err(failed("make a file system"))?;
    let attach = |mount: BorrowedFd<'_>, at: &Path| {
        move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    attach(tree.as_fd(), Path::new(MOUNT_POINT)).map_err(failed("mount the file system"))?;
    let mut made = BTreeSet::from([PathBuf::from(MOUNT_POINT)]);
    for (entry, mount) in &entries {
        let at = below(&entry.at);
        prepare(&at, entry.kind.is_directory(), &mut made).map_err(failed(format!("make `{}`", entry.at)))?;
        attach(mount.as_fd(), &at).map_err(failed(format!("mount `{}`", entry.at)))?;
    }
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one, and is taken off.
    rustix::process::chdir(MOUNT_POINT).map_err(failed("enter it"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("make it the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("leave the host's"))?;
    rustix::process::chdir("/").map_err(failed("enter it"))?;
    // Last: until here directories are made in it.
    restrict(tree.as_fd(), READ_ONLY | NO_SET_ID | NO_DEVICES | NO_EXECUTION).map_err(failed("seal it"))
}

fn below(at: &str) -> PathBuf {
    Path::new(MOUNT_POINT).join(at.trim_start_matches('/'))
}

fn new_tree() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", SIZE), ("nr_inodes", INODES), ("mode", "0755")] {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// A mount of what the entry names, with what it may be used for.
fn clone(entry: &Entry) -> Result<OwnedFd, RootError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, &entry.from, flags).map_err(failed(format!("find `{}`", entry.from)))?;
    let status = fstat(&mount).map_err(failed(format!("look at `{}`", entry.from)))?;
    let kind = FileType::from_raw_mode(status.st_mode);
    let fits = match entry.kind {
        EntryKind::Program | EntryKind::File => kind == FileType::RegularFile,
        EntryKind::Directory | EntryKind::Programs | EntryKind::Sockets => kind == FileType::Directory,
        EntryKind::Device => kind == FileType::CharacterDevice,
    };
    if !fits {
        let wrong = io::Error::other(format!("it is a {kind:?}, and no {:?}", entry.kind));
        return Err(failed(format!("use `{}`", entry.from))(wrong));
    }
    // What creel has opened and checked is what its path still leads to.
    if let Some(identity) = &entry.identity
        && (status.st_dev, status.st_ino) != (identity.device, identity.inode)
    {
        let other = io::Error::other("it is another file than it was a moment ago");
        return Err(failed(format!("use `{}`", entry.from))(other));
    }
    let attributes = match entry.kind {
        EntryKind::Program | EntryKind::Programs => READ_ONLY | NO_SET_ID | NO_DEVICES,
        EntryKind::File | EntryKind::Directory => READ_ONLY | NO_SET_ID | NO_DEVICES | NO_EXECUTION,
        EntryKind::Device => NO_SET_ID | NO_EXECUTION,
        EntryKind::Sockets => NO_SET_ID | NO_DEVICES | NO_EXECUTION,
    };
    restrict(mount.as_fd(), attributes).map_err(failed(format!("restrict `{}`", entry.from)))?;
    Ok(mount)
}

/// The mount point and what is above it, as far as that is not made yet: most of them are libraries, side by side.
fn prepare(at: &Path, directory: bool, made: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let above = if directory { at } else { at.parent().unwrap_or(at) };
    let missing: Vec<&Path> = above.ancestors().take_while(|path| !made.contains(*path)).collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            // Whatever the umask is: another user walks through.
            Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755))?,
            // In what an earlier entry has mounted.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        made.insert(path.to_owned());
    }
    if !directory {
        rustix::fs::open(at, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)?;
    }
    Ok(())
}

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SET_ID: u64 = libc::MOUNT_ATTR_NOSUID;
const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
const NO_EXECUTION: u64 = libc::MOUNT_ATTR_NOEXEC;

/// mount_setattr(2), since Linux 5.12: adds to what the mount has, so that it works on those that a user namespace has locked.
fn restrict(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    if is_left_out("restricted mounts") {
        return Ok(());
    }
    let attributes = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let empty = CString::default();
    // SAFETY: the path is a C string, and the attributes are valid for reading of the size that is stated.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
