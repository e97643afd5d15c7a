//! mmdebstrap as a process: as whom it runs, how it is ended, and what it said.
//!
//! Root runs it in namespaces of its own, so that what it mounts is seen by nobody else, and with its first process
//! every other one ends. Whoever is not root gets the same from mmdebstrap itself (`--mode=unshare`), as far as the
//! host lets users do so.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{DebianError, Trouble};
use crate::image::program::{Program, ProgramError};
use crate::text::printable;

/// A slow mirror takes a few minutes.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// How long mmdebstrap may take to remove its root once it was told to end.
const GRACE: Duration = Duration::from_secs(15);

/// How much of what it said is kept for an error.
const MAX_LINES: usize = 400;
const MAX_LINE_BYTES: usize = 4096;
/// How many lines an error shows.
const SHOWN_LINES: usize = 12;

#[derive(Debug)]
pub(super) struct Mmdebstrap {
    program: Program,
    version: String,
    /// Starts it so that it ends with this process.
    setpriv: PathBuf,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Root {
        /// The program unshare(1).
        unshare: PathBuf,
    },
    Unshare,
}

/// One call of it.
#[derive(Debug)]
pub(super) struct Run<'a> {
    mmdebstrap: &'a Mmdebstrap,
    directory: &'a Path,
    arguments: Vec<String>,
}

impl Mmdebstrap {
    /// # Errors
    /// When it is not installed, or this user can't make a Debian root.
    pub(super) fn find() -> Result<Self, crate::image::build::BuildError> {
        let program = Program::find("mmdebstrap", "mmdebstrap")?;
        let version = program.version("--version")?;
        let part = |name| Program::find(name, "util-linux").map(|found| found.path().to_owned());
        let mode = if geteuid().is_root() {
            Mode::Root { unshare: part("unshare")? }
        } else {
            check_mappings()?;
            Mode::Unshare
        };
        Ok(Self { program, version, setpriv: part("setpriv")?, mode })
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// A call that makes `target` of the suite. Root's works in `directory`.
    pub(super) fn run<'a>(
        &'a self,
        directory: &'a Path,
        options: &[String],
        suite: &str,
        target: &str,
        sources: &[String],
    ) -> Run<'a> {
        let mode = match self.mode {
            Mode::Root { .. } => "--mode=root",
            Mode::Unshare => "--mode=unshare",
        };
        let mut arguments = vec![mode.to_owned()];
        arguments.extend_from_slice(options);
        arguments.extend([suite.to_owned(), target.to_owned()]);
        arguments.extend_from_slice(sources);
        Run { mmdebstrap: self, directory, arguments }
    }
}

