//! What can go wrong between an image's name and the image.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::image::spec::SpecError;
use crate::text::printable;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("`{}` is not an image name: {why}; use a plain name such as `tiny`", printable(name))]
    InvalidName { name: String, why: &'static str },
    #[error("{}", unknown(name, available, suggestion.as_deref(), looked_in))]
    Unknown { name: String, available: Vec<String>, suggestion: Option<String>, looked_in: Vec<PathBuf> },
    /// Not "unknown": what is in the directory can't be said.
    #[error("failed to read the image directory {} ({permission}): {source}; allow creel's user to read it",
        directory.display())]
    DirectoryUnreadable { directory: PathBuf, permission: String, source: io::Error },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("image `{name}` is in {}, which creel does not write to; remove it there by hand", directory.display())]
    NotWritable { name: String, directory: PathBuf },
    #[error("{} is in the way: it was not made by creel; remove it with `creel image rm {name}`, or take another name",
        path.display())]
    Occupied { name: String, path: PathBuf },
    #[error("no image directory is configured; name one in `images.dir`")]
    NoDirectory,
    #[error("failed to {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("image `{name}` was replaced or removed over and over while it was opened; try again")]
    Unsettled { name: String },
}

impl ImageError {
    pub(in crate::image) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn unreadable(directory: &Path, source: io::Error) -> Self {
        Self::DirectoryUnreadable {
            directory: directory.to_owned(),
            permission: permission(directory, &source),
            source,
        }
    }
}

fn unknown(name: &str, available: &[String], suggestion: Option<&str>, looked_in: &[PathBuf]) -> String {
    let places = looked_in.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let there_are = match available {
        [] => format!("there are no images in {places}"),
        names => format!("there are {} in {places}", names.join(", ")),
    };
    let guess = suggestion.map(|guess| format!("did you mean `{guess}`? (")).unwrap_or_default();
    let close = if guess.is_empty() { "" } else { ")" };
    let name = printable(name);
    format!("unknown image `{name}`; {guess}{there_are}{close}; make one with `creel image build tiny`")
}

/// Who may do what with the directory, or with the one above that hides it.
fn permission(directory: &Path, error: &io::Error) -> String {
    let us = rustix::process::geteuid().as_raw();
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("we are uid {us}");
    }
    match directory.ancestors().find_map(|path| Some((path, path.metadata().ok()?))) {
        Some((path, found)) => format!(
            "{} has mode {:04o}, owner {}:{}; we are uid {us}",
            path.display(),
            found.permissions().mode() & 0o7777,
            found.uid(),
            found.gid(),
        ),
        None => format!("we are uid {us}"),
    }
}
