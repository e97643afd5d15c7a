//! A file tree in memory: what will be in an image's root, before anything is on disk.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::error::BuildError;
use crate::image::digest::InputHasher;
use crate::image::staging::copy_with_mode;

/// Paths are relative to the root and sorted, so that the hash and the disk see one order.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// The permission bits, set-id and sticky included.
    Directory(u32),
    Text(u32, String),
    /// Copied from the host when the tree is written.
    File(u32, PathBuf),
    Link(PathBuf),
}

impl Tree {
    /// Adds a node and the directories above it; what was at the path is replaced, with all beneath it if it was a
    /// directory and the new one isn't.
    pub(super) fn add(&mut self, path: impl AsRef<Path>, node: Node) {
        let path = path.as_ref();
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            match self.nodes.get(parent) {
                Some(Node::Directory(_)) => {}
                _ => drop(self.nodes.insert(parent.to_owned(), Node::Directory(0o755))),
            }
        }
        if !matches!(node, Node::Directory(_)) {
            self.nodes.retain(|other, _| other == path || !other.starts_with(path));
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Lays a directory of the host over the tree. Files keep their modes; a directory that is already there keeps
    /// its own, so that an overlay with a `tmp/` does not make `/tmp` private.
    pub(super) fn overlay(&mut self, directory: &Path) -> Result<(), BuildError> {
        self.overlay_part(directory, Path::new(""))
    }

    fn overlay_part(&mut self, host: &Path, inside: &Path) -> Result<(), BuildError> {
        for entry in fs::read_dir(host).map_err(BuildError::io("read", host))? {
            let entry = entry.map_err(BuildError::io("read", host))?;
            let (source, path) = (entry.path(), inside.join(entry.file_name()));
            let found = entry.metadata().map_err(BuildError::io("read", &source))?;
            let mode = found.permissions().mode() & 0o7777;
            let kind = found.file_type();
            if kind.is_dir() {
                if !matches!(self.nodes.get(&path), Some(Node::Directory(_))) {
                    self.add(&path, Node::Directory(mode));
                }
                self.overlay_part(&source, &path)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&source).map_err(BuildError::io("read", &source))?;
                self.add(path, Node::Link(target));
            } else if kind.is_file() {
                self.add(path, Node::File(mode, source));
            } else {
                return Err(BuildError::OverlayEntry { path: source, kind: "a device, socket or pipe" });
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Feeds every path, mode and content to the hash.
    pub(super) fn hash(&self, hasher: &mut InputHasher) -> Result<(), BuildError> {
        hasher.part(&(self.nodes.len() as u64).to_le_bytes());
        for (path, node) in &self.nodes {
            hasher.part(path.as_os_str().as_bytes());
            let (kind, mode): (&[u8], u32) = match node {
                Node::Directory(mode) => (b"directory", *mode),
                // Where a file's bytes come from makes no difference.
                Node::Text(mode, _) | Node::File(mode, _) => (b"file", *mode),
                Node::Link(_) => (b"link", 0),
            };
            hasher.part(kind);
            hasher.part(&mode.to_le_bytes());
            match node {
                Node::Directory(_) => {}
                Node::Text(_, text) => hasher.text_as_file(text),
                Node::File(_, source) => hasher.file(source).map_err(BuildError::io("read", source))?,
                Node::Link(target) => hasher.part(target.as_os_str().as_bytes()),
            }
        }
        Ok(())
    }

    /// Writes the tree into an empty directory, with the modes it asks for, whatever the umask.
    pub(super) fn write(&self, root: &Path) -> Result<(), BuildError> {
        for (path, node) in &self.nodes {
            let at = root.join(path);
            write_node(&at, node).map_err(BuildError::io("write", &at))?;
        }
        // Deepest first, when nothing is to be put into them any more: they may be read-only.
        for (path, node) in self.nodes.iter().rev() {
            if let Node::Directory(mode) = node {
                let at = root.join(path);
                fs::set_permissions(&at, Permissions::from_mode(*mode))
                    .map_err(BuildError::io("write", &at))?;
            }
        }
        Ok(())
    }
}

fn write_node(at: &Path, node: &Node) -> io::Result<()> {
    match node {
        Node::Directory(_) => {
            fs::create_dir(at).and_then(|()| fs::set_permissions(at, Permissions::from_mode(0o700)))
        }
        Node::Text(mode, text) => {
            fs::write(at, text).and_then(|()| fs::set_permissions(at, Permissions::from_mode(*mode)))
        }
        Node::File(mode, source) => copy_with_mode(source, at, *mode),
        Node::Link(target) => symlink(target, at),
    }
}
