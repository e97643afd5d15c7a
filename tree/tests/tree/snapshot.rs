//! A tree as a value to compare: everything that a copy has to keep.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File {
        content: Vec<u8>,
        /// The first name, in order, of the same file.
        same_as: PathBuf,
    },
    Directory,
    Symlink(PathBuf),
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    /// Of a symbolic link always 0.
    pub mode: u32,
    pub modified: (i64, i64),
}

/// All below `root`, and the root itself as the empty path.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut seen, mut files) = (BTreeMap::new(), BTreeMap::new());
    look(root, &PathBuf::new(), &mut seen, &mut files);
    seen
}

fn look(
    root: &Path,
    path: &Path,
    seen: &mut BTreeMap<PathBuf, Seen>,
    files: &mut BTreeMap<(u64, u64), PathBuf>,
) {
    let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
    let metadata = fs::symlink_metadata(&full).unwrap();
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink(fs::read_link(&full).unwrap())
    } else if file_type.is_fifo() || file_type.is_socket() {
        Kind::Other
    } else {
        let same_as = files.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.to_owned());
        Kind::File { content: fs::read(&full).unwrap(), same_as: same_as.clone() }
    };
    let mode = if file_type.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let is_directory = kind == Kind::Directory;
    seen.insert(path.to_owned(), Seen { kind, mode, modified });
    if is_directory {
        let mut names: Vec<OsString> =
            fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            look(root, &path.join(name), seen, files);
        }
    }
}
