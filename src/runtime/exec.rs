//! One piece of work in a machine: what is asked, and the bytes that come back.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::shell::TerminalSize;

/// Something to be done in a machine.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Chosen by the caller, unique in the machine.
    pub id: String,
    pub work: Work,
    /// When the host ends it as timed out.
    pub deadline: Option<Instant>,
}

/// What is to be done.
#[derive(Clone)]
pub enum Work {
    Program {
        argv: Vec<String>,
        /// In order; a later entry of the same name wins. Secrets are among them.
        env: Vec<(String, String)>,
        cwd: String,
        /// `user[:group]`; never uid 0 or gid 0.
        user: String,
        /// Of its own; then all that it shows is stdout.
        terminal: Option<Terminal>,
    },
    /// Unpack the source tree that the setup was given.
    UnpackSource { destination: String, user: String },
    /// Writes this path and all below it to stdout as a tar archive.
    ReadFiles { path: String, user: String },
    /// Unpacks the tar archive that is the input.
    WriteFiles {
        /// A directory that the entries go below, or the name that the archive's one top entry gets.
        destination: String,
        /// The destination has to be a directory, and is made where it is missing.
        directory: bool,
        user: String,
    },
}

/// A program's terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// The value of TERM.
    pub term: String,
    pub size: TerminalSize,
}

impl fmt::Debug for Work {
    /// Leaves the environment's values out: secrets are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program { argv, env, cwd, user, terminal } => f
                .debug_struct("Program")
                .field("argv", argv)
                .field("env", &env.iter().map(|(name, _)| name).collect::<Vec<_>>())
                .field("cwd", cwd)
                .field("user", user)
                .field("terminal", terminal)
                .finish(),
            Self::UnpackSource { destination, user } => {
                f.debug_struct("UnpackSource").field("destination", destination).field("user", user).finish()
            }
            Self::ReadFiles { path, user } => {
                f.debug_struct("ReadFiles").field("path", path).field("user", user).finish()
            }
            Self::WriteFiles { destination, directory, user } => f
                .debug_struct("WriteFiles")
                .field("destination", destination)
                .field("directory", directory)
                .field("user", user)
                .finish(),
        }
    }
}

impl ExecRequest {
    /// The limit that the guest is told, in whole seconds as version 1 has it. It stands a little
    /// behind the host's own deadline: the host decides, the guest's limit only makes sure that an
    /// exec ends in a machine that is kept.
    pub fn guest_timeout_seconds(&self, now: Instant) -> u32 {
        guest_timeout_seconds(self.deadline, now)
    }
}

/// See [`ExecRequest::guest_timeout_seconds`].
pub(crate) fn guest_timeout_seconds(deadline: Option<Instant>, now: Instant) -> u32 {
    const BEHIND_THE_HOST: Duration = Duration::from_secs(5);
    deadline.map_or(0, |deadline| {
        let remaining = deadline.saturating_duration_since(now) + BEHIND_THE_HOST;
        u32::try_from(remaining.as_secs()).unwrap_or(u32::MAX)
    })
}

/// Which of a program's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    pub stream: Stream,
    /// The offset of the first byte, counted where the program wrote it.
    pub raw_offset: u64,
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_given_a_little_more_time_than_the_host_takes() {
        let now = Instant::now();
        let mut request = ExecRequest {
            id: "x".into(),
            work: Work::UnpackSource { destination: "/".into(), user: String::new() },
            deadline: Some(now + Duration::from_millis(2500)),
        };
        assert_eq!(request.guest_timeout_seconds(now), 7);
        request.deadline = None;
        assert_eq!(request.guest_timeout_seconds(now), 0);
    }
}
