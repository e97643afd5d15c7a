//! Images by name: found as upstream finds them, kept by content.
//!
//! A name is looked up in each root as `<name>` (a directory with a `spec.json`, or the spec itself), then as
//! `<name>.json`. The first root is the one creel writes to.

mod entries;
mod error;
mod files;
mod gc;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use entries::EntryLease;
pub(super) use entries::{Entries, Entry};
pub use error::ImageError;
pub use gc::{Collect, Collected, Removed};
pub use verify::Verified;

use super::spec::{ImageSpec, SPEC_FILE};
use super::staging::StagingDir;

/// Where images are.
#[derive(Debug, Clone)]
pub struct ImageStore {
    roots: Vec<PathBuf>,
}

/// An image that passed every check. It can't be collected while this value lives.
#[derive(Debug, Clone)]
pub struct Image {
    pub name: String,
    /// Its paths are absolute, and lie in `directory` even if the name's link is swapped.
    pub spec: ImageSpec,
    pub spec_path: PathBuf,
    pub directory: PathBuf,
    /// Of images creel made: what their content hashes to.
    pub digest: Option<String>,
    /// What in the spec creel did not understand.
    pub warnings: Vec<String>,
    /// Holds creel's own images in place.
    pub lease: Option<EntryLease>,
}

/// One line of a listing.
#[derive(Debug)]
pub struct ImageSummary {
    pub name: String,
    /// The root it was found in.
    pub root: PathBuf,
    /// Whether `remove` would work on it.
    pub removable: bool,
    /// What its directory takes up on disk, in bytes; zero for a lone spec file.
    pub size_bytes: u64,
    /// Broken images are listed with what is wrong with them.
    pub image: Result<Image, ImageError>,
}

impl ImageStore {
    /// `roots` in search order; the first one is written to. They need not exist yet.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots }
    }

    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    pub(super) fn writable_root(&self) -> Result<&Path, ImageError> {
        self.roots.first().map(PathBuf::as_path).ok_or(ImageError::NoDirectory)
    }

    /// Finds and checks the image of that name.
    pub fn resolve(&self, name: &str) -> Result<Image, ImageError> {
        check_name(name)?;
        if self.roots.is_empty() {
            return Err(ImageError::NoDirectory);
        }
        for root in &self.roots {
            if let Some(found) = locate(root, name)? {
                return open(name, &found);
            }
        }
        Err(self.unknown(name)?)
    }

    /// Every image, in the names' order. A name that appears in several roots is listed as `resolve` would find it.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let mut found: BTreeMap<String, ImageSummary> = BTreeMap::new();
        for (index, root) in self.roots.iter().enumerate() {
            for name in names_in(root)? {
                if found.contains_key(&name) {
                    continue;
                }
                let Some(located) = locate(root, &name)? else { continue };
                let image = open(&name, &located);
                let size_bytes = match image.as_ref().map(|image| &image.directory) {
                    Ok(directory) if directory != root => entries::disk_usage(directory),
                    _ => 0,
                };
                let root = root.clone();
                found.insert(
                    name.clone(),
                    ImageSummary { name, root, removable: index == 0, size_bytes, image },
                );
            }
        }
        Ok(found.into_values().collect())
    }

    /// Removes a name from the writable root, and what it named unless something else uses it. Machines that run keep
    /// their files.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        check_name(name)?;
        let root = self.writable_root()?;
        let Some(found) = locate(root, name)? else {
            for other in self.roots.iter().skip(1) {
                if locate(other, name)?.is_some() {
                    return Err(ImageError::NotWritable { name: name.to_owned(), directory: other.clone() });
                }
            }
            return Err(self.unknown(name)?);
        };
        // Out of sight in one step, then deleted at leisure: when the directory is dropped.
        let trash = StagingDir::new(root).map_err(ImageError::io("write to", root))?;
        fs::rename(&found, trash.path().join("image")).map_err(ImageError::io("remove", &found))?;
        drop(trash);
        self.gc(Collect::Remove).map(drop)
    }

    /// Removes what no name leads to and nobody uses from the writable root, or says what that would be.
    pub fn gc(&self, how: Collect) -> Result<Collected, ImageError> {
        let root = self.writable_root()?;
        let left = match root.is_dir() {
            true => super::staging::sweep(root, how).map_err(ImageError::io("clean", root))?,
            false => Vec::new(),
        };
        let mut collected = Entries::under(root).collect(root, how)?;
        collected.abandoned.extend(left);
        Ok(collected)
    }

    /// Gives an entry of the writable root a name, taking it from the entry that had it.
    pub(super) fn name_entry(
        &self,
        staging: &StagingDir,
        name: &str,
        entry: &Entry,
    ) -> Result<Image, ImageError> {
        let link = self.writable_root()?.join(name);
        if link.symlink_metadata().is_ok_and(|found| !found.is_symlink()) {
            return Err(ImageError::Occupied { name: name.to_owned(), path: link });
        }
        entries::swap_link(staging, &Path::new(".store").join(&entry.digest), &link)?;
        open(name, &link)
    }

    fn unknown(&self, name: &str) -> Result<ImageError, ImageError> {
        let available = self.names()?;
        let nearest = available.iter().map(|other| (strsim::damerau_levenshtein(name, other), other)).min();
        let suggestion = nearest
            .filter(|(distance, _)| *distance <= name.len().div_ceil(3))
            .map(|(_, other)| other.clone());
        let looked_in = self.roots.clone();
        Ok(ImageError::Unknown { name: name.to_owned(), available, suggestion, looked_in })
    }
}

