//! A place for a creeld with all it needs, and the service manager at its other end.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// For what takes milliseconds where nothing else runs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How the tests' machines run: without a trial of KVM.
pub const TCG: &str = "[machine]\naccel = \"tcg\"\nallow_tcg = true\ntransport = \"hybrid\"\n";

/// Directories, configuration, a kit of empty files, a QEMU that tells what it was given, and `NOTIFY_SOCKET`.
pub struct Place {
    pub directory: TempDir,
    notify: UnixDatagram,
    /// As it was told last.
    status: RefCell<String>,
    started: Cell<u32>,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for part in [
            "bin/creel-agent",
            "bin/creel-keeper",
            "bin/vhost-device-vsock",
            "kernel/vmlinux",
            "kernel/release",
        ] {
            let path = at("kit").join(part);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir_all(at("kit/kernel/modules")).unwrap();
        fs::write(at("kit/kernel/modules/order"), "").unwrap();
        let here = directory.path().display();
        let script = format!(
            "#!/bin/sh\nenv >{here}/qemu-environment\nls -l /proc/self/fd >{here}/qemu-descriptors\n\
             echo 'QEMU emulator version 7.2.0'\n"
        );
        fs::write(at("qemu"), script).unwrap();
        fs::set_permissions(at("qemu"), fs::Permissions::from_mode(0o755)).unwrap();
        let notify = UnixDatagram::bind(at("notify")).unwrap();
        let place = Self { directory, notify, status: RefCell::default(), started: Cell::default() };
        place.configure(TCG);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("creel.sock")
    }

    /// Writes the configuration: this place's directories, and `more`.
    pub fn configure(&self, more: &str) {
        let here = self.directory.path().display();
        let text = format!(
            "[daemon]\nsocket = \"{here}/creel.sock\"\n[run]\ndir = \"{here}/run\"\n[state]\ndir = \"{here}/state\"\n\
             [cache]\ndir = \"{here}/cache\"\n[kit]\ndir = \"{here}/kit\"\n[qemu]\npath = \"{here}/qemu\"\n\
             [cgroups]\nmode = \"auto\"\nroot = \"{here}/no-cgroup\"\n{more}"
        );
        fs::write(self.path("creel.toml"), text).unwrap();
    }

    /// creeld with this place's configuration and nothing of the tests' own environment.
    pub fn creeld(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_creeld"));
        self.prepare(&mut command);
        command.arg("--config").arg(self.path("creel.toml"));
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("NOTIFY_SOCKET", self.path("notify"))
            // Its QEMU is a script.
            .env("CREEL_JAIL__MODE", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
    }

    pub fn start(&self, mut command: Command) -> Creeld {
        self.started.set(self.started.get() + 1);
        let log = self.log();
        let stderr = File::create(&log).unwrap();
        Creeld { child: command.stderr(stderr).spawn().unwrap(), log }
    }

    /// The exit code and log of one that must end by itself.
    pub fn run(&self, command: Command) -> (Option<i32>, String) {
        let mut creeld = self.start(command);
        (creeld.ended().code(), creeld.log())
    }

    /// Of the one started last.
    fn log(&self) -> PathBuf {
        self.path(&format!("log-{}", self.started.get()))
    }

    /// As systemd starts an activated service: sockets as descriptors from 3 on, announced by variables that hold the
    /// process's own id. The shell turns into creeld and keeps its pid.
    pub fn start_activated<const N: usize>(&self, sockets: [OwnedFd; N]) -> Creeld {
        let mut command = Command::new("/bin/sh");
        self.prepare(&mut command);
        // They travel as the shell's standard input and output: only these can be handed over without unsafe code.
        let moves = ["exec 3<&0 </dev/null", "exec 3<&0 4<&1 </dev/null >/dev/null"][N - 1];
        command
            .arg("-c")
            .arg(format!("{moves}; LISTEN_PID=$$ LISTEN_FDS={N} LISTEN_FDNAMES=$0 exec \"$@\""))
            .args([["one"; N].join(":").as_str(), env!("CARGO_BIN_EXE_creeld"), "--config"])
            .arg(self.path("creel.toml"));
        let mut sockets = sockets.into_iter();
        command.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
        command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
        self.start(command)
    }

    /// Waits until the status has `text`, and returns it.
    pub fn status_with(&self, text: &str) -> String {
        while !self.status.borrow().contains(text) {
            self.told("STATUS=");
        }
        self.status.borrow().clone()
    }

    /// The next message that has `text`, and when it came. What comes before it is dropped.
    pub fn told(&self, text: &str) -> (String, Instant) {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        let mut buffer = [0; 4096];
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            self.notify.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.notify.recv(&mut buffer) else { break };
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if let Some(status) = message.lines().find_map(|line| line.strip_prefix("STATUS=")) {
                status.clone_into(&mut self.status.borrow_mut());
            }
            if message.contains(text) {
                return (message, Instant::now());
            }
            others.push(message);
        }
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        panic!("creeld never said {text:?}, only {others:?}; its log:\n{log}");
    }
}

/// A running one; killed on drop.
pub struct Creeld {
    child: Child,
    log: PathBuf,
}

impl Creeld {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its end, which must come.
    pub fn ended(&mut self) -> ExitStatus {
        let pidfd =
            rustix::process::pidfd_open(Pid::from_child(&self.child), rustix::process::PidfdFlags::empty());
        let pidfd = pidfd.unwrap();
        let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&limit)).unwrap(), 1, "lives on:\n{}", self.log());
        self.child.wait().unwrap()
    }
}

impl Drop for Creeld {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects, and asks over that connection whether creeld serves: true if it says so.
pub fn ask(socket: &Path) -> JoinHandle<bool> {
    let stream = UnixStream::connect(socket).unwrap();
    thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio.block_on(async { tokio::time::timeout(PATIENCE, health(stream)).await.unwrap() })
    })
}

async fn health(stream: UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut stream = Some(tokio::net::UnixStream::from_std(stream).unwrap());
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(hyper_util::rt::TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::other("connects once")) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://creel");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel).check(request).await.unwrap().into_inner();
    answer.status() == ServingStatus::Serving
}
