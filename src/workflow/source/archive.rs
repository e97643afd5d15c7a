//! Writes a repository's tree as the tar archive that the agent unpacks.
//!
//! Not `git archive`: that honours `export-ignore` and `export-subst`, so a workflow would see another
//! tree than a clone gives it. Blobs are taken as they are in the commit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use creel_tree::{Attributes, ContentFault, Time, Writer};

use super::git::{self, GitError, Repository, Tree};

/// virtio-blk counts in sectors.
const SECTOR_BYTES: u64 = 512;

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("failed to read `{}` for the source disk: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write the source disk: {0}")]
    Write(#[source] io::Error),
    #[error("link `{}` of the commit has a target of {size} bytes, over the limit of 4096", path.display())]
    LinkTooLong { path: PathBuf, size: u64 },
    #[error("`git {0}` gave an answer that creel does not understand")]
    Answer(&'static str),
}

impl SourceError {
    /// Whether the host had no room for the archive.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::StorageFull)
    }
}

/// What went into the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveSummary {
    pub files: u64,
    /// The archive's length, a multiple of the sector size.
    pub bytes: u64,
}

/// Writes the tree to `output` from its start.
///
/// # Errors
/// When git fails, a file can't be read, or `output` not written.
pub fn write_archive(
    repository: &Repository,
    tree: Tree,
    output: File,
) -> Result<ArchiveSummary, SourceError> {
    let mut archive = Writer::new(output);
    let files = match tree {
        Tree::Head => head(repository, &mut archive)?,
        Tree::Work => work_tree(repository, &mut archive)?,
    };
    let finish = || -> io::Result<u64> {
        let mut file = archive.finish()?;
        let length = file.seek(SeekFrom::End(0))?.next_multiple_of(SECTOR_BYTES);
        file.set_len(length)?;
        file.flush()?;
        Ok(length)
    };
    Ok(ArchiveSummary { files, bytes: finish().map_err(SourceError::Write)? })
}

type Archive = Writer<File>;

/// One line of `git ls-tree -z`: `<mode> <type> <object>\t<path>`.
struct TreeEntry {
    mode: u32,
    is_blob: bool,
    object: String,
    path: PathBuf,
}

impl TreeEntry {
    fn parse(line: &[u8]) -> Option<Self> {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let (facts, path) = (std::str::from_utf8(&line[..tab]).ok()?, &line[tab + 1..]);
        let mut facts = facts.split(' ');
        Some(Self {
            mode: u32::from_str_radix(facts.next()?, 8).ok()?,
            is_blob: facts.next()? == "blob",
            object: facts.next()?.to_owned(),
            path: PathBuf::from(OsStr::from_bytes(path)),
        })
    }
}

const SYMLINK_MODE: u32 = 0o120_000;

/// PATH_MAX (limits.h): no longer link can be made, and a commit may claim any.
const MAX_LINK_BYTES: u64 = 4096;

