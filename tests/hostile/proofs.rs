//! Who dials a second time.

use creel::agent::{NewcomerError, Patience, SessionEvent};
use creel::runtime::Stream;
use creel_proto::Envelope;
use creel_proto::agent::{ExecExit, ExecStdout, ResumeProof};
use creel_proto::names::{extensions, ids};
use creel_proto::{FrameCodec, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio::time::{Instant, timeout};
use tokio_util::codec::Framed;

use crate::guest::{ALL, hello, proof};
use crate::host::{Host, SOON};
use crate::liar::{LyingAgent, greeted, greeted_with};

/// Another process of the guest.
struct Stranger(Framed<DuplexStream, FrameCodec>);

impl Stranger {
    fn dials(agent: &LyingAgent) -> Self {
        Self(Framed::new(agent.dialer.dial().unwrap(), FrameCodec))
    }

    async fn says(&mut self, id: &str, payload: impl Into<Payload>) {
        let _ = self.0.send(Envelope::new(id, payload)).await;
    }

    async fn is_challenged(&mut self) -> bytes::Bytes {
        self.says(ids::HELLO, hello(&ALL)).await;
        let challenge = timeout(SOON, self.0.next()).await.unwrap().unwrap().unwrap();
        let Payload::ResumeChallenge(challenge) = challenge.payload else { panic!("no challenge") };
        assert_eq!(challenge.nonce.len(), 32);
        challenge.nonce
    }

    async fn hears_no_more(mut self) {
        let heard = timeout(SOON, self.0.next()).await.expect("it is hung up on");
        assert!(heard.is_none_or(|heard| heard.is_err()));
    }
}

async fn refusal(host: &mut Host) -> NewcomerError {
    timeout(SOON, host.refused.recv()).await.unwrap().unwrap()
}

/// The first connection is none the worse.
async fn goes_on(host: &mut Host, agent: &mut LyingAgent) {
    let _reader = host.run("after");
    agent.hear_of("exec_start").await;
    agent.exits("after", 0).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
}

#[tokio::test]
async fn a_proof_that_was_seen_before_is_none() {
    let (mut host, mut agent) = greeted().await;
    // One that somebody saw on the wire.
    let mut first = Stranger::dials(&agent);
    let nonce = first.is_challenged().await;
    let stolen = proof(&agent.key, &nonce);
    drop(first);
    assert!(matches!(refusal(&mut host).await, NewcomerError::Closed));
    let mut second = Stranger::dials(&agent);
    assert_ne!(second.is_challenged().await, nonce);
    second.says(ids::RESUME, ResumeProof { hmac: stolen }).await;
    assert!(matches!(refusal(&mut host).await, NewcomerError::Unproven));
    second.hears_no_more().await;
    goes_on(&mut host, &mut agent).await;
}

#[tokio::test]
async fn another_machine_s_key_proves_nothing() {
    let (mut host, mut agent) = greeted().await;
    let (_other_host, other) = greeted().await;
    assert_ne!(agent.key, other.key);
    let mut stranger = Stranger::dials(&agent);
    let nonce = stranger.is_challenged().await;
    stranger.says(ids::RESUME, ResumeProof { hmac: proof(&other.key, &nonce) }).await;
    assert!(matches!(refusal(&mut host).await, NewcomerError::Unproven));
    goes_on(&mut host, &mut agent).await;
}

#[tokio::test]
async fn who_speaks_otherwise_than_the_agent_is_not_even_challenged() {
    let (mut host, mut agent) = greeted().await;
    let fewer = hello(&[extensions::OUTPUT_1]);
    let another_boot = creel_proto::agent::Hello { boot_id: "another".into(), ..hello(&ALL) };
    for wrong in [fewer, another_boot] {
        let mut stranger = Stranger::dials(&agent);
        stranger.says(ids::HELLO, wrong).await;
        assert!(matches!(refusal(&mut host).await, NewcomerError::Another(_)));
        stranger.hears_no_more().await;
    }
    let mut stranger = Stranger::dials(&agent);
    stranger.says("after", ExecExit::default()).await;
    assert!(matches!(refusal(&mut host).await, NewcomerError::Unexpected { .. }));
    goes_on(&mut host, &mut agent).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_holds_the_door_for_two_seconds() {
    let (mut host, mut agent) = greeted().await;
    let silent = Stranger::dials(&agent);
    let began = Instant::now();
    assert!(matches!(refusal(&mut host).await, NewcomerError::Silent { .. }));
    assert_eq!(began.elapsed(), Patience::default().newcomer);
    silent.hears_no_more().await;
    let mut slow = Stranger::dials(&agent);
    slow.is_challenged().await;
    let began = Instant::now();
    assert!(matches!(refusal(&mut host).await, NewcomerError::Silent { .. }));
    assert_eq!(began.elapsed(), Patience::default().newcomer);
    goes_on(&mut host, &mut agent).await;
}

#[tokio::test]
async fn the_agent_takes_the_place_of_its_own_half_dead_connection() {
    let (mut host, mut agent) = greeted().await;
    let mut reader = host.run("x");
    agent.runs("x").await;
    agent.prints("x", 0, "abc").await;
    assert_eq!(reader.take().await.unwrap().bytes, "abc");
    let (nowhere, _) = tokio::io::duplex(64);
    let mut half_dead = std::mem::replace(&mut agent.wire, Framed::new(nowhere, FrameCodec));
    agent.comes_back().await;
    let start = agent.hear_of("exec_start").await;
    let Payload::ExecStart(start) = start.payload else { unreachable!() };
    assert!(start.attach && start.argv.is_empty());
    assert_eq!(start.window.unwrap().stdout_acknowledged, 3);
    // What the old connection says is for nobody.
    let late = ExecStdout { raw: "late"[..].into(), offset: 3, ..Default::default() };
    let _ = half_dead.send(Envelope::new("x", late)).await;
    agent.prints("x", 3, "def").await;
    agent.exits("x", 6).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    assert_eq!(reader.take().await.unwrap().bytes, "def");
    assert!(reader.take().await.is_none());
}

#[tokio::test]
async fn what_no_reader_has_acknowledged_stays_in_the_guest_and_arrives_once() {
    let (mut host, mut agent) = greeted().await;
    let mut reader = host.run("x");
    agent.runs("x").await;
    agent.prints("x", 0, "abcdef").await;
    assert_eq!(reader.next().await.unwrap().bytes, "abcdef");
    reader.acknowledge(Stream::Stdout, 2).unwrap();
    agent.comes_back().await;
    assert!(matches!(host.event().await, SessionEvent::Away { .. }));
    let Payload::ExecStart(start) = agent.hear_of("exec_start").await.payload else { unreachable!() };
    assert_eq!(start.window.unwrap().stdout_acknowledged, 2, "a host that died now would have lost the rest");
    agent.prints("x", 2, "cdefgh").await;
    agent.exits("x", 8).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    assert_eq!(reader.next().await.unwrap().bytes, "gh");
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn what_the_guest_may_not_have_heard_is_said_again() {
    let (mut host, mut agent) = greeted().await;
    let _ended = host.run("ended");
    agent.runs("ended").await;
    agent.exits("ended", 0).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    let _running = host.run("running");
    agent.runs("running").await;
    let _given_up = host.run("given up");
    agent.runs("given up").await;
    host.session.cancel("given up");
    let _unheard = host.run("unheard of");
    agent.hear_of("exec_start").await;

    agent.dial();
    assert!(matches!(host.event().await, SessionEvent::Away { .. }));
    let _while_away = host.run("while away");
    host.session.signal("running", 10).unwrap();
    agent.comes_back().await;
    let mut heard = Vec::new();
    for _ in 0..7 {
        let message = agent.hear().await;
        let how = match &message.payload {
            Payload::ExecStart(start) if start.attach => "attach".to_owned(),
            Payload::ExecStart(start) => format!("start {}", start.argv.join(" ")),
            other => other.name().to_owned(),
        };
        heard.push(format!("{}: {how}", message.id()));
    }
    heard.sort();
    let expected = [
        "ended: exec_forget",
        "given up: attach",
        "given up: exec_cancel",
        "running: attach",
        "running: exec_signal",
        "unheard of: start program",
        "while away: start program",
    ];
    assert_eq!(heard, expected);
    // One that the guest does not know any more.
    agent.say("running", ExecExit { unknown: true, ..Default::default() }).await;
    let SessionEvent::WorkEnded { id, end } = host.event().await else { panic!("it ended") };
    assert_eq!(id, "running");
    assert!(matches!(end.outcome, creel::runtime::Outcome::AgentLost { .. }));
    agent.say("given up", ExecExit { unknown: true, ..Default::default() }).await;
    agent.exits("while away", 0).await;
    let SessionEvent::WorkEnded { id, .. } = host.event().await else { panic!("it ended") };
    assert_eq!(id, "while away", "nobody hears of one that was given up");
}

#[tokio::test]
async fn an_agent_without_the_extension_has_one_connection() {
    let (mut host, mut agent) =
        greeted_with(&[extensions::OUTPUT_1, extensions::EXEC_2], Patience::default()).await;
    assert!(agent.key.is_empty(), "it could not use a key");
    agent.dial();
    let event = host.event().await;
    assert!(matches!(event, SessionEvent::Closed { .. }), "{event:?}");
}