impl Image {
    /// An image that no store keeps: from a spec in memory, or in a file somewhere.
    pub fn from_spec(name: impl Into<String>, spec: ImageSpec, spec_path: PathBuf) -> Self {
        let directory = spec_path.parent().unwrap_or(Path::new("/")).to_owned();
        Self {
            name: name.into(),
            spec,
            spec_path,
            directory,
            digest: None,
            warnings: Vec::new(),
            lease: None,
        }
    }
}

/// A name is one path component, so that it can't lead out of the roots. Those with a leading dot are the store's.
pub(super) fn check_name(name: &str) -> Result<(), ImageError> {
    let why = match name {
        "" => "it is empty",
        _ if name.starts_with('.') => "it starts with a dot",
        _ if name.contains('/') => "it contains a slash",
        _ if name.contains(|c: char| c.is_control()) => "it contains a control character",
        _ if name.len() > 200 => "it is longer than 200 bytes",
        _ => return Ok(()),
    };
    Err(ImageError::InvalidName { name: name.to_owned(), why })
}

/// The file or directory a name stands for in one root. A root that isn't there has no images.
fn locate(root: &Path, name: &str) -> Result<Option<PathBuf>, ImageError> {
    for path in [root.join(name), root.join(format!("{name}.json"))] {
        match path.symlink_metadata() {
            Ok(_) => return Ok(Some(path)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(ImageError::unreadable(root, error)),
        }
    }
    Ok(None)
}

/// The names in one root that could be images.
fn names_in(root: &Path) -> Result<Vec<String>, ImageError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ImageError::unreadable(root, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| ImageError::unreadable(root, error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = match name.strip_suffix(".json") {
            Some(stem) if !entry.path().is_dir() => stem.to_owned(),
            _ => name,
        };
        if check_name(&name).is_ok() {
            names.push(name);
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Swaps and removals that a look at an image may run into.
const OPEN_ATTEMPTS: u32 = 8;

fn open(name: &str, found: &Path) -> Result<Image, ImageError> {
    // An entry may be swapped and collected between the look at its link and the lock; each time there is a newer one.
    for attempt in 1..=OPEN_ATTEMPTS {
        // A link that leads nowhere is reported by the attempt to read the spec.
        let real = found.canonicalize().unwrap_or_else(|_| found.to_owned());
        let digest = Entries::digest_of(&real);
        let lease = match digest.is_some() {
            true => match EntryLease::acquire(&real) {
                Some(lease) => Some(lease),
                None if attempt < OPEN_ATTEMPTS => continue,
                // Whoever may read the store may lock it, and must not keep others from it: what is there is used, and a
                // collector finds that lock as well.
                None if real.is_dir() => None,
                None => continue,
            },
            false => None,
        };
        let spec_path = if real.is_dir() { real.join(SPEC_FILE) } else { real };
        let checked = ImageSpec::load(name, &spec_path)?;
        let directory = spec_path.parent().unwrap_or(Path::new("/")).to_owned();
        let warnings = checked.warnings;
        return Ok(Image {
            name: name.to_owned(),
            spec: checked.spec,
            spec_path,
            directory,
            digest,
            warnings,
            lease,
        });
    }
    Err(ImageError::Unsettled { name: name.to_owned() })
}
