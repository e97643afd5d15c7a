//! A creeld of the test's own: without systemd, on the sandbox's socket.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::processes::wait_until;
use super::sandbox::Sandbox;

/// Machines that are being ended have ten seconds for it, and twenty to spare.
const END: Duration = Duration::from_secs(40);

/// It runs emulated guests without limits: that is what this kind of host has. Dropped, it is told to end.
#[derive(Debug)]
pub struct Daemon<'a> {
    sandbox: &'a Sandbox,
    child: Option<Child>,
}

impl<'a> Daemon<'a> {
    pub fn start(sandbox: &'a Sandbox) -> Self {
        Self::start_with(sandbox, &[])
    }

    /// One with these variables, which stand above its configuration.
    pub fn start_with(sandbox: &'a Sandbox, variables: &[(&str, &str)]) -> Self {
        let program = sandbox.world().program.with_file_name("creeld");
        Self::start_as(sandbox, Command::new(program), variables)
    }

    /// One that sees `groups`, in the form of group(5), in place of this host's. Takes root.
    pub fn start_with_groups(sandbox: &'a Sandbox, groups: &str) -> Self {
        let file = sandbox.root().join("group");
        std::fs::write(&file, groups).expect("a file of groups");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-c", "mount --bind \"$1\" /etc/group && exec \"$2\"", "sh"])
            .arg(file)
            .arg(sandbox.world().program.with_file_name("creeld"));
        Self::start_as(sandbox, command, &[])
    }

    /// One whose work ends or fails at these places (`creel::failpoint`): the build of the tests, since a release has none.
    pub fn start_to_fail(sandbox: &'a Sandbox, failpoints: &str) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_creeld"));
        Self::start_as(sandbox, program, &[("CREEL_FAILPOINTS", failpoints)])
    }

    fn start_as(sandbox: &'a Sandbox, mut command: Command, variables: &[(&str, &str)]) -> Self {
        sandbox.settle_in(&mut command);
        let log = std::fs::File::options().create(true).append(true).open(log_path(sandbox)).expect("a log");
        command
            .env("CREEL_MACHINE__ALLOW_TCG", "true")
            .env("CREEL_MACHINE__TRANSPORT", "hybrid")
            .env("CREEL_CGROUPS__MODE", "auto")
            // Not the host's: a creeld ends what it finds there.
            .env("CREEL_CGROUPS__ROOT", sandbox.root().join("no-cgroup"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let daemon = Self { sandbox, child: Some(child) };
        // Named, since without a daemon `creel ps` lists what there is else.
        let socket = sandbox.daemon_socket();
        let asked = ["ps".as_ref(), "--socket".as_ref(), socket.as_os_str()];
        wait_until(Duration::from_secs(10), "creeld answers", || daemon.output(asked).code == 0);
        daemon
    }

    /// What `creel` says and ends with.
    pub fn output<T: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = T>) -> Said {
        let output = self.sandbox.creel(arguments).output().expect("creel runs");
        Said {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A machine's id.
    pub fn create(&self, image: &str) -> String {
        let said = self.output(["create", "--image", image]);
        assert_eq!(said.code, 0, "{said:?}\n{}", self.log());
        said.stdout.trim().to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(log_path(self.sandbox)).unwrap_or_default()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// SIGKILL; returns when it is dead.
    pub fn kill(mut self) {
        kill_process(self.pid(), Signal::KILL).expect("it runs");
        let _ = self.child.take().expect("it runs").wait();
    }

    /// Waits for the end of one that has been told to kill itself.
    pub fn has_died(mut self) {
        let mut child = self.child.take().expect("it was started");
        let mut status = None;
        wait_until(Duration::from_secs(10), "creeld has died", || {
            status = child.try_wait().expect("its status");
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.signal()), Some(9), "{}", self.log());
    }

    /// SIGTERM; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.end()
    }

    fn end(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let mut status = None;
        wait_until(END, "creeld ends", || {
            status = child.try_wait().expect("its status");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("creeld's log:\n{}", self.log());
            if let Some(mut child) = self.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        } else {
            self.end();
        }
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

fn log_path(sandbox: &Sandbox) -> impl AsRef<Path> {
    sandbox.work_dir().join("creeld.log")
}
