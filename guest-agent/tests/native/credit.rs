//! The side of a host that gives credit (`creel.exec.2`), asks for proofs (`creel.resume.1`) and pings.

use creel_proto::agent::{
    ExecExit, ExecForget, ExecInput, ExecStart, ExecState, ExecWindow, Init, ResumeChallenge,
};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, FrameCodec, Payload};
use futures_util::StreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_util::codec::Framed;

use crate::host::{Host, Session, bounded};

pub const CREDIT_EXTENSIONS: [&str; 6] = [
    extensions::OUTPUT_1,
    extensions::SOURCE_1,
    extensions::SIGNAL_1,
    extensions::EXEC_2,
    extensions::RESUME_1,
    extensions::HEARTBEAT_1,
];

pub const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";
const NONCE: [u8; 32] = [0x5a; 32];

/// What a host lets an exec send ahead.
pub const WINDOW: u64 = 256 << 10;

/// The contract's most for output or input in one message.
pub const MAX_DATA_BYTES: usize = 64 << 10;

pub fn init() -> Init {
    let extensions = CREDIT_EXTENSIONS.map(str::to_owned).to_vec();
    Init { job_id: "job".into(), extensions, ..Default::default() }
}

impl Host {
    /// The agent's next connection as far as Hello.
    pub async fn greeted(&self) -> (Session, creel_proto::agent::Hello) {
        let mut session = Session { stream: Framed::new(self.accept_stream().await, FrameCodec) };
        let hello = session.hello().await;
        (session, hello)
    }

    /// A machine's first connection.
    pub async fn first(&self) -> Session {
        let (mut session, _) = self.greeted().await;
        session.send(ids::INIT, Init { machine_key: KEY.to_vec().into(), ..init() }).await;
        session
    }

    /// A later one, proven.
    pub async fn resume(&self) -> Session {
        let (mut session, hello) = self.greeted().await;
        session.send(ids::RESUME, ResumeChallenge { nonce: NONCE.to_vec().into() }).await;
        let proof = session.receive().await;
        assert_eq!(proof.id(), ids::RESUME);
        let Payload::ResumeProof(proof) = proof.payload else { panic!("{proof:?}") };
        let mut hmac = Hmac::<Sha256>::new_from_slice(&KEY).unwrap();
        hmac.update(b"creel.resume.1");
        hmac.update(&NONCE);
        hmac.update(hello.boot_id.as_bytes());
        hmac.verify_slice(&proof.hmac).expect("the proof is right");
        session.send(ids::INIT, Init { resumed: true, ..init() }).await;
        session
    }

    pub async fn with_credit() -> (Self, Session) {
        let host = Self::start();
        let session = host.first().await;
        (host, session)
    }
}

impl Session {
    /// The next message, or `None` when the agent hangs up.
    pub async fn receive_or_end(&mut self) -> Option<Envelope> {
        bounded("the agent's next message", self.stream.next()).await?.ok()
    }

    /// Waits for the agent to hang up.
    pub async fn is_ended(&mut self) {
        while self.receive_or_end().await.is_some() {}
    }
}

/// What the host knows of one exec. It survives connections.
#[derive(Debug, Default)]
pub struct Exec {
    pub id: String,
    /// stdout and stderr, as far as they came.
    pub output: [Vec<u8>; 2],
    /// How far the agent may send.
    pub limit: [u64; 2],
    pub ended: [bool; 2],
    pub state: Option<ExecState>,
    pub exit: Option<ExecExit>,
    /// Output that came on this connection.
    pub frames: usize,
}

impl Exec {
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// All that came is safe, and `ahead` more is taken.
    pub fn window(&mut self, ahead: u64) -> ExecWindow {
        let [stdout, stderr] = [0, 1].map(|lane| self.output[lane].len() as u64);
        // On one connection it never goes back.
        self.limit = [self.limit[0].max(stdout + ahead), self.limit[1].max(stderr + ahead)];
        ExecWindow {
            stdout_acknowledged: stdout,
            stderr_acknowledged: stderr,
            stdout_limit: self.limit[0],
            stderr_limit: self.limit[1],
        }
    }

