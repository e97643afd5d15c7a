//! The content-addressed part of a store: what images are made of, by the digest of their files.
//!
//! ```text
//! <root>/.store/<digest>/           spec.json and the files it names, never changed once there
//! <root>/.store/by-input/<hash>     -> ../<digest>, what these inputs were built into
//! <root>/.store/files/<digest>      the digest of each file, as sha256sum(1) writes it: names what is damaged
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
use super::files::FileDigests;
use super::gc::{Collect, Collected, Removed};
use crate::image::digest::is_sha256_hex;
use crate::image::staging::{StagingDir, freeable_bytes, is_at, remove_tree, sweep, sync_directory};

/// How often an entry may be had by collections, one after the other, while it is to be published.
const MAX_TRIES: u32 = 100;

const STORE: &str = ".store";
const BY_INPUT: &str = "by-input";
const FILES: &str = "files";

/// Keeps an entry from being collected while it is held.
#[derive(Debug, Clone)]
pub struct EntryLease(#[expect(dead_code, reason = "held for its lock")] Arc<File>);

impl EntryLease {
    /// Until nobody has the directory for himself alone, which takes no longer than removing it.
    fn wait(directory: &Path) {
        if let Ok(open) = File::open(directory) {
            let _ = open.lock_shared();
        }
    }

    /// `None` if the directory is gone, or about to be.
    pub(super) fn acquire(directory: &Path) -> Option<Self> {
        let open = File::open(directory).ok()?;
        open.try_lock_shared().ok()?;
        // The lock may have come after the removal: then another, or nothing, has the name.
        is_at(&open, directory).then(|| Self(Arc::new(open)))
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
        for directory in [self.directory.clone(), self.directory.join(BY_INPUT), self.directory.join(FILES)] {
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
        let files = FileDigests::of(part).map_err(ImageError::io("hash", part))?;
        let digest = files.digest();
        make_durable(part).map_err(ImageError::io("write", part))?;
        let directory = self.directory.join(&digest);
        // Locked before it can be seen, else a collection could take it for unreferenced.
        let lock = File::open(part).map_err(ImageError::io("open", part))?;
        lock.try_lock_shared().map_err(|error| ImageError::io("lock", part)(error.into()))?;
        let lock = Arc::new(lock);
        let mut tries = 0;
        let entry = loop {
            if let Some(entry) = self.get(digest.clone()) {
                break entry;
            }
            match staging.publish_new(part, &directory) {
                Ok(()) => break Entry { digest, lease: EntryLease(lock) },
                // It is there, and a collection has it for a moment: to look whether it is named, or to remove it. Put in its
                // place, ours would be what is removed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < MAX_TRIES => {
                    tries += 1;
                    EntryLease::wait(&directory);
                }
                Err(error) => return Err(ImageError::io("create", &directory)(error)),
            }
        };
        // After the entry: a collection removes lists that belong to none.
        let list = self.directory.join(FILES).join(&entry.digest);
        let fresh = staging.path().join("files");
        fs::write(&fresh, files.text()).map_err(ImageError::io("write", &fresh))?;
        fs::rename(&fresh, &list).map_err(ImageError::io("create", &list))?;
        let link = self.directory.join(BY_INPUT).join(input);
        swap_link(staging, &Path::new("..").join(&entry.digest), &link)?;
        Ok(entry)
    }

    /// Removes entries that no name in `root` leads to and nobody holds, and what killed builds left; or says what it
    /// would remove.
    pub(super) fn collect(&self, root: &Path, how: Collect) -> Result<Collected, ImageError> {
        let mut collected = Collected::default();
        if !self.directory.is_dir() {
            return Ok(collected);
        }
        collected.abandoned =
            sweep(&self.directory, how).map_err(ImageError::io("clean", &self.directory))?;
        let listing = || ImageError::io("list", &self.directory);
        let named = || ImageError::io("list", root);
        let mut directories = fs::read_dir(&self.directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
            .map_err(listing())?;
        directories.sort();
        for directory in directories {
            let Some(digest) = Self::digest_of(&directory) else { continue };
            // First without a lock, which would be in the way of those who open the image.
            if is_named(root, &directory).map_err(named())? {
                continue;
            }
            let Ok(lock) = File::open(&directory) else { continue };
            let size_bytes = freeable_bytes(&directory);
            let removed = Removed { what: digest, size_bytes };
            if lock.try_lock().is_err() {
                collected.in_use.push(removed);
                continue;
            }
            // Again under the lock: who links an entry holds it while doing so.
            if is_named(root, &directory).map_err(named())? {
                continue;
            }
            if how == Collect::Remove {
                let trash = StagingDir::new(&self.directory).map_err(listing())?;
                let gone = trash.path().join("entry");
                fs::rename(&directory, &gone).map_err(ImageError::io("remove", &directory))?;
                remove_tree(&gone).map_err(ImageError::io("remove", &directory))?;
            }
            collected.entries.push(removed);
        }
        if how == Collect::Remove {
            self.drop_stale_inputs();
        }
        Ok(collected)
    }

    /// The digests of an entry's files as they were when it was made; `None` of entries from before they were kept.
    pub(super) fn recorded(entry: &Path) -> Option<FileDigests> {
        let digest = entry.file_name()?;
        let text = fs::read_to_string(entry.parent()?.join(FILES).join(digest)).ok()?;
        // A list that is damaged itself says nothing about the files.
        FileDigests::parse(&text).filter(|files| digest == files.digest().as_str())
    }

    fn drop_stale_inputs(&self) {
        let links = fs::read_dir(self.directory.join(BY_INPUT)).into_iter().flatten().flatten();
        for link in links.filter(|link| !link.path().exists()) {
            // Another collection may have been faster.
            let _ = fs::remove_file(link.path());
        }
        let lists = fs::read_dir(self.directory.join(FILES)).into_iter().flatten().flatten();
        for list in lists.filter(|list| !self.directory.join(list.file_name()).exists()) {
            let _ = fs::remove_file(list.path());
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

/// What the files in a flat directory take up, in bytes.
pub(super) fn disk_usage(directory: &Path) -> u64 {
    let files = sorted_files(directory).unwrap_or_default();
    files.iter().filter_map(|path| path.metadata().ok()).map(|found| found.blocks() * 512).sum()
}

pub(super) fn sorted_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
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
