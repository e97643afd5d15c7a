//! A directory of cgroup2, held by its descriptor: made, entered at birth, read, emptied, removed.
//!
//! Errors name the file, and what was to be written: `EINVAL` alone says nothing when a machine has nine limits. See
//! Documentation/admin-guide/cgroup-v2.rst for what the files mean; `parse` reads their formats and touches nothing.
//! All calls but the waits are a few system calls on a file system in memory, so async code may make them.

mod empty;
pub mod parse;
#[cfg(test)]
pub(crate) mod scratch;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use thiserror::Error;

use parse::{CgroupEvents, Malformed};

/// `CGROUP2_SUPER_MAGIC` of include/uapi/linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Far more than any file of a cgroup holds but `cgroup.procs` of thousands.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What went wrong with a cgroup, and with which file of it.
#[derive(Debug, Error)]
pub enum CgroupFsError {
    #[error("failed to {action} `{path}`")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to write `{value}` to `{path}`")]
    Write {
        value: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not on a cgroup2 file system: creel needs the unified hierarchy of cgroup v2")]
    NotCgroup2 { path: PathBuf },
    #[error("`{name}` is no name for a cgroup: it must be one component of a path, without a line break")]
    BadName { name: String },
    #[error("failed to understand `{path}`")]
    Malformed {
        path: PathBuf,
        #[source]
        source: Malformed,
    },
    #[error("`{path}` still has processes {bound:?} after they were killed: {processes}")]
    StillPopulated { path: PathBuf, bound: Duration, processes: String },
}

impl CgroupFsError {
    /// What the kernel said, if it did.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } | Self::Write { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// A directory of cgroup2. Dropping it leaves the cgroup as it is.
#[derive(Debug)]
pub struct Cgroup {
    fd: OwnedFd,
    path: PathBuf,
}

impl Cgroup {
    /// # Errors
    /// When it is missing, no directory, a symbolic link, or not on cgroup2.
    pub fn open(path: &Path) -> Result<Self, CgroupFsError> {
        let cgroup = Self::open_any(path)?;
        let magic = rustix::fs::fstatfs(&cgroup.fd).map_err(cgroup.failed("inspect"))?.f_type;
        if u64::try_from(magic) != Ok(CGROUP2_MAGIC) {
            return Err(CgroupFsError::NotCgroup2 { path: cgroup.path });
        }
        Ok(cgroup)
    }

    /// The same without a look at the file system: tests let a plain directory stand in.
    pub(crate) fn open_any(path: &Path) -> Result<Self, CgroupFsError> {
        open_directory(rustix::fs::CWD, path, path.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a cgroup below this one.
    ///
    /// # Errors
    /// `EEXIST`, `EAGAIN` when `cgroup.max.descendants` or `cgroup.max.depth` is reached; see [`CgroupFsError`].
    pub fn create_child(&self, name: &str) -> Result<Self, CgroupFsError> {
        let path = self.child_path(name)?;
        mkdirat(&self.fd, name, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH)
            .map_err(io_failed("make", &path))?;
        self.open_child(name).inspect_err(|_| {
            let _ = unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
        })
    }

    /// # Errors
    /// `ENOENT`; see [`CgroupFsError`].
    pub fn open_child(&self, name: &str) -> Result<Self, CgroupFsError> {
        open_directory(&self.fd, Path::new(name), self.child_path(name)?)
    }

    /// Removes a cgroup below this one, which must have neither processes nor cgroups. One that is not there is no error.
    ///
    /// # Errors
    /// `EBUSY`; see [`CgroupFsError`].
    pub fn remove_child(&self, name: &str) -> Result<(), CgroupFsError> {
        let path = self.child_path(name)?;
        match unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io_failed("remove", &path)(error)),
        }
    }