fn head(repository: &Repository, archive: &mut Archive) -> Result<u64, SourceError> {
    let root = &repository.root;
    let commit = repository.commit.as_deref().ok_or_else(|| GitError::NoCommit(root.clone()))?;
    let mtime = commit_time(root, commit);
    let listing = output(root, &["ls-tree", "-r", "-z", "--full-tree", commit])?;
    let entries: Vec<TreeEntry> = records(&listing)
        .map(|line| TreeEntry::parse(line).ok_or(SourceError::Answer("ls-tree")))
        .collect::<Result<_, _>>()?;

    let mut child = git::command(root, &["cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(GitError::Missing)?;
    let (Some(mut requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(SourceError::Answer("cat-file"));
    };
    let objects: Vec<String> =
        entries.iter().filter(|entry| entry.is_blob).map(|entry| entry.object.clone()).collect();
    // Asked from a thread of its own: git answers while it reads, and either pipe may fill.
    let asking = std::thread::spawn(move || {
        for object in objects {
            if writeln!(requests, "{object}").is_err() {
                return;
            }
        }
    });
    let mut answers = BufReader::new(answers);
    let written = entries.iter().try_for_each(|entry| add_entry(archive, entry, mtime, &mut answers));
    drop(answers);
    // Both end by themselves: git at the end of its input or on a closed output, the thread with git.
    let _ = child.wait();
    let _ = asking.join();
    written?;
    Ok(entries.len() as u64)
}

fn add_entry(
    archive: &mut Archive,
    entry: &TreeEntry,
    modified: Time,
    answers: &mut impl io::BufRead,
) -> Result<(), SourceError> {
    let attributes = |mode| Attributes { mode, modified };
    if !entry.is_blob {
        // A submodule: an empty directory, as `git clone` without --recurse-submodules leaves it.
        return archive.directory(&entry.path, attributes(0o755)).map_err(SourceError::Write);
    }
    let size = blob_size(answers)?;
    if entry.mode == SYMLINK_MODE {
        if size > MAX_LINK_BYTES {
            return Err(SourceError::LinkTooLong { path: entry.path.clone(), size });
        }
        let target = blob(answers, size)?;
        let target = Path::new(OsStr::from_bytes(&target));
        return archive.symlink(&entry.path, attributes(0o777), target).map_err(SourceError::Write);
    }
    let mode = if entry.mode & 0o100 == 0 { 0o644 } else { 0o755 };
    let fault = archive.file(&entry.path, attributes(mode), size, answers.by_ref());
    match fault.map_err(SourceError::Write)? {
        Some(_) => Err(SourceError::Answer("cat-file")),
        None => end_of_blob(answers),
    }
}

/// Reads `<object> <type> <size>\n`.
fn blob_size(answers: &mut impl io::BufRead) -> Result<u64, SourceError> {
    let mut line = String::new();
    let broken = || SourceError::Answer("cat-file");
    answers.read_line(&mut line).map_err(|_| broken())?;
    line.trim_end().rsplit(' ').next().and_then(|size| size.parse().ok()).ok_or_else(broken)
}

fn blob(answers: &mut impl io::BufRead, size: u64) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    answers.by_ref().take(size).read_to_end(&mut bytes).map_err(|_| SourceError::Answer("cat-file"))?;
    end_of_blob(answers)?;
    Ok(bytes)
}

fn end_of_blob(answers: &mut impl Read) -> Result<(), SourceError> {
    let mut newline = [0];
    answers.read_exact(&mut newline).map_err(|_| SourceError::Answer("cat-file"))
}

fn work_tree(repository: &Repository, archive: &mut Archive) -> Result<u64, SourceError> {
    let root = &repository.root;
    let listing = output(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let mut files = 0;
    let mut previous = None;
    for name in records(&listing) {
        let name = Path::new(OsStr::from_bytes(name));
        // A path in conflict is listed once a stage.
        if previous.replace(name) == Some(name) {
            continue;
        }
        let path = root.join(name);
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // Deleted in the work tree, still in the index.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(SourceError::Read { path, source }),
        };
        let attributes = |mode| Attributes { mode, modified: modified(&metadata) };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = std::fs::read_link(&path).map_err(|source| SourceError::Read { path, source })?;
            archive.symlink(name, attributes(0o777), &target).map_err(SourceError::Write)?;
        } else if kind.is_file() {
            let file =
                File::open(&path).map_err(|source| SourceError::Read { path: path.clone(), source })?;
            let attributes = attributes(metadata.permissions().mode());
            let fault = archive.file(name, attributes, metadata.len(), file).map_err(SourceError::Write)?;
            // One that shrinks meanwhile is filled up, as one that grows is cut off: it is being written to.
            if let Some(ContentFault { error: Some(source), .. }) = fault {
                return Err(SourceError::Read { path, source });
            }
        } else {
            archive.directory(name, attributes(0o755)).map_err(SourceError::Write)?;
        }
        files += 1;
    }
    Ok(files)
}

fn modified(metadata: &std::fs::Metadata) -> Time {
    Time { seconds: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) }
}

