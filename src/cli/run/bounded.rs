//! Reads files whose names others chose.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The text of a regular file of at most `max_bytes`. A repository's file may be a link to a device that never ends, or
/// to one that waits for somebody to type.
///
/// # Errors
/// Those of open(2) and read(2); and when it is no such file.
pub(super) fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(max_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(text)
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