    /// Names of the cgroups below this one, sorted. Names that are not UTF-8 are none of ours and left out.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn children(&self) -> Result<Vec<String>, CgroupFsError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(self.failed("list"))? {
            let entry = entry.map_err(self.failed("list"))?;
            let name = entry.file_name().to_str().unwrap_or_default();
            if entry.file_type() == FileType::Directory && !matches!(name, "" | "." | "..") {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The controllers that could be enabled for the cgroups below this one (`cgroup.controllers`).
    ///
    /// # Errors
    /// See [`CgroupFsError`].
    pub fn controllers(&self) -> Result<Vec<String>, CgroupFsError> {
        Ok(words(&self.read("cgroup.controllers")?))
    }

    /// The controllers that are enabled for the cgroups below this one (`cgroup.subtree_control`).
    ///
    /// # Errors
    /// See [`CgroupFsError`].
    pub fn enabled_controllers(&self) -> Result<Vec<String>, CgroupFsError> {
        Ok(words(&self.read("cgroup.subtree_control")?))
    }

    /// Enables controllers for the cgroups below this one: all of them or none.
    ///
    /// # Errors
    /// `EBUSY` when processes live in this very cgroup, `ENOENT` when a controller is not in its
    /// `cgroup.controllers`, `EINVAL` for a name that the kernel does not know.
    pub fn enable(&self, controllers: &[&str]) -> Result<(), CgroupFsError> {
        if controllers.is_empty() {
            return Ok(());
        }
        let value: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
        self.write("cgroup.subtree_control", &value.join(" "))
    }

    /// # Errors
    /// `ENOENT` when its controller is not enabled or the kernel is too old for it, `ENODEV` when the cgroup is gone,
    /// `EOPNOTSUPP` for pressure where the kernel counts none.
    pub fn read(&self, file: &str) -> Result<String, CgroupFsError> {
        let mut text = String::new();
        File::from(self.open_file(file, OFlags::RDONLY)?)
            .take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|source| CgroupFsError::Io { action: "read", path: self.path.join(file), source })?;
        Ok(text)
    }

    /// Reads a file and understands it.
    ///
    /// # Errors
    /// As [`Self::read`], and when `parse` does not take it.
    pub fn read_as<T>(
        &self,
        file: &str,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Result<T, CgroupFsError> {
        let text = self.read(file)?;
        parse(&text).map_err(|source| CgroupFsError::Malformed { path: self.path.join(file), source })
    }

    /// Writes in a single system call, as the kernel wants it.
    ///
    /// # Errors
    /// `EINVAL` and `ERANGE` for a value that the kernel does not take; see [`CgroupFsError`].
    pub fn write(&self, file: &str, value: &str) -> Result<(), CgroupFsError> {
        let failed =
            |source| CgroupFsError::Write { value: value.into(), path: self.path.join(file), source };
        // Cut, so that a plain file which stands in holds this value alone; the kernel does not mind.
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = openat(&self.fd, file, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        File::from(fd).write_all(value.as_bytes()).map_err(failed)
    }

    /// Whether it has this file. Which ones it has depends on controllers and kernel.
    pub fn has(&self, file: &str) -> bool {
        rustix::fs::accessat(&self.fd, file, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// Whether this process may make cgroups below this one.
    ///
    /// # Errors
    /// `EACCES`, or `EROFS` where the file system is mounted read-only for this process.
    pub fn check_writable(&self) -> Result<(), CgroupFsError> {
        rustix::fs::accessat(&self.fd, ".", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(self.failed("write to"))
    }

    /// Whether some process lives in it or below it; zombies don't count.
    ///
    /// # Errors
    /// See [`CgroupFsError`].
    pub fn populated(&self) -> Result<bool, CgroupFsError> {
        Ok(self.read_as("cgroup.events", CgroupEvents::parse)?.populated)
    }

    fn open_file(&self, file: &str, flags: OFlags) -> Result<OwnedFd, CgroupFsError> {
        openat(&self.fd, file, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
            .map_err(io_failed("open", &self.path.join(file)))
    }

    fn child_path(&self, name: &str) -> Result<PathBuf, CgroupFsError> {
        // The kernel refuses line breaks as well (cgroup_mkdir in kernel/cgroup/cgroup.c).
        if matches!(name, "" | "." | "..") || name.contains(['/', '\n', '\0']) {
            return Err(CgroupFsError::BadName { name: name.into() });
        }
        Ok(self.path.join(name))
    }

    fn failed(&self, action: &'static str) -> impl Fn(Errno) -> CgroupFsError + use<> {
        io_failed(action, &self.path)
    }
}

/// The directory, as `clone3` takes it for `CLONE_INTO_CGROUP`.
impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn io_failed(action: &'static str, path: &Path) -> impl Fn(Errno) -> CgroupFsError + use<> {
    let path = path.to_owned();
    move |error| CgroupFsError::Io { action, path: path.clone(), source: error.into() }
}

fn open_directory(at: impl AsFd, name: &Path, path: PathBuf) -> Result<Cgroup, CgroupFsError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = openat(at, name, flags, Mode::empty()).map_err(io_failed("open", &path))?;
    Ok(Cgroup { fd, path })
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
