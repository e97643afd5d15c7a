//! A tar archive, entry by entry, into a directory.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::tree::{Attributes, Tree, TreeError};

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Files and links; directories are not counted.
    pub files: u64,
    /// In files.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("failed to read the source archive: {0}")]
    Read(#[source] io::Error),
    #[error("source archive entry `{0}` would lie outside of the destination")]
    Outside(PathBuf),
    #[error("source archive entry `{path}` is a {kind:?}; only files, directories and links are unpacked")]
    Kind { path: PathBuf, kind: EntryType },
    #[error("source archive link `{0}` has no target")]
    NoTarget(PathBuf),
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Unpacks `archive` below `destination`, which is made if it does not exist (its parent must). Owners in
/// the archive are ignored: everything belongs to the calling thread's file-system ids.
pub fn unpack_archive(archive: impl Read, destination: &Path) -> Result<Unpacked, ArchiveError> {
    let mut tree = Tree::open(destination)?;
    let mut unpacked = Unpacked::default();
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(ArchiveError::Read)? {
        unpack_entry(&mut tree, entry.map_err(ArchiveError::Read)?, &mut unpacked)?;
    }
    tree.finish()?;
    Ok(unpacked)
}

fn unpack_entry(
    tree: &mut Tree,
    mut entry: Entry<'_, impl Read>,
    unpacked: &mut Unpacked,
) -> Result<(), ArchiveError> {
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        // `git archive` puts the commit's name there.
        return Ok(());
    }
    let named = entry.path().map_err(ArchiveError::Read)?.into_owned();
    let path = relative(&named)?;
    let attributes = Attributes {
        mode: entry.header().mode().map_err(ArchiveError::Read)?,
        modified: entry.header().mtime().map_err(ArchiveError::Read)?,
    };
    if path.as_os_str().is_empty() {
        // `./`: the destination itself, whose attributes are not the archive's business.
        return if kind.is_dir() { Ok(()) } else { Err(ArchiveError::Outside(named)) };
    }
    match kind {
        EntryType::Directory => return Ok(tree.directory(&path, attributes)?),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            unpacked.bytes += tree.file(&path, attributes, &mut entry)?;
        }
        EntryType::Symlink => tree.symlink(&path, attributes, &target(&entry, &path)?)?,
        EntryType::Link => tree.hard_link(&path, &relative(&target(&entry, &path)?)?)?,
        kind => return Err(ArchiveError::Kind { path, kind }),
    }
    unpacked.files += 1;
    Ok(())
}

fn target(entry: &Entry<'_, impl Read>, path: &Path) -> Result<PathBuf, ArchiveError> {
    match entry.link_name().map_err(ArchiveError::Read)? {
        Some(target) if !target.as_os_str().is_empty() => Ok(target.into_owned()),
        _ => Err(ArchiveError::NoTarget(path.to_owned())),
    }
}

/// `path` without `.`; anything that leads up or starts at the root is refused.
fn relative(path: &Path) -> Result<PathBuf, ArchiveError> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(ArchiveError::Outside(path.to_owned()));
            }
        }
    }
    Ok(relative)
}
