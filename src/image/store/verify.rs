//! Reads an image again, all of it, and says what is not as it was.

use std::fs;
use std::path::{Path, PathBuf};

use super::entries::{Entries, EntryLease};
use super::error::ImageError;
use super::files::FileDigests;
use super::{ImageStore, check_name, locate};
use crate::image::digest::sha256_of_file;
use crate::image::spec::{ImageSpec, SPEC_FILE};

/// An image that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub name: String,
    pub directory: PathBuf,
    /// Of images creel made. Others have nothing that their bytes could be compared with.
    pub digest: Option<String>,
    /// One sentence each; none if all is well.
    pub faults: Vec<String>,
}

impl ImageStore {
    /// Reads every file of an image, and compares those of an image creel made with their recorded digests.
    ///
    /// # Errors
    /// When there is no such image, or its directory can't be read. What is wrong with the image is no error.
    pub fn verify(&self, name: &str) -> Result<Verified, ImageError> {
        check_name(name)?;
        for root in &self.roots {
            if let Some(found) = locate(root, name)? {
                return Ok(verify(name, &found));
            }
        }
        Err(self.unknown(name)?)
    }

    /// The names of all images, each once.
    pub fn names(&self) -> Result<Vec<String>, ImageError> {
        let mut names = Vec::new();
        for root in &self.roots {
            names.extend(super::names_in(root)?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn verify(name: &str, found: &Path) -> Verified {
    let real = match found.canonicalize() {
        Ok(real) => real,
        Err(error) => {
            let faults = vec![format!("{} leads nowhere: {error}", found.display())];
            return Verified { name: name.to_owned(), directory: found.to_owned(), digest: None, faults };
        }
    };
    // Held, so that a collection does not take away what is being read.
    let _lease = EntryLease::acquire(&real);
    let digest = Entries::digest_of(&real);
    let mut faults = Vec::new();
    let spec_path = if real.is_dir() { real.join(SPEC_FILE) } else { real.clone() };
    match ImageSpec::load(name, &spec_path) {
        Err(error) => faults.extend(error.problems.iter().map(|problem| format!("{SPEC_FILE}: {problem}"))),
        // There is nothing to compare with, but what can't be read is noticed.
        Ok(checked) if digest.is_none() => {
            for path in [&checked.spec.kernel, &checked.spec.initrd, &checked.spec.store_disk] {
                if let Err(error) = sha256_of_file(path) {
                    faults.push(format!("{} can't be read: {error}", path.display()));
                }
            }
        }
        Ok(_) => {}
    }
    if let Some(digest) = &digest {
        faults.extend(compare(&real, digest));
    }
    Verified { name: name.to_owned(), directory: real, digest, faults }
}

/// What in an entry is not as its digest says.
fn compare(entry: &Path, digest: &str) -> Vec<String> {
    let files = match FileDigests::of(entry) {
        Ok(files) => files,
        Err(error) => return vec![format!("{} can't be read: {error}", entry.display())],
    };
    let found = files.digest();
    if found == digest {
        return Vec::new();
    }
    let Some(recorded) = Entries::recorded(entry) else {
        return vec![format!(
            "its files hash to {found}, not to {digest}; which one is damaged was not recorded"
        )];
    };
    let mut faults = Vec::new();
    for name in recorded.names() {
        let path = entry.join(name);
        match files.get(name) {
            None => faults.push(format!("{} is missing", path.display())),
            Some(found) if Some(found) != recorded.get(name) => {
                let size = fs::metadata(&path).map_or(0, |found| found.len());
                faults.push(format!(
                    "{} is damaged: its {size} bytes are not those it was made with",
                    path.display()
                ));
            }
            Some(_) => {}
        }
    }
    for name in files.names().filter(|name| recorded.get(name).is_none()) {
        faults.push(format!("{} does not belong to the image", entry.join(name).display()));
    }
    faults
}