impl Run<'_> {
    /// Runs it to its end and passes on every line it says.
    ///
    /// # Errors
    /// When it fails, takes too long, or `cancelled` is; its processes have ended then.
    pub(super) async fn until(
        self,
        cancelled: &CancellationToken,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<(), DebianError> {
        let (reader, writer) = io::pipe().map_err(DebianError::NotRun)?;
        let mut output = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(DebianError::NotRun)?;
        // The command holds the pipe's other ends, and is dropped once it has started.
        let mut child =
            self.command(writer).and_then(|mut command| command.spawn()).map_err(DebianError::NotRun)?;

        let mut said = Said::default();
        let deadline = tokio::time::Instant::now() + LIMIT;
        let interrupted = tokio::select! {
            read = said.follow(&mut output, on_line) => read.map_err(DebianError::NotRun).err(),
            () = cancelled.cancelled() => Some(DebianError::Cancelled),
            () = sleep_until(deadline) => Some(DebianError::TooLong { limit: LIMIT, said: said.last() }),
        };
        if let Some(error) = interrupted {
            self.end(&mut child, &mut output).await;
            return Err(error);
        }
        let status = child.wait().await.map_err(DebianError::NotRun)?;
        if status.success() {
            return Ok(());
        }
        let (trouble, said) = said.trouble();
        Err(DebianError::Failed { status, trouble, said })
    }

    fn command(&self, output: io::PipeWriter) -> io::Result<Command> {
        let Mmdebstrap { program, setpriv, mode, .. } = self.mmdebstrap;
        let mut command = Command::new(setpriv);
        // What packages' scripts do may depend on any variable.
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        let mut kept = vec!["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];
        match mode {
            Mode::Root { unshare } => {
                command.args(["--pdeathsig", "KILL", "--"]).arg(unshare);
                command.args(["--mount", "--pid", "--fork", "--kill-child", "--"]);
                // What a killed build leaves is in the directory that the next collection sweeps.
                command.env("TMPDIR", self.directory);
            }
            Mode::Unshare => {
                command.args(["--pdeathsig", "TERM", "--"]);
                // A private directory is closed to the root of mmdebstrap's user namespace, so it takes the usual one.
                kept.push("TMPDIR");
            }
        }
        command.envs(kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
            .arg(program.path())
            .args(&self.arguments)
            // For what packages write themselves; files' times are settled at the end.
            .env("SOURCE_DATE_EPOCH", "0")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    /// Ends it and waits until all that wrote to its output is gone.
    async fn end(&self, child: &mut Child, output: &mut Receiver) {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let signal = |signal| group.map(|group| kill_process_group(group, signal));
        // In namespaces of our own, nothing needs its manners.
        if matches!(self.mmdebstrap.mode, Mode::Unshare) {
            signal(Signal::TERM);
            if timeout(GRACE, drain(output)).await.is_ok() {
                let _ = child.wait().await;
                return;
            }
        }
        signal(Signal::KILL);
        let _ = timeout(GRACE, drain(output)).await;
        let _ = timeout(GRACE, child.wait()).await;
    }
}

async fn drain(output: &mut Receiver) {
    let mut buffer = [0; 4096];
    while output.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// The last of what was said, by lines.
#[derive(Debug, Default)]
struct Said {
    lines: VecDeque<String>,
    /// A line that has not ended.
    open: Vec<u8>,
}

impl Said {
    /// Reads until the end of the pipe: all that could write to it are gone then.
    async fn follow(&mut self, output: &mut Receiver, on_line: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut buffer = [0; 8192];
        loop {
            let read = output.read(&mut buffer).await?;
            for byte in &buffer[..read] {
                if matches!(byte, b'\n' | b'\r') {
                    self.close(on_line);
                } else if self.open.len() < MAX_LINE_BYTES {
                    self.open.push(*byte);
                }
            }
            if read == 0 {
                self.close(on_line);
                return Ok(());
            }
        }
    }

    fn close(&mut self, on_line: &mut dyn FnMut(&str)) {
        let bytes = std::mem::take(&mut self.open);
        let line = printable(String::from_utf8_lossy(&bytes).trim_end());
        if line.is_empty() {
            return;
        }
        on_line(&line);
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn last(&self) -> String {
        let skipped = self.lines.len().saturating_sub(SHOWN_LINES);
        self.lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// What went wrong, and the lines that say so.
    fn trouble(&self) -> (Trouble, String) {
        let is_reason = |line: &&String| {
            ["E: ", "Err:", "dpkg: error", "W: GPG error"].iter().any(|start| line.starts_with(start))
        };
        let mut reasons: Vec<&str> = self.lines.iter().filter(is_reason).map(String::as_str).collect();
        reasons.dedup();
        reasons.truncate(SHOWN_LINES);
        let reasons = reasons.join("\n");
        // All of it, since a packer says nothing that looks like a reason.
        let all = self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        match Trouble::of(&all) {
            // Up to the first error: after it, mmdebstrap repeats whole scripts.
            Trouble::Unknown => {
                let first = self.lines.iter().position(|line| line.starts_with("E: "));
                let end = first.map_or(self.lines.len(), |first| first + 1);
                let shown = self.lines.iter().take(end).skip(end.saturating_sub(SHOWN_LINES));
                (Trouble::Unknown, shown.map(String::as_str).collect::<Vec<_>>().join("\n"))
            }
            trouble => (trouble, reasons),
        }
    }
}

/// A path as one word of a shell, and of mmdebstrap's own hooks.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// Whether this user may have a user namespace with more users than one, as a Debian root has: newuidmap(1).
fn check_mappings() -> Result<(), DebianError> {
    for name in ["newuidmap", "newgidmap"] {
        if let Err(ProgramError::NotInstalled { .. }) = Program::find(name, "uidmap") {
            let missing = format!("`{name}` is not installed");
            return Err(DebianError::NotAllowed { missing, remedy: "install the package uidmap" });
        }
    }
    let uid = geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let ours =
            |line: &str| line.split(':').next().is_some_and(|owner| owner == uid || Some(owner) == name);
        if !text.lines().any(ours) {
            let missing = format!("{file} has no line for it");
            let remedy =
                "add ranges with `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`";
            return Err(DebianError::NotAllowed { missing, remedy });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> (Trouble, String) {
        let mut said = Said::default();
        for line in text.lines() {
            said.open.extend_from_slice(line.as_bytes());
            said.close(&mut |_| {});
        }
        said.trouble()
    }

    #[test]
    fn what_is_understood_is_told_by_its_reasons_alone() {
        let text = "I: running apt-get update...\nGet:1 InRelease\nErr:2 http://m.example.org bookworm\n\
                    E: Failed to fetch http://m.example.org  Could not resolve 'm.example.org'\nI: removing tempdir\n\
                    E: mmdebstrap failed to run\n";
        let (trouble, reasons) = said(text);
        assert_eq!(trouble, Trouble::Unreachable);
        assert_eq!(reasons.lines().count(), 3, "{reasons}");
    }

    #[test]
    fn what_is_not_understood_is_told_by_what_came_before_the_first_error() {
        let text = format!(
            "{}Setting up odd (1) ...\nodd: can't go on\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n{}",
            "I: a step\n".repeat(100),
            "  a line of a script\n".repeat(100)
        );
        let (trouble, shown) = said(&text);
        assert_eq!(trouble, Trouble::Unknown);
        assert!(
            shown.ends_with("odd: can't go on\nE: Sub-process /usr/bin/dpkg returned an error code (1)"),
            "{shown}"
        );
        assert_eq!(shown.lines().count(), SHOWN_LINES);
    }

    #[test]
    fn paths_are_one_word_whatever_is_in_them() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
