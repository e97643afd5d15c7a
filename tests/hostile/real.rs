//! Both ends as they are: creel's agent, a process of its own, and the host's session and log, over a connection that breaks
//! again and again.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use creel::agent::{Patience, SessionEvent};
use creel::runtime::streams::output;
use creel::runtime::{ExecRequest, ExecStreams, Outcome, Work};
use creel::state::log::{Limits, LogStore, Mask, Payload, Stream};
use creel::transport::memory;
use creel::workflow::recorder::Recorder;
use sha2::{Digest as _, Sha256};
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::guest::{Breaks, pattern};
use crate::host::{Host, SOON};

const OUTPUT: usize = 100 << 20;
const CUTS: u32 = 200;

const SECRET: &str = "correct-horse-battery-staple";

/// The kit's agent. `None` where there is no kit and none is demanded.
fn agent() -> Option<PathBuf> {
    let kit = std::env::var_os("CREEL_KIT__DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kit"), PathBuf::from);
    let agent = kit.join("bin/creel-agent");
    if agent.exists() {
        return Some(agent);
    }
    let demanded = ["CI", "CREEL_REQUIRE_MICROVM"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!demanded, "there is no `{}`: run `make kit`", agent.display());
    eprintln!("NOT TESTED: there is no `{}`; `make kit` makes it", agent.display());
    None
}

/// An agent that is ended with its test.
struct Running(Child);

impl Running {
    fn start(agent: &Path, socket: &Path) -> Self {
        let mut command = Command::new(agent);
        command.arg("--connect").arg(format!("unix:{}", socket.display()));
        // It says of each break what it is.
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("the agent starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes each of the agent's connections on to the host; the first `CUTS` break somewhere.
async fn relay(listener: UnixListener, dialer: memory::MemoryDialer, seed: u64, broken: Arc<AtomicU32>) {
    let mut random = seed;
    let mut bytes = |most: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % most).unwrap()
    };
    // All together stay within the output.
    let every = OUTPUT as u64 / u64::from(3 * CUTS);
    for connection in 0.. {
        let (mut agent, _) = listener.accept().await.unwrap();
        let stream = dialer.dial().unwrap();
        let (written_left, read_left) = match connection {
            // Until the host has heard of its exec.
            0 => (1000 + bytes(every), usize::MAX),
            _ if connection >= CUTS => (usize::MAX, usize::MAX),
            // In what the host says: a challenge, an Init, credit.
            _ if connection % 8 == 0 => (usize::MAX, 200 + bytes(300)),
            _ => (bytes(every), usize::MAX),
        };
        let mut host = Breaks { stream, written_left, read_left };
        let _ = tokio::io::copy_bidirectional(&mut agent, &mut host).await;
        broken.store(connection + 1, Ordering::Relaxed);
    }
}

/// What a step writes: noise, with the secret now and then, and what the log is to have of it.
fn written() -> (Vec<u8>, Vec<u8>) {
    let (mut written, mut expected) = (Vec::with_capacity(OUTPUT), Vec::with_capacity(OUTPUT));
    let mut offset = 0;
    while written.len() < OUTPUT {
        // Primes: the secret lies across every border in turn.
        let noise = pattern(offset, 99_991);
        offset += 99_991;
        for text in [&mut written, &mut expected] {
            text.extend_from_slice(&noise);
        }
        written.extend_from_slice(SECRET.as_bytes());
        expected.extend_from_slice(b"***");
    }
    (written, expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_s_log_is_complete_undoubled_and_masked_over_two_hundred_breaks() {
    let Some(agent) = agent() else { return };
    let seed = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    eprintln!("seed {seed:#x}");
    let directory = tempfile::tempdir().unwrap();
    // The agent's programs are another user's where the test is root's.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (text, expected) = written();
    let file = directory.path().join("text");
    std::fs::File::create(&file).unwrap().write_all(&text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();

    let socket = directory.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let (dialer, host) = memory::pair();
    let broken = Arc::<AtomicU32>::default();
    let relaying = tokio::spawn(relay(listener, dialer, seed, Arc::clone(&broken)));
    let running = Running::start(&agent, &socket);
    let mut host = Host::greet(host, Patience::default()).await;

    let limits = Limits { max_step_bytes: 4 * OUTPUT as u64, max_total_bytes: 4 * OUTPUT as u64 };
    let mask = Mask::new(&[SECRET]).unwrap();
    let log = LogStore::create(&directory.path().join("log"), limits, mask).unwrap();
    let recorder = Recorder::new(log.appender(0, Stream::Stdout), log.appender(0, Stream::Stderr));
    let (output, reader) = output();
    let work = Work::Program {
        argv: vec!["/bin/sh".into(), "-c".into(), format!("cat {}; exit 7", file.display())],
        env: Vec::new(),
        cwd: "/".into(),
        user: "nobody".into(),
        terminal: None,
    };
    let request = ExecRequest { id: "step".into(), work, deadline: None };
    host.session.begin(request, ExecStreams { input: None, output }).unwrap();
    let recording = tokio::spawn(recorder.record(reader));
    let outcome = loop {
        match timeout(SOON, host.event()).await.expect("it goes on") {
            SessionEvent::WorkEnded { id, end } if id == "step" => break end.outcome,
            SessionEvent::Away { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome, Outcome::Exited { code: 7 });
    timeout(SOON, recording).await.unwrap().unwrap().unwrap();
    log.seal().unwrap();

    let (mut follower, mut logged, mut length) = (log.follow(0), Sha256::new(), 0);
    while let Some(record) = follower.next().await {
        if let Payload::Data { bytes, .. } = record.unwrap().payload {
            assert!(expected[length..].starts_with(&bytes), "other bytes at offset {length}");
            logged.update(&bytes);
            length += bytes.len();
        }
    }
    assert_eq!((length, logged.finalize()), (expected.len(), Sha256::digest(&expected)));
    let broken = broken.load(Ordering::Relaxed);
    eprintln!("{broken} breaks");
    assert!(broken >= CUTS, "{broken} breaks");
    relaying.abort();
    drop(running);
}
