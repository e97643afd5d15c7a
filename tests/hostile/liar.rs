//! An agent that says whatever a test wants.

use bytes::Bytes;
use creel::agent::Ending;
use creel::agent::{Patience, SessionEvent, Violation};
use creel::transport::memory;
use creel_proto::agent::{ExecExit, ExecState, ExecStderr, ExecStdout, ExecWindow, Init, ResumeProof};
use creel_proto::names::ids;
use creel_proto::{Envelope, FrameCodec, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::guest::{ALL, hello, proof};
use crate::host::{Host, SOON};

pub(crate) struct LyingAgent {
    pub wire: Framed<DuplexStream, FrameCodec>,
    pub dialer: memory::MemoryDialer,
    pub key: Bytes,
}

/// A host and an agent that have agreed on all there is.
pub(crate) async fn greeted() -> (Host, LyingAgent) {
    greeted_with(&ALL, Patience::default()).await
}

pub(crate) async fn greeted_with(extensions: &[&str], patience: Patience) -> (Host, LyingAgent) {
    let (dialer, listener) = memory::pair();
    let greeting = tokio::spawn(Host::greet(listener, patience));
    let agent = LyingAgent::greets(dialer, extensions).await;
    (greeting.await.unwrap(), agent)
}

impl LyingAgent {
    pub(crate) fn dials(dialer: memory::MemoryDialer) -> Self {
        let wire = Framed::new(dialer.dial().unwrap(), FrameCodec);
        Self { wire, dialer, key: Bytes::new() }
    }

    /// Begins as it should.
    pub(crate) async fn greets(dialer: memory::MemoryDialer, extensions: &[&str]) -> Self {
        let mut agent = Self::dials(dialer);
        agent.say(ids::HELLO, hello(extensions)).await;
        let Payload::Init(Init { machine_key, .. }) = agent.hear().await.payload else { panic!("no Init") };
        agent.key = machine_key;
        agent
    }

    /// Says it with what comes after.
    pub(crate) async fn feeds(&mut self, id: &str, payload: impl Into<Payload>) {
        let _ = timeout(SOON, self.wire.feed(Envelope::new(id, payload))).await.expect("the host reads");
    }

    pub(crate) async fn flushes(&mut self) {
        let _ = timeout(SOON, self.wire.flush()).await.expect("the host reads");
    }

    /// What a host does not read any more is lost.
    pub(crate) async fn say(&mut self, id: &str, payload: impl Into<Payload>) {
        let _ = timeout(SOON, self.wire.send(Envelope::new(id, payload))).await.expect("the host reads");
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.wire.get_mut().write_all(bytes).await;
    }

    pub(crate) async fn hear(&mut self) -> Envelope {
        timeout(SOON, self.wire.next()).await.expect("the host speaks").expect("it is there").unwrap()
    }

    /// Until it is `name`.
    pub(crate) async fn hear_of(&mut self, name: &str) -> Envelope {
        loop {
            let heard = self.hear().await;
            if heard.payload.name() == name {
                return heard;
            }
        }
    }

    /// Hears of an exec and says that it runs. Returns its credit.
    pub(crate) async fn runs(&mut self, id: &str) -> ExecWindow {
        let start = self.hear_of("exec_start").await;
        assert_eq!(start.id(), id);
        let Payload::ExecStart(start) = start.payload else { unreachable!() };
        self.say(id, ExecState { input_closed: true, ..Default::default() }).await;
        start.window.unwrap()
    }

    pub(crate) async fn prints(&mut self, id: &str, offset: u64, bytes: impl Into<Bytes>) {
        self.say(id, ExecStdout { raw: bytes.into(), offset, ..Default::default() }).await;
    }

    pub(crate) async fn complains(&mut self, id: &str, offset: u64, bytes: impl Into<Bytes>) {
        self.say(id, ExecStderr { raw: bytes.into(), offset, ..Default::default() }).await;
    }

    pub(crate) async fn exits(&mut self, id: &str, stdout_bytes: u64) {
        self.say(id, ExecExit { stdout_bytes, ..Default::default() }).await;
    }

    /// Hangs up and dials again.
    pub(crate) fn dial(&mut self) {
        self.wire = Framed::new(self.dialer.dial().unwrap(), FrameCodec);
    }

    /// Hangs up and comes back as the contract has it.
    pub(crate) async fn comes_back(&mut self) {
        self.dial();
        self.say(ids::HELLO, hello(&ALL)).await;
        let Payload::ResumeChallenge(challenge) = self.hear().await.payload else { panic!("no challenge") };
        let hmac = proof(&self.key, &challenge.nonce);
        self.say(ids::RESUME, ResumeProof { hmac }).await;
        let Payload::Init(init) = self.hear().await.payload else { panic!("no Init") };
        assert!(init.resumed && init.machine_key.is_empty());
    }
}

impl Host {
    /// The breach that ends the session. Nothing else ends before.
    pub(crate) async fn violation(&mut self) -> Violation {
        match self.event().await {
            SessionEvent::Closed { why: Ending::Violation(violation) } => violation,
            other => panic!("{other:?}"),
        }
    }
}
