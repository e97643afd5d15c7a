//! An agent that keeps to the contract, in-process: its execs outlive its connections, and what it can send again is what
//! was not acknowledged.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use creel_proto::agent::{
    ExecExit, ExecInput, ExecStart, ExecState, ExecStdout, ExecWindow, Hello, Init, Pong, ResumeProof,
};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, FrameCodec, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::codec::Framed;

pub(crate) const BOOT_ID: &str = "5f2c4c4e-0d0c-4a3e-8b57-8a1d6a2f6a11";

pub(crate) const ALL: [&str; 6] = [
    extensions::OUTPUT_1,
    extensions::SIGNAL_1,
    extensions::EXEC_2,
    extensions::RESUME_1,
    extensions::HEARTBEAT_1,
    extensions::FILES_1,
];

/// What the agent keeps of a stream until it is acknowledged.
const RING_BYTES: u64 = 256 << 10;

/// What the agent keeps of input until the program reads it.
const INPUT_BYTES: u64 = 64 << 10;

const CHUNK_BYTES: u64 = 32 << 10;

/// A prime: no chunk's length divides it, so a piece in a wrong place is seen.
const PATTERN_BYTES: usize = 1_048_573;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let once: Vec<u8> = (0..PATTERN_BYTES).map(|_| next()).collect();
    Bytes::from([&once[..], &once[..]].concat())
});

/// What programs write from `offset` on.
pub(crate) fn pattern(offset: u64, length: u64) -> Bytes {
    let start = usize::try_from(offset % PATTERN_BYTES as u64).unwrap();
    PATTERN.slice(start..start + usize::try_from(length).unwrap())
}

/// What a program does, known by its id.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Program {
    /// How much of [`pattern`] it writes.
    pub writes: u64,
    /// Waits for its input's end before it exits with how much of it was [`pattern`].
    pub reads: bool,
}

#[derive(Debug)]
struct Exec {
    program: Program,
    /// On whatever connection.
    ever_sent: u64,
    /// On this one, or acknowledged before.
    sent: u64,
    acknowledged: u64,
    limit: u64,
    read: u64,
    input_ended: bool,
    told: bool,
    /// On this connection.
    attached: bool,
}

impl Exec {
    fn sendable(&self) -> u64 {
        let kept = self.program.writes.min(self.acknowledged + RING_BYTES);
        if self.attached { kept.min(self.limit).saturating_sub(self.sent) } else { 0 }
    }

    fn has_ended(&self) -> bool {
        self.sent == self.program.writes && (self.input_ended || !self.program.reads)
    }

    fn state(&self) -> ExecState {
        ExecState {
            input_written: self.read,
            input_limit: self.read + INPUT_BYTES,
            input_closed: !self.program.reads,
        }
    }

    fn heed(&mut self, window: &ExecWindow) {
        assert!(window.stdout_acknowledged >= self.acknowledged, "an acknowledgement went back");
        assert!(window.stdout_acknowledged <= self.ever_sent, "the host has what was never sent");
        self.acknowledged = window.stdout_acknowledged;
        // What is safe is not sent again.
        self.sent = self.sent.max(self.acknowledged);
        self.limit = window.stdout_limit;
    }
}

/// The agent, whatever connection it is on.
pub(crate) struct ScriptedGuest {
    pub extensions: Vec<&'static str>,
    pub programs: fn(&str) -> Program,
    key: Bytes,
    execs: HashMap<String, Exec>,
}

impl ScriptedGuest {
    pub(crate) fn new(programs: fn(&str) -> Program) -> Self {
        Self { extensions: ALL.to_vec(), programs, key: Bytes::new(), execs: HashMap::new() }
    }

