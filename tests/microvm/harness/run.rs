//! The program while it runs, and how it ended.

use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::capture::Capture;

/// No test waits longer for anything; those that promise less measure it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A `creel` that was started, in a process group of its own. Dropped while it runs, the group is killed.
#[derive(Debug)]
pub struct Run {
    child: Child,
    pub started: Instant,
    stdout: Capture,
    stderr: Capture,
}

/// A `creel` that has ended.
#[derive(Debug)]
pub struct Ended {
    /// None: a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub at: Instant,
    /// From its start.
    pub took: Duration,
}

impl Run {
    pub fn start(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("creel starts");
        let stdout = Capture::of(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Capture::of(child.stderr.take().expect("stderr is a pipe"));
        Self { child, started, stdout, stderr }
    }

    /// When a step had said `text`.
    pub fn wait_for_stdout(&self, text: &str) -> Instant {
        self.stdout.wait_for(text, PATIENCE).unwrap_or_else(|| {
            panic!("never said `{text}`:\n{}\n{}", self.stdout.so_far(), self.stderr.so_far())
        })
    }

    /// When creel had said `text` itself.
    pub fn wait_for_stderr(&self, text: &str) -> Instant {
        self.stderr.wait_for(text, PATIENCE).unwrap_or_else(|| {
            panic!("never said `{text}`:\n{}\n{}", self.stdout.so_far(), self.stderr.so_far())
        })
    }

    /// Waits until the steps have said so many bytes.
    pub fn wait_for_stdout_bytes(&self, bytes: usize) {
        assert!(self.stdout.wait_for_bytes(bytes, PATIENCE), "never said so much:\n{}", self.stderr.so_far());
    }

    /// What the steps have said so far.
    pub fn stdout_so_far(&self) -> String {
        self.stdout.so_far()
    }

    /// How much that is.
    pub fn stdout_len(&self) -> usize {
        self.stdout.len()
    }

    pub fn is_running(&self) -> bool {
        wait_for_exit(&pidfd(self.pid()), Duration::ZERO).is_none()
    }

    /// What creel has said of the run so far.
    pub fn stderr_so_far(&self) -> String {
        self.stderr.so_far()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("creel can be signalled");
    }

    /// As a terminal does on Ctrl-C: to creel and to all that it has not taken out of its process group.
    pub fn signal_group(&self, signal: Signal) {
        rustix::process::kill_process_group(self.pid(), signal).expect("creel's group can be signalled");
    }

    /// Waits until it has ended.
    pub fn finish(self) -> Ended {
        self.finish_within(PATIENCE)
    }

    /// The same for what may take longer than a test should.
    pub fn finish_within(mut self, limit: Duration) -> Ended {
        let ended = wait_for_exit(&pidfd(self.pid()), limit);
        let Some(at) = ended else {
            panic!("still runs after {limit:?}:\n{}\n{}", self.stdout.so_far(), self.stderr.so_far());
        };
        let status = self.child.wait().expect("creel's status");
        // Whoever holds its streams open after its end was left behind.
        let limit = Duration::from_secs(3);
        let (stdout, stderr) = (self.stdout.all(limit), self.stderr.all(limit));
        let stdout = stdout.expect("nobody holds creel's stdout once it has ended");
        let stderr = stderr.expect("nobody holds creel's stderr once it has ended");
        Ended {
            code: status.code(),
            signal: status.signal(),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            at,
            took: at - self.started,
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // After `finish` there is nobody: its number is nobody else's as long as it was not waited for.
        if let Ok(None) = self.child.try_wait() {
            let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    /// What the steps said.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The whole run, for messages of failed assertions.
    pub fn said(&self) -> String {
        const MOST_CHARS: usize = 8000;
        let stdout: String = self.text().chars().take(MOST_CHARS).collect();
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {signal:?}"),
        };
        format!("{how} after {:?}\n--- stdout\n{stdout}\n--- stderr\n{}", self.took, self.stderr)
    }

    /// # Panics
    /// When the exit code is another.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.said());
        self
    }

    /// # Panics
    /// When creel did not say it on stderr.
    #[track_caller]
    pub fn expect_stderr(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "`{text}` is not on stderr: {}", self.said());
        self
    }

    /// # Panics
    /// When it took longer than `limit` from `since` to the end.
    #[track_caller]
    pub fn expect_within(&self, limit: Duration, since: Instant) -> &Self {
        let took = self.at.saturating_duration_since(since);
        assert!(took <= limit, "took {took:?}, {limit:?} are promised: {}", self.said());
        self
    }
}

/// A handle that can't mean another process.
pub fn pidfd(pid: Pid) -> OwnedFd {
    pidfd_open(pid, PidfdFlags::empty()).expect("a process that was not waited for has a pidfd")
}

/// When the process had ended; None if it has not within `limit`.
pub fn wait_for_exit(pidfd: &OwnedFd, limit: Duration) -> Option<Instant> {
    let limit = Timespec::try_from(limit).expect("a limit of seconds");
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return None,
            Ok(_) => return Some(Instant::now()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}
