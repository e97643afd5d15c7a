//! Asks the `git` program about a repository.
//!
//! git itself decides what a repository is, whose it is (safe.directory) and what is ignored; creel
//! only reads its machine-readable answers.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which state of the repository a run sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// The commit that HEAD names.
    Head,
    /// The work tree: tracked and untracked files, not the ignored ones.
    Work,
}

/// Why git did not answer.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("failed to run `git`: {0}; install it (Debian: apt-get install git)")]
    Missing(#[source] io::Error),
    #[error("`git {command}` failed in `{}`: {message}", directory.display())]
    Failed { command: String, directory: PathBuf, message: String },
    #[error("`{}` is not inside a git repository; run creel in one, or make one with `git init`", .0.display())]
    NotARepository(PathBuf),
    #[error("the repository `{}` has no commit yet; commit something, or use --dirty", .0.display())]
    NoCommit(PathBuf),
}

/// A repository and what a workflow's environment says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The work tree's root.
    pub root: PathBuf,
    /// The commit of HEAD; `None` before the first one.
    pub commit: Option<String>,
    /// The checked-out branch; `None` when HEAD is detached.
    pub branch: Option<String>,
    /// The URL of remote `origin`, without any user and password in it.
    pub origin: Option<String>,
}

impl Repository {
    /// The repository around `directory`.
    ///
    /// # Errors
    /// When there is none, or git can't be run or refuses.
    pub fn discover(directory: &Path) -> Result<Self, GitError> {
        let root = match ask(directory, &["rev-parse", "--show-toplevel"]) {
            Ok(root) => PathBuf::from(root),
            Err(GitError::Failed { message, .. }) if message.contains("not a git repository") => {
                return Err(GitError::NotARepository(directory.to_owned()));
            }
            Err(error) => return Err(error),
        };
        // Each of these has a state in which git fails by design: no commit, detached, no remote.
        let commit = ask(&root, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).ok();
        let branch = ask(&root, &["symbolic-ref", "--quiet", "--short", "HEAD"]).ok();
        let origin = ask(&root, &["config", "--get", "remote.origin.url"]).ok();
        Ok(Self { root, commit, branch, origin: origin.map(|url| without_credentials(&url)) })
    }

    /// The repository's name: its directory's.
    pub fn name(&self) -> String {
        self.root.file_name().map_or_else(|| "repo".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

fn ask(directory: &Path, arguments: &[&str]) -> Result<String, GitError> {
    let output = command(directory, arguments).output().map_err(GitError::Missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
    }
    Err(failed(directory, arguments, &output.stderr))
}

/// A `git` that reads nothing from us, takes no optional locks and speaks English.
pub(super) fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null());
    command
}

pub(super) fn failed(directory: &Path, arguments: &[&str], stderr: &[u8]) -> GitError {
    GitError::Failed {
        command: arguments.first().copied().unwrap_or_default().to_owned(),
        directory: directory.to_owned(),
        message: String::from_utf8_lossy(stderr).trim().to_owned(),
    }
}

/// A remote's URL may carry a token; the guest's environment must not.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_the_remote_s_url_is_left_out() {
        assert_eq!(without_credentials("https://user:token@host/a@b"), "https://host/a@b");
        assert_eq!(without_credentials("https://host/a"), "https://host/a");
        assert_eq!(without_credentials("git@host:a/b"), "git@host:a/b");
    }

    #[test]
    fn a_directory_without_a_repository_is_said_to_be_one() {
        let directory = tempfile::tempdir().unwrap();
        let error = Repository::discover(directory.path()).unwrap_err();
        assert!(matches!(error, GitError::NotARepository(_)), "{error}");
    }
}
