//! Which workflow files a run is about.

use std::io;
use std::path::{Path, PathBuf};

use super::bounded::read_bytes;
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;
use crate::engine::{Manifest, ManifestErrors, Match, Trigger};
use crate::text::printable;

/// Where Tangled looks for workflows, from the repository's root.
pub(in crate::cli) const WORKFLOWS_DIRECTORY: &str = ".tangled/workflows";

/// A workflow file is a page of text; this keeps a mistyped path from being read into memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file that will run.
#[derive(Debug)]
pub(super) struct Selected {
    /// The file's name without folder and ending.
    pub name: String,
    pub manifest: Manifest,
}

/// A file that was looked at.
#[derive(Debug)]
pub(in crate::cli) struct Read {
    /// The file's name without folder and ending.
    pub name: String,
    /// As messages call it.
    pub file: String,
    pub manifest: Result<Manifest, Broken>,
}

/// Why a file is no workflow.
#[derive(Debug)]
pub(in crate::cli) enum Broken {
    Unreadable(io::Error),
    Wrong(ManifestErrors),
}

/// What was found, and what was left out because its `when` does not match.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub selected: Vec<Selected>,
    pub left_out: Vec<String>,
}

/// Finds and parses the files. A file that was named runs whatever its `when` says.
pub(super) fn select(
    arguments: &RunArgs,
    root: Option<&Path>,
    trigger: &Trigger,
) -> Result<Selection, Failure> {
    if !arguments.file.is_empty() {
        return named(arguments.file.iter().cloned());
    }
    let root = root.ok_or_else(|| {
        Failure::usage(format!(
            "workflows are looked for in `{WORKFLOWS_DIRECTORY}` of a git repository, and the current directory \
             is in none; give a file with -f FILE"
        ))
    })?;
    let directory = root.join(WORKFLOWS_DIRECTORY);
    let found = files_of(&directory)?;
    if !arguments.names.is_empty() {
        let chosen: Result<Vec<PathBuf>, Failure> =
            arguments.names.iter().map(|name| by_name(name, &found, &directory)).collect();
        return named(chosen?);
    }
    let mut selection = Selection::default();
    for path in found {
        let selected = parse(&path)?;
        match selected.manifest.matches(trigger) {
            Match::Yes => selection.selected.push(selected),
            Match::No { reasons } => {
                selection.left_out.push(format!("{}: {}", selected.name, reasons.join("; ")));
            }
        }
    }
    Ok(selection)
}

fn named(paths: impl IntoIterator<Item = PathBuf>) -> Result<Selection, Failure> {
    let selected: Result<_, _> = paths.into_iter().map(|path| parse(&path)).collect();
    Ok(Selection { selected: selected?, left_out: Vec::new() })
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!(
                "there is no `{}`; give a workflow file with -f FILE",
                directory.display()
            )));
        }
        Err(error) => {
            return Err(Failure::usage(format!("failed to read `{}`: {error}", directory.display())));
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn by_name(name: &str, found: &[PathBuf], directory: &Path) -> Result<PathBuf, Failure> {
    let is_it = |path: &&PathBuf| stem(path) == name || path.file_name().is_some_and(|file| file == name);
    if let Some(path) = found.iter().find(is_it) {
        return Ok(path.clone());
    }
    let names: Vec<String> = found.iter().map(|path| stem(path)).collect();
    let mut text = format!("there is no workflow `{name}` in `{}`", directory.display());
    let nearest = names
        .iter()
        .max_by(|one, other| strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(name, nearest) > 0.7 => {
            text.push_str(&format!("; did you mean `{nearest}`?"));
        }
        Some(_) => text.push_str(&format!("; there are {}", names.join(", "))),
        None => text.push_str(", which has no workflow files"),
    }
    if Path::new(name).is_file() {
        text.push_str(&format!(" (for a file, say -f {name})"));
    }
    Err(Failure::usage(text))
}

fn parse(path: &Path) -> Result<Selected, Failure> {
    let read = read(path);
    let manifest = read.manifest.map_err(|error| match error {
        Broken::Unreadable(error) => Failure::usage(format!("failed to read `{}`: {error}", read.file)),
        Broken::Wrong(errors) => Failure::usage(errors.render().trim_end()),
    })?;
    Ok(Selected { name: read.name, manifest })
}

/// Reads every workflow file of the repository at `root`, in the order of their names.
///
/// # Errors
/// When there is no such folder.
pub(in crate::cli) fn read_all(root: &Path) -> Result<Vec<Read>, Failure> {
    let found = files_of(&root.join(WORKFLOWS_DIRECTORY))?;
    Ok(found.iter().map(|path| read_as(path, path.strip_prefix(root).unwrap_or(path))).collect())
}

fn read(path: &Path) -> Read {
    read_as(path, path)
}

/// Reads the file at `path`, and calls it `shown`.
fn read_as(path: &Path, shown: &Path) -> Read {
    // git stores any byte in a name.
    let file = printable(&shown.display().to_string());
    let manifest = match read_bytes(path, MAX_FILE_BYTES) {
        Ok(bytes) => Manifest::parse_bytes(&file, &bytes).map_err(Broken::Wrong),
        Err(error) => Err(Broken::Unreadable(error)),
    };
    Read { name: stem(path), file, manifest }
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| printable(&stem.to_string_lossy())).unwrap_or_default()
}