    /// Starts it, or attaches to it.
    pub async fn start(&mut self, session: &mut Session, request: ExecStart, ahead: u64) {
        (self.ended, self.state, self.exit, self.frames) = ([false; 2], None, None, 0);
        self.limit = [0; 2];
        let window = Some(self.window(ahead));
        session.send(&self.id, ExecStart { window, ..request }).await;
    }

    pub async fn attach(&mut self, session: &mut Session, ahead: u64) {
        self.start(session, ExecStart { attach: true, ..ExecStart::default() }, ahead).await;
    }

    pub async fn credit(&mut self, session: &mut Session, ahead: u64) {
        let window = self.window(ahead);
        session.send(&self.id, window).await;
    }

    /// Takes a message of this exec: it has to keep every promise.
    pub fn take(&mut self, message: Envelope) {
        assert_eq!(message.id(), self.id);
        let (lane, offset, raw, end) = match message.payload {
            Payload::ExecStdout(output) => (0, output.offset, output.raw, output.end),
            Payload::ExecStderr(output) => (1, output.offset, output.raw, output.end),
            Payload::ExecState(state) => {
                if let Some(before) = self.state {
                    assert!(state.input_limit >= before.input_limit, "a limit never goes back");
                    assert!(state.input_written >= before.input_written);
                }
                self.state = Some(state);
                return;
            }
            Payload::ExecExit(exit) => {
                assert!(self.exit.is_none(), "an exit comes once a connection");
                if !exit.unknown {
                    assert_eq!(self.ended, [true; 2], "an exit comes after both ends");
                    assert_eq!(exit.stdout_bytes, self.output[0].len() as u64);
                    assert_eq!(exit.stderr_bytes, self.output[1].len() as u64);
                }
                self.exit = Some(exit);
                return;
            }
            other => panic!("unexpected {}", other.name()),
        };
        assert!(self.state.is_some(), "the state comes first");
        assert!(!self.ended[lane], "nothing comes after the end");
        assert!(raw.len() <= MAX_DATA_BYTES);
        assert!(end || !raw.is_empty());
        assert_eq!(offset, self.output[lane].len() as u64, "chunks are contiguous");
        self.output[lane].extend_from_slice(&raw);
        assert!(self.output[lane].len() as u64 <= self.limit[lane], "no byte comes behind the limit");
        self.ended[lane] = end;
        self.frames += 1;
    }

    /// Gives credit until the exit has come.
    pub async fn ends(&mut self, session: &mut Session) {
        while self.exit.is_none() {
            self.take(session.receive().await);
            self.credit_if_low(session).await;
        }
    }

    pub async fn credit_if_low(&mut self, session: &mut Session) {
        let low = |lane: usize| self.limit[lane] - (self.output[lane].len() as u64) < WINDOW / 2;
        if low(0) || low(1) {
            self.credit(session, WINDOW).await;
        }
    }

    /// Until stdout shows `text`.
    pub async fn shows(&mut self, session: &mut Session, text: &str) {
        while !self.stdout().contains(text) {
            assert!(self.exit.is_none(), "ended before it showed `{text}`: {self:?}");
            self.take(session.receive().await);
            self.credit_if_low(session).await;
        }
    }

    pub async fn has_state(&mut self, session: &mut Session, wanted: impl Fn(&ExecState) -> bool) {
        while !self.state.as_ref().is_some_and(&wanted) {
            self.take(session.receive().await);
        }
    }

    pub async fn input(&self, session: &mut Session, offset: u64, data: &[u8], end: bool) {
        session.send(&self.id, ExecInput { offset, data: data.to_vec().into(), end }).await;
    }

    pub async fn forget(&self, session: &mut Session) {
        session.send(&self.id, ExecForget {}).await;
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output[0]).into_owned()
    }

    pub fn exit_code(&self) -> i32 {
        self.exit.as_ref().unwrap().exit_code
    }
}

/// Runs one request to its end and forgets it.
pub async fn run(session: &mut Session, id: &str, request: ExecStart) -> Exec {
    let mut exec = Exec::new(id);
    exec.start(session, request, WINDOW).await;
    exec.ends(session).await;
    exec.forget(session).await;
    exec
}

/// xorshift: every byte value in every position, the same in each run.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length.div_ceil(8)).flatten().take(length).collect()
}
