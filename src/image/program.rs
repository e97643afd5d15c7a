//! The few programs of the host that images and volumes need: where they are, which version, and running them.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An installed program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    name: &'static str,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("`{name}` is not installed; install the package {package}")]
    NotInstalled { name: &'static str, package: &'static str },
    #[error("failed to run {}: {source}", path.display())]
    NotRun { path: PathBuf, source: io::Error },
    #[error("`{name}` failed ({status}): {output}")]
    Failed { name: &'static str, status: std::process::ExitStatus, output: String },
}

/// Where an installed program is, found as builders and volumes find it.
pub fn find_program(name: &'static str) -> Option<PathBuf> {
    Program::find(name, name).ok().map(|program| program.path)
}

impl Program {
    /// Looks in PATH, then where administrators' programs are: an ordinary user's PATH on Debian lacks `/usr/sbin`.
    pub(super) fn find(name: &'static str, package: &'static str) -> Result<Self, ProgramError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let fixed = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
        let candidates = std::env::split_paths(&path).chain(fixed).map(|directory| directory.join(name));
        match candidates.into_iter().find(|candidate| candidate.is_absolute() && is_executable(candidate)) {
            Some(path) => Ok(Self { name, path }),
            None => Err(ProgramError::NotInstalled { name, package }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The program at `path`, whatever its name there.
    pub(super) fn at(name: &'static str, path: &Path) -> Self {
        Self { name, path: path.to_owned() }
    }

    /// Runs it to its end in an environment of our own; returns stdout and stderr together.
    pub(super) fn run(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: &[(&str, &str)],
    ) -> Result<String, ProgramError> {
        let output = Command::new(&self.path)
            .args(arguments)
            .env_clear()
            // mke2fs puts parts of its output where LANG says, and mkfs.erofs takes the build time from TZ.
            .envs([("LC_ALL", "C"), ("TZ", "UTC"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .map_err(|source| ProgramError::NotRun { path: self.path.clone(), source })?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            return Ok(text);
        }
        let output_text = text.trim().to_owned();
        Err(ProgramError::Failed { name: self.name, status: output.status, output: output_text })
    }

    /// What the program says of its version, all of it. Older ones know no such option and say it in their usage,
    /// which serves as well: it is compared, never parsed.
    pub(super) fn version(&self, option: &str) -> Result<String, ProgramError> {
        match self.run([option], &[]) {
            Ok(text) => Ok(text),
            Err(ProgramError::Failed { output, .. }) => Ok(output),
            Err(error) => Err(error),
        }
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
