//! A daemon that the bench starts, and ends by its pid whatever happens.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use creel::host::PidFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::net::UnixDatagram;

use crate::row::{Failed, Trying as _};

/// Both daemons clean up after themselves: containers, machines, mounts.
const END: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// A daemon of the sd_notify(3) kind. Dropped, it is told to end and waited for.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `command` and waits until it says that it is ready. Its log lies in `directory`.
    ///
    /// # Errors
    /// With the last words of its log.
    pub async fn start(
        name: &'static str,
        mut command: Command,
        directory: &Path,
        ready_within: Duration,
    ) -> Result<Self, Failed> {
        let log = directory.join(format!("{name}.log"));
        let notify = directory.join(format!("{name}.notify"));
        let socket = UnixDatagram::bind(&notify).trying("listen for a daemon's readiness")?;
        let file = File::create(&log).trying(&format!("make `{}`", log.display()))?;
        command
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(file.try_clone().trying("share a log")?)
            .stderr(file)
            // Ctrl-C is the bench's: it ends its daemons in order.
            .process_group(0);
        let child = command.spawn().trying(&format!("start {name} ({:?})", command.get_program()))?;
        let service = Self { name, child, log };
        let ready = async {
            let mut message = [0; 4096];
            loop {
                let length = socket.recv(&mut message).await.trying("hear from a daemon")?;
                if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1") {
                    return Ok(());
                }
            }
        };
        let ended = service.ended();
        let outcome = tokio::select! {
            ready = ready => ready,
            () = ended => Err(Failed::new(format!("{name} ended while it started"))),
            () = tokio::time::sleep(ready_within) => {
                Err(Failed::new(format!("{name} was not ready in {ready_within:?}")))
            }
        };
        match outcome {
            Ok(()) => Ok(service),
            Err(why) => Err(Failed::new(format!("{why}; its last words: {}", service.last_words()))),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log, on one line.
    pub fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Waits for its end.
    async fn ended(&self) {
        if let Ok(pidfd) = PidFd::open(Pid::from_child(&self.child)) {
            let _ = pidfd.ended().await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
            let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&END)), Ok(1..)) {
                eprintln!("creel-bench: {} (pid {}) does not end and is killed", self.name, self.pid());
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

/// A command whose process the kernel ends should the bench be killed: prctl(2), PR_SET_PDEATHSIG.
pub fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}
