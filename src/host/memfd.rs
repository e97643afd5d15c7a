//! Files in memory, for what is handed to another program and belongs on no disk.

use std::fs::File;
use std::io::{self, Seek, Write};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// An empty file. `name` only shows in `/proc/<pid>/fd`.
///
/// # Errors
/// Those of `memfd_create(2)`.
pub fn empty(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// A file with these bytes that nobody can change any more, positioned at its start.
///
/// # Errors
/// Those of `memfd_create(2)` and of writing.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(bytes)?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_sealed_file_is_read_from_its_start_and_refuses_writes() {
        let mut file = sealed("test", b"plan").expect("made");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "plan");
        file.write_all(b"x").expect_err("sealed");
        file.set_len(0).expect_err("sealed");
    }
}
