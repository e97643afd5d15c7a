//! Throw-away volumes: a formatted disk for each run, without formatting one for each run.
//!
//! A template is formatted once per size and kept; a run gets a copy of its data extents (4 MiB of a 16 GiB disk) in a
//! file that has no name, so that it is gone with its last descriptor, however the run ends.

mod copy;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, fstatvfs, linkat};
use rustix::io::Errno;

use super::digest::InputHasher;
use super::program::{Program, ProgramError};
use super::spec::VolumeSpec;
use crate::host::tmpfile::{anonymous_file, linkable_file};

/// Upstream leaves out the journal where losing everything in a crash is the point.
const JOURNAL_FREE_MOUNT_POINT: &str = "/workspace";

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("the disk is full: a volume of {size_mib} MiB for `{mount_point}` needs room in {}, where {free_mib} MiB \
        are free; free some space, or move the directory", path.display())]
    DiskFull { path: PathBuf, mount_point: String, size_mib: u64, free_mib: u64 },
    #[error("volumes can't be made: {0}")]
    Program(#[from] ProgramError),
    #[error("failed to {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// Formatted disks to copy from, one per size and kind.
#[derive(Debug, Clone)]
pub struct VolumeTemplates {
    cache_dir: PathBuf,
}

impl VolumeTemplates {
    /// The directory is made, private to the user, when it is first needed.
    pub fn new(cache_dir: PathBuf) -> Self {
        Self { cache_dir }
    }

    /// A formatted disk of the volume's size, in an unnamed file on the file system of the directory `on`.
    pub fn instantiate(&self, volume: &VolumeSpec, on: &Path) -> Result<OwnedFd, VolumeError> {
        let template = self.template(volume)?;
        let disk = anonymous_file(on).map_err(|error| failure(volume, "create a file in", on, error))?;
        copy::sparse(&template, &disk, size_bytes(volume))
            .map_err(|error| failure(volume, "copy a volume to", on, error))?;
        Ok(disk.into())
    }

    /// Opens the template, making it if it isn't there. Any number may do so at once: the first one's stays.
    fn template(&self, volume: &VolumeSpec) -> Result<File, VolumeError> {
        let mke2fs = Program::find("mke2fs", "e2fsprogs")?;
        let path = self.cache_dir.join(template_name(volume, &mke2fs)?);
        match File::open(&path) {
            Ok(template) if template.metadata().is_ok_and(|found| found.len() == size_bytes(volume)) => {
                return Ok(template);
            }
            // Cut short by someone else; ours takes its place.
            Ok(_) => fs::remove_file(&path).map_err(|error| failure(volume, "remove", &path, error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failure(volume, "open", &path, error)),
        }
        let at = |error| failure(volume, "make a template in", &self.cache_dir, error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.cache_dir).map_err(at)?;
        let fresh = linkable_file(&self.cache_dir).map_err(at)?;
        fresh.set_len(size_bytes(volume)).map_err(at)?;
        format(&mke2fs, volume, &fresh)
            .map_err(|error| if ran_out_of_space(&error) { at(Errno::NOSPC.into()) } else { error.into() })?;
        fresh.set_permissions(Permissions::from_mode(0o400)).map_err(at)?;
        fresh.sync_all().map_err(at)?;
        let ours = format!("/proc/self/fd/{}", fresh.as_raw_fd());
        match linkat(CWD, ours, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(fresh),
            // Somebody was faster, with the same result; or the file system has no unnamed files and ours was unlinked
            // (`linkable_file`): then it serves this once.
            Err(Errno::EXIST | Errno::NOENT) => Ok(fresh),
            Err(error) => Err(at(error.into())),
        }
    }
}

fn size_bytes(volume: &VolumeSpec) -> u64 {
    volume.size_mib << 20
}

/// mke2fs's arguments before the file, which decide, together with its version and configuration, what comes out.
fn format_arguments(volume: &VolumeSpec) -> Vec<&'static str> {
    // On a sparse file mke2fs knows the inode tables to be zero and says so: the guest's kernel then doesn't write them
    // in the background. No blocks are kept for root, who runs no steps. Identifiers are fixed, as nothing outlives a
    // run.
    let mut arguments =
        vec!["-q", "-F", "-t", "ext4", "-m", "0", "-U", "6372656c-0000-4000-8000-766f6c756d65"];
    arguments.extend(["-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"]);
    if volume.mount_point == JOURNAL_FREE_MOUNT_POINT {
        arguments.extend(["-O", "^has_journal"]);
    }
    arguments
}

/// An upgrade of mke2fs shows in its file; asking for its version would cost a process each run.
fn template_name(volume: &VolumeSpec, mke2fs: &Program) -> Result<String, VolumeError> {
    let program = mke2fs.path();
    let found = program.metadata().map_err(|error| failure(volume, "look at", program, error))?;
    let mut hasher = InputHasher::new("creel volume template 1");
    for number in
        [found.ino(), found.size(), found.mtime().cast_unsigned(), found.mtime_nsec().cast_unsigned()]
    {
        hasher.part(&number.to_le_bytes());
    }
    hasher.part(&fs::read("/etc/mke2fs.conf").unwrap_or_default());
    for argument in format_arguments(volume) {
        hasher.part(argument.as_bytes());
    }
    let key = hasher.finish();
    Ok(format!("ext4-{}MiB-{}", volume.size_mib, &key[..16]))
}

fn format(mke2fs: &Program, volume: &VolumeSpec, file: &File) -> Result<(), ProgramError> {
    // A child may open its parent's unnamed file by this path: same user.
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut arguments = format_arguments(volume);
    arguments.push(&path);
    mke2fs.run(arguments, &[]).map(drop)
}

/// mke2fs has one exit status for all failures; with LC_ALL=C its messages are the C library's.
fn ran_out_of_space(error: &ProgramError) -> bool {
    let full = Errno::NOSPC.to_string();
    let message = full.split(" (").next().unwrap_or(&full);
    matches!(error, ProgramError::Failed { output, .. } if output.contains(message))
}

fn failure(volume: &VolumeSpec, action: &'static str, path: &Path, source: io::Error) -> VolumeError {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return VolumeError::DiskFull {
            path: path.to_owned(),
            mount_point: volume.mount_point.clone(),
            size_mib: volume.size_mib,
            free_mib: free_mib(path).unwrap_or(0),
        };
    }
    VolumeError::Io { action, path: path.to_owned(), source }
}

fn free_mib(path: &Path) -> Option<u64> {
    let found = fstatvfs(File::open(path).ok()?).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize) >> 20)
}
