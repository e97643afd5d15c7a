//! A git repository made by a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A work tree with one branch, `main`.
#[derive(Debug)]
pub struct Repository {
    pub path: PathBuf,
}

impl Repository {
    pub fn create(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("a repository's directory");
        let repository = Self { path };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Writes a file of the work tree.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().expect("a file's directory")).expect("a directory");
        fs::write(path, content).expect("a file of the repository");
    }

    /// Commits all that is there.
    pub fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=test"]);
    }

    /// What git printed, without its last line end.
    pub fn git(&self, arguments: &[&str]) -> String {
        let nobody = Path::new("/dev/null");
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", nobody)
            .env("GIT_CONFIG_SYSTEM", nobody)
            .envs([("GIT_AUTHOR_NAME", "Test"), ("GIT_AUTHOR_EMAIL", "test@example.org")])
            .envs([("GIT_COMMITTER_NAME", "Test"), ("GIT_COMMITTER_EMAIL", "test@example.org")])
            .output()
            .expect("git runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}