    /// Serves one connection until it breaks.
    pub(crate) async fn serve(&mut self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut wire = Framed::new(stream, FrameCodec);
        self.execs.values_mut().for_each(|exec| exec.attached = false);
        self.greet(&mut wire).await?;
        loop {
            let sends = self.execs.values().any(|exec| exec.sendable() > 0);
            tokio::select! {
                biased;
                message = wire.next() => {
                    let message = message.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)?;
                    self.hear(&mut wire, message).await?;
                }
                () = std::future::ready(()), if sends => {}
            }
            self.write_once(&mut wire).await?;
        }
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Framed<S, FrameCodec>,
    ) -> io::Result<()> {
        say(wire, ids::HELLO, hello(&self.extensions)).await?;
        loop {
            let message = wire.next().await.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)?;
            match message.payload {
                Payload::Init(Init { resumed: true, .. }) => return Ok(()),
                Payload::Init(init) => {
                    assert!(self.key.is_empty(), "a key is given once");
                    self.key = init.machine_key;
                    return Ok(());
                }
                Payload::ResumeChallenge(challenge) => {
                    let hmac = proof(&self.key, &challenge.nonce);
                    say(wire, ids::RESUME, ResumeProof { hmac }).await?;
                }
                other => panic!("the host begins with {}", other.name()),
            }
        }
    }

    async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Framed<S, FrameCodec>,
        message: Envelope,
    ) -> io::Result<()> {
        let id = message.id().to_owned();
        match message.payload {
            Payload::ExecStart(start) => return self.start(wire, &id, &start).await,
            Payload::ExecWindow(window) => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    assert!(window.stdout_limit >= exec.limit, "a limit went back");
                    exec.heed(&window);
                }
            }
            Payload::ExecInput(ExecInput { offset, data, end }) => {
                let Some(exec) = self.execs.get_mut(&id) else { return Ok(()) };
                assert!(offset <= exec.read, "a gap in the input");
                assert!(data.len() <= 64 << 10);
                let new = data.slice(usize::try_from(exec.read - offset).unwrap().min(data.len())..);
                assert_eq!(new, pattern(exec.read, new.len() as u64), "the input is what was sent");
                exec.read += new.len() as u64;
                exec.input_ended |= end;
                let state = exec.state();
                say(wire, &id, state).await?;
            }
            Payload::ExecCancel(_) => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.program = Program { writes: exec.sent, reads: false };
                }
            }
            Payload::ExecForget(_) => drop(self.execs.remove(&id)),
            Payload::Ping(ping) => say(wire, &id, Pong { sequence: ping.sequence }).await?,
            other => panic!("the host says {}", other.name()),
        }
        Ok(())
    }

    async fn start<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Framed<S, FrameCodec>,
        id: &str,
        start: &ExecStart,
    ) -> io::Result<()> {
        let window = start.window.expect("it is required");
        if start.attach && !self.execs.contains_key(id) {
            return say(wire, id, ExecExit { unknown: true, ..Default::default() }).await;
        }
        let exec = self.execs.entry(id.to_owned()).or_insert_with(|| Exec {
            program: (self.programs)(id),
            ever_sent: 0,
            sent: 0,
            acknowledged: 0,
            limit: 0,
            read: 0,
            input_ended: false,
            told: false,
            attached: true,
        });
        exec.heed(&window);
        (exec.sent, exec.attached, exec.told) = (window.stdout_acknowledged, true, false);
        let state = exec.state();
        say(wire, id, state).await
    }

    /// One chunk of each exec that has credit, and the exits that are due.
    async fn write_once<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Framed<S, FrameCodec>,
    ) -> io::Result<()> {
        for (id, exec) in &mut self.execs {
            let length = exec.sendable().min(CHUNK_BYTES);
            if length > 0 {
                let offset = exec.sent;
                exec.sent += length;
                exec.ever_sent = exec.ever_sent.max(exec.sent);
                let end = exec.sent == exec.program.writes;
                let chunk = ExecStdout { raw: pattern(offset, length), offset, end, ..Default::default() };
                say(wire, id, chunk).await?;
            }
            if exec.attached && exec.has_ended() && !exec.told {
                exec.told = true;
                let exit = ExecExit { stdout_bytes: exec.sent, ..Default::default() };
                say(wire, id, exit).await?;
            }
        }
        Ok(())
    }
}

pub(crate) fn hello(extensions: &[&str]) -> Hello {
    Hello {
        protocol_version: 1,
        boot_id: BOOT_ID.into(),
        extensions: extensions.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

/// What the contract asks of whoever dials later.
pub(crate) fn proof(key: &[u8], nonce: &[u8]) -> Bytes {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    hmac.update(&[b"creel.resume.1", nonce, BOOT_ID.as_bytes()].concat());
    hmac.finalize().into_bytes().to_vec().into()
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Framed<S, FrameCodec>,
    id: &str,
    payload: impl Into<Payload>,
) -> io::Result<()> {
    wire.send(Envelope::new(id, payload)).await.map_err(io::Error::other)
}

/// A connection that breaks after so many bytes in one direction, in the middle of a frame as like as not.
pub(crate) struct Breaks {
    pub stream: DuplexStream,
    pub written_left: usize,
    pub read_left: usize,
}

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut bytes = [0; 4096];
        let most = buffer.remaining().min(self.read_left).min(bytes.len());
        let mut part = ReadBuf::new(&mut bytes[..most]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        self.read_left -= part.filled().len();
        buffer.put_slice(part.filled());
        read
    }
}

impl AsyncWrite for Breaks {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.written_left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let part = &bytes[..bytes.len().min(self.written_left)];
        let written = Pin::new(&mut self.stream).poll_write(cx, part);
        if let Poll::Ready(Ok(count)) = written {
            self.written_left -= count;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
