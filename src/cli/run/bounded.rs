//! Reads files whose names others chose.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The text of a regular file of at most `max_bytes`, as [`read_bytes`] reads it.
///
/// # Errors
/// Those of [`read_bytes`]; and when it is not UTF-8.
pub(super) fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    String::from_utf8(read_bytes(path, max_bytes)?).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// The content of a regular file of at most `max_bytes`. A repository's file may be a link to a device that never ends,
/// or to one that waits for somebody to type.
///
/// # Errors
/// Those of open(2) and read(2); and when it is no such file.
pub(super) fn read_bytes(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_large_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(read_text(&path, 10).unwrap_err().to_string(), "it is not a regular file");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "12345678901").unwrap();
        assert_eq!(read_text(&path, 10).unwrap_err().to_string(), "it is larger than 10 bytes");
        assert_eq!(read_text(&path, 11).unwrap(), "12345678901");
    }
}
