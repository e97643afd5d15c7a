//! Writes the archive format Linux unpacks into its first root (`newc`; Documentation/driver-api/early-userspace/
//! buffer-format.rst).
//!
//! Ours is written by hand because an initramfs has to come out the same, byte for byte, on every machine: entries
//! sorted by path, inodes counted from one, no times, everything owned by root.

use std::collections::BTreeMap;
use std::io::{self, Write};

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// An archive under construction. Paths are relative to the root, without a leading slash; missing parents are made
/// as directories of mode 0755. A path given twice keeps the last entry.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    mode: u32,
    content: Vec<u8>,
    device: (u32, u32),
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn directory(&mut self, path: &str, permissions: u32) {
        self.insert(path, S_IFDIR | permissions, Vec::new(), (0, 0));
    }

    pub fn file(&mut self, path: &str, permissions: u32, content: impl Into<Vec<u8>>) {
        self.insert(path, S_IFREG | permissions, content.into(), (0, 0));
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, S_IFLNK | 0o777, target.into(), (0, 0));
    }

    pub fn char_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.insert(path, S_IFCHR | permissions, Vec::new(), (major, minor));
    }

    fn insert(&mut self, path: &str, mode: u32, content: Vec<u8>, device: (u32, u32)) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            let parent = || Entry { mode: S_IFDIR | 0o755, content: Vec::new(), device: (0, 0) };
            self.entries.entry(path[..at].to_owned()).or_insert_with(parent);
        }
        self.entries.insert(path.to_owned(), Entry { mode, content, device });
    }

    /// Writes the archive. Fails if a file or a path is too long for the format, or if `out` does.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // In path order a directory precedes what is in it, as the kernel needs it.
        for (inode, (path, entry)) in (1u32..).zip(&self.entries) {
            write_entry(out, inode, path, entry)?;
        }
        write_entry(out, 0, "TRAILER!!!", &Entry { mode: 0, content: Vec::new(), device: (0, 0) })
    }
}

fn write_entry(out: &mut impl Write, inode: u32, path: &str, entry: &Entry) -> io::Result<()> {
    let too_large =
        |_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` is too large for a cpio archive"));
    let size = u32::try_from(entry.content.len()).map_err(too_large)?;
    let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
    let links = if entry.mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
    let (major, minor) = entry.device;
    // inode, mode, uid, gid, links, mtime, size, device of the file system (2), device of the node (2), name, checksum
    let numbers = [inode, entry.mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
    let mut header = String::from("070701");
    for number in numbers {
        header.push_str(&format!("{number:08x}"));
    }
    out.write_all(header.as_bytes())?;
    out.write_all(path.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, header.len() + path.len() + 1)?;
    out.write_all(&entry.content)?;
    pad(out, entry.content.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests;
