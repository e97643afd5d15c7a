//! The content-addressed part of a store: what images are made of, by the digest of their files.
//!
//! ```text
//! <root>/.store/<digest>/           spec.json and the files it names, never changed once there
//! <root>/.store/by-input/<hash>     -> ../<digest>, what these inputs were built into
//! <root>/<name>                     -> .store/<digest>
//! ```
//!
//! Rebuilding an image only swaps the last link, so machines that run keep their files. Whoever uses an entry holds a
//! shared lock on it, whoever removes one needs the lock alone.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ImageError;
use crate::image::digest::{InputHasher, is_sha256_hex, sha256_of_file};
use crate::image::staging::{StagingDir, remove_tree, sweep, sync_directory};

const STORE: &str = ".store";
const BY_INPUT: &str = "by-input";

/// Keeps an entry from being collected while it is held.
#[derive(Debug, Clone)]
pub struct EntryLease(#[expect(dead_code, reason = "held for its lock")] Arc<File>);

impl EntryLease {
    /// `None` if the directory is gone, or about to be.
    pub(super) fn acquire(directory: &Path) -> Option<Self> {
        let open = File::open(directory).ok()?;
        open.try_lock_shared().ok()?;
        // The lock may have come after the removal: then another, or nothing, has the name.
        let (ours, named) = (open.metadata().ok()?, directory.metadata().ok()?);
        (ours.ino() == named.ino() && ours.dev() == named.dev()).then(|| Self(Arc::new(open)))
    }
}

/// An entry that is there, and stays while this value lives.
#[derive(Debug)]
pub(in crate::image) struct Entry {
    pub(in crate::image) digest: String,
    #[expect(dead_code, reason = "held for its lock")]
    lease: EntryLease,
}

#[derive(Debug)]
pub(in crate::image) struct Entries {
    directory: PathBuf,
}

impl Entries {
    pub(in crate::image) fn under(root: &Path) -> Self {
        Self { directory: root.join(STORE) }
    }

    /// Whether `path` is the directory of an entry in any store; then its digest.
    pub(super) fn digest_of(path: &Path) -> Option<String> {
        let name = path.file_name()?.to_str()?;
        let in_store = path.parent()?.file_name()? == STORE;
        (in_store && is_sha256_hex(name)).then(|| name.to_owned())
    }

    /// A place to prepare an entry in, on the same file system.
    pub(in crate::image) fn stage(&self) -> Result<StagingDir, ImageError> {
        for directory in [self.directory.clone(), self.directory.join(BY_INPUT)] {
            fs::create_dir_all(&directory).map_err(ImageError::io("create", &directory))?;
        }
        StagingDir::new(&self.directory).map_err(ImageError::io("create a directory in", &self.directory))
    }

    fn get(&self, digest: String) -> Option<Entry> {
        let directory = self.directory.join(&digest);
        let lease = EntryLease::acquire(&directory)?;
        Some(Entry { digest, lease })
    }

    /// What was built from these inputs before, if it is still here.
    pub(in crate::image) fn by_input(&self, input: &str) -> Option<Entry> {
        let target = fs::read_link(self.directory.join(BY_INPUT).join(input)).ok()?;
        let digest = target.file_name()?.to_str().filter(|name| is_sha256_hex(name))?;
        self.get(digest.to_owned())
    }

    /// Moves a finished directory in. If the same content is already there, that one stays and this one is dropped.
    pub(in crate::image) fn publish(
        &self,
        staging: &StagingDir,
        part: &Path,
        input: &str,
    ) -> Result<Entry, ImageError> {
        let digest = content_digest(part).map_err(ImageError::io("hash", part))?;
        make_durable(part).map_err(ImageError::io("write", part))?;
        let directory = self.directory.join(&digest);
        let entry = match self.get(digest.clone()) {
            Some(entry) => entry,
            None => {
                // Locked before it can be seen, else a collection could take it for unreferenced.
                let lock = File::open(part).map_err(ImageError::io("open", part))?;
                lock.try_lock_shared().map_err(|error| ImageError::io("lock", part)(error.into()))?;
                staging.publish(part, &directory).map_err(ImageError::io("create", &directory))?;
                Entry { digest, lease: EntryLease(Arc::new(lock)) }
            }
        };
        let link = self.directory.join(BY_INPUT).join(input);
        swap_link(staging, &Path::new("..").join(&entry.digest), &link)?;
        Ok(entry)
    }

    /// Removes entries that no name in `root` leads to and nobody holds, and what killed builds left. Returns the
    /// bytes that were freed.
    pub(super) fn collect(&self, root: &Path) -> Result<u64, ImageError> {
        if !self.directory.is_dir() {
            return Ok(0);
        }
        sweep(&self.directory).map_err(ImageError::io("clean", &self.directory))?;
        let mut freed = 0;
        let listing = || ImageError::io("list", &self.directory);
        for entry in fs::read_dir(&self.directory).map_err(listing())? {
            let directory = entry.map_err(listing())?.path();
            if Self::digest_of(&directory).is_none() {
                continue;
            }
            let Ok(lock) = File::open(&directory) else { continue };
            // The names are read under the lock: who links one holds the entry while doing so.
            if lock.try_lock().is_err() || is_named(root, &directory).map_err(ImageError::io("list", root))? {
                continue;
            }
            let size = disk_usage(&directory);
            let trash = StagingDir::new(&self.directory).map_err(listing())?;
            let gone = trash.path().join("entry");
            fs::rename(&directory, &gone).map_err(ImageError::io("remove", &directory))?;
            remove_tree(&gone).map_err(ImageError::io("remove", &directory))?;
            freed += size;
        }
        self.drop_stale_inputs();
        Ok(freed)
    }

    fn drop_stale_inputs(&self) {
        let links = fs::read_dir(self.directory.join(BY_INPUT)).into_iter().flatten().flatten();
        for link in links.filter(|link| !link.path().exists()) {
            // Another collection may have been faster.
            let _ = fs::remove_file(link.path());
        }
    }
}

/// Makes `link` point to `target` in one step. Only a link is ever replaced.
pub(super) fn swap_link(staging: &StagingDir, target: &Path, link: &Path) -> Result<(), ImageError> {
    let fresh = staging.path().join("link");
    symlink(target, &fresh).map_err(ImageError::io("create a link to", target))?;
    fs::rename(&fresh, link).map_err(ImageError::io("create", link))?;
    link.parent().map_or(Ok(()), sync_directory).map_err(ImageError::io("write", link))
}

fn is_named(root: &Path, entry: &Path) -> io::Result<bool> {
    let entry = entry.canonicalize()?;
    for name in fs::read_dir(root)? {
        let name = name?;
        if name.file_type()?.is_symlink()
            && name.path().canonicalize().is_ok_and(|path| path.starts_with(&entry))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The digest of a flat directory: of its files' names and contents, in the names' order.
pub(super) fn content_digest(directory: &Path) -> io::Result<String> {
    let mut hasher = InputHasher::new("creel image content 1");
    for path in sorted_files(directory)? {
        hasher.part(path.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.part(&sha256_of_file(&path)?);
    }
    Ok(hasher.finish())
}

/// What the files in a flat directory take up, in bytes.
pub(super) fn disk_usage(directory: &Path) -> u64 {
    let files = sorted_files(directory).unwrap_or_default();
    files.iter().filter_map(|path| path.metadata().ok()).map(|found| found.blocks() * 512).sum()
}

fn sorted_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Content first, then names: a crash must not leave a name without its bytes.
fn make_durable(directory: &Path) -> io::Result<()> {
    for path in sorted_files(directory)? {
        File::open(path)?.sync_all()?;
    }
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    sync_directory(directory)
}