fn commit_time(root: &Path, commit: &str) -> Time {
    let shown = output(root, &["show", "--no-patch", "--format=%ct", commit]);
    let seconds = shown.ok().and_then(|text| String::from_utf8_lossy(&text).trim().parse().ok());
    Time { seconds: seconds.unwrap_or(0), nanos: 0 }
}

fn output(root: &Path, arguments: &[&str]) -> Result<Vec<u8>, SourceError> {
    let output = git::command(root, arguments).output().map_err(GitError::Missing)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(git::failed(root, arguments, &output.stderr).into())
}

fn records(listing: &[u8]) -> impl Iterator<Item = &[u8]> {
    listing.split(|byte| *byte == 0).filter(|record| !record.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn git(directory: &Path, arguments: &[&str]) {
        let mut command = git::command(directory, arguments);
        for (name, value) in [("NAME", "a"), ("EMAIL", "a@example.org")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn repository() -> (tempfile::TempDir, Repository) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        git(root, &["init", "-q"]);
        std::fs::write(root.join("kept"), "first").unwrap();
        std::fs::write(root.join("übung.txt"), "ä").unwrap();
        std::fs::write(root.join(".gitattributes"), "kept export-ignore\n").unwrap();
        std::fs::write(root.join(".gitignore"), "ignored\n").unwrap();
        std::fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(root.join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("kept", root.join("link")).unwrap();
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "one"]);
        std::fs::write(root.join("kept"), "changed").unwrap();
        std::fs::write(root.join("new"), "new").unwrap();
        std::fs::write(root.join("ignored"), "ignored").unwrap();
        let repository = Repository::discover(root).unwrap();
        (directory, repository)
    }

    /// Path -> mode and content, or the link's target.
    fn archived(repository: &Repository, tree: Tree) -> BTreeMap<String, (u32, String)> {
        let mut file = tempfile::tempfile().unwrap();
        let summary = write_archive(repository, tree, file.try_clone().unwrap()).unwrap();
        assert_eq!(summary.bytes % SECTOR_BYTES, 0);
        assert_eq!(file.metadata().unwrap().len(), summary.bytes);
        file.rewind().unwrap();
        let mut archive = tar::Archive::new(file);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                content = format!("-> {}", target.display());
            }
            let path = entry.path().unwrap().display().to_string();
            found.insert(path, (entry.header().mode().unwrap(), content));
        }
        assert_eq!(found.len() as u64, summary.files);
        found
    }

    #[test]
    fn head_is_what_was_committed_whatever_attributes_say() {
        let (_directory, repository) = repository();
        let found = archived(&repository, Tree::Head);
        assert_eq!(found["kept"], (0o644, "first".into()));
        assert_eq!(found["übung.txt"], (0o644, "ä".into()));
        assert_eq!(found["run.sh"].0, 0o755);
        assert_eq!(found["link"].1, "-> kept");
        assert!(!found.contains_key("new"));
    }

    #[test]
    fn the_work_tree_has_changes_and_new_files_but_no_ignored_ones() {
        let (_directory, repository) = repository();
        let found = archived(&repository, Tree::Work);
        assert_eq!(found["kept"].1, "changed");
        assert_eq!(found["new"].1, "new");
        assert_eq!(found["link"].1, "-> kept");
        assert!(!found.contains_key("ignored"));
    }

    #[test]
    fn a_repository_without_commits_says_so() {
        let directory = tempfile::tempdir().unwrap();
        git(directory.path(), &["init", "-q"]);
        let repository = Repository::discover(directory.path()).unwrap();
        let error = write_archive(&repository, Tree::Head, tempfile::tempfile().unwrap()).unwrap_err();
        assert!(matches!(error, SourceError::Git(GitError::NoCommit(_))));
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let (_directory, repository) = repository();
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert!(write_archive(&repository, Tree::Head, full).unwrap_err().is_disk_full());
    }
}
