//! Files without a name: whatever happens to their users, nothing is left on the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

/// A file for reading and writing on the file system of `directory`, mode 0600, without a name.
///
/// File systems without `O_TMPFILE` (some overlays, NFS) get one that is unlinked at once; a process killed between
/// the two steps leaves an empty file.
///
/// # Errors
/// Those of `open(2)`: the directory is missing, read-only or not the caller's.
pub fn anonymous_file(directory: &Path) -> io::Result<File> {
    // With O_EXCL it can never get a name (open(2)).
    nameless(directory, libc::O_EXCL)
}

/// The same, but linkat(2) may give it a name once it is complete. One from a file system without `O_TMPFILE` can't get
/// one: that ends in ENOENT.
///
/// # Errors
/// As [`anonymous_file`].
pub fn linkable_file(directory: &Path) -> io::Result<File> {
    nameless(directory, 0)
}

fn nameless(directory: &Path, flags: i32) -> io::Result<File> {
    let flags = libc::O_TMPFILE | flags;
    match OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(directory) {
        Err(error) if lacks_tmpfile(&error) => unlinked_file(directory),
        outcome => outcome,
    }
}

/// The same file, open for reading only: for one who must not write to it.
///
/// # Errors
/// Those of `open(2)` on `/proc/self/fd`.
pub fn read_only(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// open(2): EOPNOTSUPP from the file system, EISDIR or ENOENT from kernels that do not know the flag.
fn lacks_tmpfile(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL))
}

fn unlinked_file(directory: &Path) -> io::Result<File> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".anonymous-{}-{serial}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn both_kinds_have_no_name_and_hold_bytes() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        for make in [anonymous_file, unlinked_file] {
            let mut file = make(directory.path()).expect("made");
            file.write_all(b"bytes").expect("written");
            file.rewind().expect("seekable");
            let mut read = String::new();
            file.read_to_string(&mut read).expect("readable");
            assert_eq!(read, "bytes");
            let metadata = file.metadata().expect("open");
            assert_eq!((metadata.nlink(), metadata.permissions().mode() & 0o777), (0, 0o600));
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_file_without_a_name_can_be_opened_again_for_reading_only() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let mut file = anonymous_file(directory.path()).expect("made");
        file.write_all(b"bytes").expect("written");
        let mut reader = read_only(&file).expect("opened again");
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("readable");
        assert_eq!(read, "bytes");
        assert!(reader.write_all(b"x").is_err());
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = anonymous_file(Path::new("/nonexistent/directory")).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
