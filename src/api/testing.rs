//! A daemon's API on a real socket, over machines that follow a script.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::{Client, NewMachine, Progress, RolePolicy, Server};
use crate::image::ImageStore;
use crate::machines::{Lifetime, Machines, State, Summary};
use crate::runtime::fake::{Death, FakeConsole, FakeRuntime, Journal, ScriptedExec, ScriptedSetup};
use crate::state::records::{Records, Retention};
use crate::workflows::{Bounds, Settings, Workflows};

/// It ends with this value: the server as if its process had been killed.
pub(crate) struct World {
    pub directory: tempfile::TempDir,
    pub machines: Machines,
    pub workflows: Workflows,
    pub journal: Journal,
    pub death: Death,
    pub console: FakeConsole,
    pub shutdown: CancellationToken,
    pub served: Option<tokio::task::JoinHandle<Result<(), tonic::transport::Error>>>,
    daemon: Option<tokio::runtime::Runtime>,
    roles: RolePolicy,
}

pub(crate) fn operators() -> RolePolicy {
    let uid = rustix::process::geteuid().as_raw();
    RolePolicy { operator_uids: vec![uid], operator_gid: None, spindle_gid: None }
}

/// So few that a test can go beyond them.
pub(crate) fn retention() -> Retention {
    Retention { max_runs: 8, ..Retention::default() }
}

pub(crate) fn settings(slots: usize) -> Settings {
    Settings {
        slots,
        workflow_timeout: Duration::from_secs(3600),
        default_image: "tiny".into(),
        step_log_bytes: 1 << 20,
    }
}

impl World {
    pub fn new(setup: ScriptedSetup, execs: impl IntoIterator<Item = ScriptedExec>) -> Self {
        Self::with_roles(FakeRuntime::new(setup, execs), operators())
    }

    pub fn with_roles(runtime: FakeRuntime, roles: RolePolicy) -> Self {
        Self::with(runtime, roles, tempfile::tempdir().unwrap(), Bounds::default())
    }

    /// Over the directory of an earlier one. The server has threads of its own, as it has in life.
    pub fn with(
        runtime: FakeRuntime,
        roles: RolePolicy,
        directory: tempfile::TempDir,
        bounds: Bounds,
    ) -> Self {
        let (journal, death, console) = (runtime.journal(), runtime.death(), runtime.console());
        let machines = Machines::new(Arc::new(runtime), 4);
        let images = ImageStore::new(vec![directory.path().join("images")]);
        let records = Records::new(&directory.path().join("state")).keeping(retention());
        let workflows = Workflows::new(machines.clone(), images.clone(), records, settings(2), bounds);
        let scratch = directory.path().to_owned();
        let server = Server {
            machines: machines.clone(),
            workflows: Some(workflows.clone()),
            images,
            scratch,
            roles: roles.clone(),
        };
        let daemon =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let _ = std::fs::remove_file(directory.path().join("s"));
        let listener = {
            let _inside = daemon.enter();
            tokio::net::UnixListener::bind(directory.path().join("s")).unwrap()
        };
        let served = Some(daemon.spawn(server.serve(listener, shutdown.clone())));
        let daemon = Some(daemon);
        Self { directory, machines, workflows, journal, death, console, shutdown, served, daemon, roles }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// A daemon over the state of this one, which dies first.
    pub fn restarted(mut self, runtime: FakeRuntime) -> Self {
        self.kill_daemon();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        Self::with(runtime, self.roles.clone(), directory, Bounds::default())
    }

    /// An image `tiny` that plans can be made for.
    pub fn put_image(&self) {
        let directory = self.directory.path().join("images/tiny");
        std::fs::create_dir_all(&directory).unwrap();
        let spec = r#"{"arch": "x86_64", "bootArgs": "quiet", "kernel": "k", "initrd": "k", "storeDisk": "k",
            "runnerConfig": {"machine": "microvm"}, "memoryMiB": 64, "vcpus": 1, "shell": "/bin/sh"}"#;
        std::fs::write(directory.join("spec.json"), spec).unwrap();
        std::fs::write(directory.join("k"), "kernel").unwrap();
    }

    /// A connection of another user, by the kernel's word: the peer's uid is that of the thread that connects
    /// (unix(7), `SO_PEERCRED`), and root's threads can change theirs.
    pub async fn channel_as(&self, uid: u32) -> Channel {
        assert!(rustix::process::geteuid().is_root(), "this test must run as root, to become another user");
        for path in [self.directory.path().to_owned(), self.socket()] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let socket = self.socket();
        let connecting = std::thread::spawn(move || {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            std::os::unix::net::UnixStream::connect(socket).unwrap()
        });
        let stream = connecting.join().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = Some(tokio::net::UnixStream::from_std(stream).unwrap());
        let connector = tower::service_fn(move |_| {
            let stream = stream.take().map(hyper_util::rt::TokioIo::new);
            std::future::ready(stream.ok_or_else(|| std::io::Error::other("it connects once")))
        });
        Endpoint::from_static("http://creel").connect_with_connector(connector).await.unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.socket()).await.unwrap()
    }

    /// A detached machine that is ready.
    pub async fn machine(&self, client: &Client) -> Summary {
        let mut creating =
            client.create(new_machine(Lifetime::Detached { max_age: None }), None).await.unwrap();
        loop {
            if let Some(Progress::Ready(machine)) = creating.next().await.unwrap() {
                assert_eq!(machine.state, State::Ready);
                return machine;
            }
        }
    }

    /// Waits until so many live.
    pub async fn living(&self, count: usize) {
        self.machines.counts().wait_for(|counts| counts.living() == count).await.unwrap();
    }

    /// Closes all of the server's descriptors, as its death does.
    pub fn kill_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.shutdown_background();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_daemon();
    }
}

pub(crate) fn new_machine(lifetime: Lifetime) -> NewMachine {
    NewMachine {
        image: "tiny".into(),
        lifetime,
        memory_mib: None,
        vcpus: None,
        memory_limit_mib: None,
        setup_timeout: None,
        workflow_id: Some("w".into()),
    }
}
