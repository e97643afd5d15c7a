//! The host's side of the agent contract, as little of it as tests need.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::future::Future;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use creel_proto::agent::{ExecExit, ExecStart, Hello, Init};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, FrameCodec, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::Framed;

/// What hosts spoke that gave no credit.
pub const PLAIN_EXTENSIONS: [&str; 3] = [extensions::OUTPUT_1, extensions::SOURCE_1, extensions::SIGNAL_1];

/// Everything ends long before; a test that hangs should say where.
const LIMIT: Duration = Duration::from_secs(30);

pub async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took more than {LIMIT:?}"),
    }
}

/// Waits for something that only the file system tells.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(what, wait).await;
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Uid and gid that programs can run as here.
pub fn ids_of_user() -> (u32, u32) {
    match is_root() {
        true => (65534, 65534),
        false => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    }
}

pub fn user() -> String {
    let (uid, gid) = ids_of_user();
    format!("{uid}:{gid}")
}

/// A running agent and the socket that it dials.
pub struct Host {
    directory: TempDir,
    listener: UnixListener,
    pub agent: Child,
}

impl Host {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// In a mount namespace in which the workflow user exists: whom programs run as here, at home in `home` of the host's
    /// directory.
    pub fn start_with_workflow_user() -> Self {
        let namespaces: &[&str] = match is_root() {
            true => &["unshare", "--mount"],
            false => &["unshare", "--user", "--map-current-user", "--keep-caps", "--mount"],
        };
        let host = Self::start_under(namespaces, r#"mount --bind "$2/passwd" /etc/passwd && "#, &[]);
        let home = host.writable("home");
        assert_eq!(home, host.directory().join("home"));
        host
    }

    pub fn start_with(env: &[(&str, &Path)]) -> Self {
        Self::start_under(&[], "", env)
    }

    fn start_under(wrapper: &[&str], before: &str, env: &[(&str, &Path)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (uid, gid) = ids_of_user();
        let home = directory.path().join("home");
        let passwd = format!("spindle-workflow:x:{uid}:{gid}::{}:/bin/sh\n", home.display());
        fs::write(directory.path().join("passwd"), passwd).unwrap();
        // An agent that was started badly: with a signal ignored and a descriptor left open.
        let script = format!(r#"trap "" HUP; {before} exec "$0" --connect "unix:$1" 9</dev/null"#);
        let words: Vec<&str> = wrapper.iter().copied().chain(["/bin/sh", "-c", &script]).collect();
        let agent = Command::new(words[0])
            .args(&words[1..])
            .args([env!("CARGO_BIN_EXE_creel-agent").as_ref(), socket.as_os_str()])
            .arg(directory.path())
            .envs(env.iter().copied())
            .env("ONLY_THE_AGENTS", "yes")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { directory, listener, agent }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A new directory that programs may write to.
    pub fn writable(&self, name: &str) -> PathBuf {
        let directory = self.directory.path().join(name);
        fs::create_dir(&directory).unwrap();
        let (uid, gid) = ids_of_user();
        chown(&directory, Some(uid), Some(gid)).unwrap();
        directory
    }

    /// The agent's next connection, before Hello.
    pub async fn accept_stream(&self) -> UnixStream {
        bounded("the agent's dial", self.listener.accept()).await.unwrap().0
    }

    /// The agent's next connection after the handshake.
    pub async fn accept_with(&self, extensions: &[&str]) -> Session {
        let mut session = Session { stream: Framed::new(self.accept_stream().await, FrameCodec) };
        let hello = session.receive().await;
        assert_eq!(hello.id(), ids::HELLO);
        assert!(matches!(hello.payload, Payload::Hello(_)));
        let extensions = extensions.iter().map(ToString::to_string).collect();
        session.send(ids::INIT, Init { job_id: "job".into(), extensions, ..Default::default() }).await;
        session
    }

    pub async fn accept(&self) -> Session {
        self.accept_with(&PLAIN_EXTENSIONS).await
    }

    /// A new agent with one session of a host that gives no credit.
    pub async fn with_session() -> (Self, Session) {
        let host = Self::start();
        let session = host.accept().await;
        (host, session)
    }
}

impl Host {
    /// The cgroups that the agent has made and not removed.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let prefix = format!("creel-{}-", self.agent.id());
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let entries = mounts.into_iter().filter_map(|mount| fs::read_dir(mount).ok()).flatten().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        own.map(|entry| entry.path()).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        for cgroup in self.cgroups() {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            // The killed take a moment, and nothing but this directory depends on it.
            for _ in 0..100 {
                match fs::remove_dir(&cgroup) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
                    _ => break,
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// What came of one exec.
#[derive(Debug, Default)]
pub struct Ended {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: ExecExit,
}

impl Ended {
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

pub struct Session {
    pub stream: Framed<UnixStream, FrameCodec>,
}

impl Session {
    pub async fn send(&mut self, id: &str, payload: impl Into<Payload>) {
        bounded("sending", self.stream.send(Envelope::new(id, payload))).await.unwrap();
    }

    pub async fn receive(&mut self) -> Envelope {
        bounded("the agent's next message", self.stream.next()).await.expect("the agent hung up").unwrap()
    }

    pub async fn hello(&mut self) -> Hello {
        match self.receive().await.payload {
            Payload::Hello(hello) => hello,
            other => panic!("expected hello, got {}", other.name()),
        }
    }

    /// Receives until all of `ids` have ended. Nothing may come for an exec after its exit, and offsets
    /// must leave no gap.
    pub async fn ends(&mut self, ids: &[&str]) -> BTreeMap<String, Ended> {
        let mut running: BTreeMap<String, Ended> =
            ids.iter().map(|id| (id.to_string(), Ended::default())).collect();
        let mut ended = BTreeMap::new();
        while !running.is_empty() {
            let message = self.receive().await;
            let id = message.id().to_owned();
            let exec = running.get_mut(&id).unwrap_or_else(|| panic!("`{id}` does not run: {message:?}"));
            match message.payload {
                Payload::ExecStdout(out) => append(&mut exec.stdout, &out.data, &out.raw, out.offset),
                Payload::ExecStderr(out) => append(&mut exec.stderr, &out.data, &out.raw, out.offset),
                Payload::ExecExit(exit) => {
                    exec.exit = exit;
                    ended.extend(running.remove_entry(&id));
                }
                other => panic!("unexpected {}", other.name()),
            }
        }
        ended
    }

    pub async fn end(&mut self, id: &str) -> Ended {
        self.ends(&[id]).await.remove(id).unwrap()
    }

    /// Runs one request to its end.
    pub async fn exec(&mut self, request: ExecStart) -> Ended {
        self.send("exec", request).await;
        self.end("exec").await
    }
}

fn append(stream: &mut Vec<u8>, data: &str, raw: &[u8], offset: u64) {
    assert!(data.is_empty() != raw.is_empty(), "either text or bytes, and never nothing");
    assert!(raw.len() <= 32 << 10);
    if !raw.is_empty() {
        assert_eq!(offset, stream.len() as u64, "chunks are contiguous");
    }
    stream.extend_from_slice(data.as_bytes());
    stream.extend_from_slice(raw);
}

/// A request for a shell script.
pub fn sh(script: &str) -> ExecStart {
    argv(&["/bin/sh", "-c", script])
}

pub fn argv(argv: &[&str]) -> ExecStart {
    let argv = argv.iter().map(ToString::to_string).collect();
    ExecStart { argv, user: user(), ..Default::default() }
}
