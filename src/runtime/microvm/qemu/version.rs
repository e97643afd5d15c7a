//! Which QEMU this host has.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::image::Arch;

/// How long `--version` may take; it is bounded by loading the program from a cold disk.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A release of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QemuVersion {
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
}

impl QemuVersion {
    /// The oldest that creel is tested with: Debian 12's.
    pub const MINIMUM: Self = Self { major: 7, minor: 2, micro: 0 };

    /// Reads the first line of `--version`: `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.lines().next()?.strip_prefix("QEMU emulator version ")?;
        let numbers = numbers.split([' ', '(']).next()?;
        // Development builds end in other things: 9.1.50-rc1.
        let mut parts = numbers.split(['.', '-']).map(str::parse);
        Some(Self {
            major: parts.next()?.ok()?,
            minor: parts.next()?.ok()?,
            micro: parts.next().and_then(Result::ok).unwrap_or(0),
        })
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A QEMU that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    pub arch: Arch,
    pub path: PathBuf,
    pub version: QemuVersion,
}

/// Why there is no QEMU to start.
#[derive(Debug, Error)]
pub enum FindError {
    #[error("`{program}` is not on the search path: install it (Debian: `apt install {package}`)")]
    Missing { program: String, package: &'static str },
    #[error(
        "`{}` is no program that can be run: correct the path, or install QEMU (Debian: `apt install {package}`)",
        path.display()
    )]
    NotExecutable { path: PathBuf, package: &'static str },
    #[error("failed to ask `{}` for its version: try it by hand", path.display())]
    Run {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{} --version` answered `{answer}`, which is not QEMU's way", path.display())]
    NotQemu { path: PathBuf, answer: String },
    #[error("`{}` is QEMU {found}: creel needs {} or later", path.display(), QemuVersion::MINIMUM)]
    TooOld { path: PathBuf, found: QemuVersion },
}

impl Qemu {
    /// The first `qemu-system-<arch>` on `search_path`, the value of `PATH`.
    ///
    /// # Errors
    /// When there is none, or one that creel can't use.
    pub async fn find(arch: Arch, search_path: &OsStr) -> Result<Self, FindError> {
        let program = format!("qemu-system-{arch}");
        let path = locate(&program, search_path)
            .ok_or_else(|| FindError::Missing { program, package: debian_package(arch) })?;
        Self::at(arch, path).await
    }

    /// The QEMU at `path`, as configured.
    ///
    /// # Errors
    /// When there is none, or one that creel can't use.
    pub async fn at(arch: Arch, path: PathBuf) -> Result<Self, FindError> {
        if !is_executable(&path) {
            return Err(FindError::NotExecutable { path, package: debian_package(arch) });
        }
        let version = version_of(&path).await?;
        // Its processes have other working directories.
        let path = std::path::absolute(&path).unwrap_or(path);
        Self::usable(arch, path, version)
    }

    fn usable(arch: Arch, path: PathBuf, version: QemuVersion) -> Result<Self, FindError> {
        if version < QemuVersion::MINIMUM {
            return Err(FindError::TooOld { path, found: version });
        }
        Ok(Self { arch, path, version })
    }
}

fn locate(program: &str, search_path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        // A relative entry means whatever directory creel happens to be in.
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| is_executable(path))
}

fn debian_package(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "qemu-system-x86",
        Arch::Aarch64 => "qemu-system-arm",
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

async fn version_of(path: &Path) -> Result<QemuVersion, FindError> {
    let failed = |source| FindError::Run { path: path.to_owned(), source };
    let mut command = tokio::process::Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output())
        .await
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    QemuVersion::parse(&text).ok_or_else(|| FindError::NotQemu {
        path: path.to_owned(),
        answer: text.lines().next().unwrap_or_default().chars().take(80).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32, micro: u32) -> Option<QemuVersion> {
        Some(QemuVersion { major, minor, micro })
    }

    fn directory_with(program: &str, target: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a scratch directory");
        std::os::unix::fs::symlink(target, directory.path().join(program)).expect("linked");
        directory
    }

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let parse = QemuVersion::parse;
        assert_eq!(
            parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright"),
            version(7, 2, 22)
        );
        assert_eq!(parse("QEMU emulator version 10.0.0\n"), version(10, 0, 0));
        assert_eq!(parse("QEMU emulator version 9.1.50(v9.1.0-rc1)"), version(9, 1, 50));
        assert_eq!(parse("QEMU emulator version 9.1-rc2"), version(9, 1, 0));
        assert_eq!(parse("qemu: command not found"), None);
        assert!(version(7, 10, 0) > version(7, 2, 22));
    }

    #[tokio::test]
    async fn a_missing_qemu_names_the_package() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let error = Qemu::find(Arch::Aarch64, directory.path().as_os_str()).await.expect_err("none");
        assert_eq!(
            error.to_string(),
            "`qemu-system-aarch64` is not on the search path: install it (Debian: `apt install qemu-system-arm`)"
        );
    }

    #[tokio::test]
    async fn something_else_under_qemu_s_name_is_told() {
        let directory = directory_with("qemu-system-x86_64", "/bin/cat");
        let error = Qemu::find(Arch::X86_64, directory.path().as_os_str()).await.expect_err("not QEMU");
        assert!(matches!(error, FindError::NotQemu { answer, .. } if answer.starts_with("cat ")));
    }

    #[tokio::test]
    async fn a_configured_path_without_a_program_is_told() {
        for path in ["/nonexistent/qemu", "/etc/passwd", "/etc"] {
            let error = Qemu::at(Arch::X86_64, path.into()).await.expect_err("no program");
            assert!(
                matches!(&error, FindError::NotExecutable { path: named, .. } if named == Path::new(path))
            );
        }
    }

    #[test]
    fn an_old_qemu_is_refused_with_both_versions() {
        let old = QemuVersion { major: 6, minor: 2, micro: 0 };
        let error = Qemu::usable(Arch::X86_64, "/usr/bin/qemu-system-x86_64".into(), old).expect_err("old");
        assert_eq!(
            error.to_string(),
            "`/usr/bin/qemu-system-x86_64` is QEMU 6.2.0: creel needs 7.2.0 or later"
        );
    }

    #[test]
    fn the_first_directory_that_has_one_wins() {
        let empty = tempfile::tempdir().expect("a scratch directory");
        let unusable = directory_with("qemu", "/etc/passwd");
        let (first, second) = (directory_with("qemu", "/bin/cat"), directory_with("qemu", "/bin/sh"));
        let all = [Path::new("relative"), empty.path(), unusable.path(), first.path(), second.path()];
        let search = std::env::join_paths(all).expect("a search path");
        assert_eq!(locate("qemu", &search), Some(first.path().join("qemu")));
    }
}
