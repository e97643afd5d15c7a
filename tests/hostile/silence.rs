//! Agents that say nothing, and those that do not begin as agents do.

use std::time::Duration;

use creel::agent::{HandshakeError, InitParameters, Loss, Patience, SessionEvent, handshake};
use creel::transport::Listener as _;
use creel::transport::memory;
use creel_proto::agent::{ExecExit, Hello, Pong};
use creel_proto::names::ids;
use creel_proto::{FrameError, Payload};
use tokio::time::Instant;

use crate::guest::{ALL, hello};
use crate::liar::{LyingAgent, greeted};

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_away_and_may_come_back() {
    let (mut host, mut agent) = greeted().await;
    let patience = Patience::default();
    let _reader = host.run("x");
    agent.runs("x").await;
    let began = Instant::now();
    let SessionEvent::Away { why } = host.event().await else { panic!("it is away") };
    assert!(matches!(why, Loss::Silent(_)), "{why}");
    assert!(began.elapsed() >= patience.ping_after + patience.pong_within);
    assert!(host.session.is_away());
    agent.comes_back().await;
    agent.hear_of("exec_start").await;
    assert!(!host.session.is_away());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_answers_is_left_alone() {
    let (mut host, mut agent) = greeted().await;
    let began = Instant::now();
    for sequence in 1..=5 {
        let ping = agent.hear().await;
        let Payload::Ping(ping) = ping.payload else { panic!("{ping:?}") };
        assert_eq!(ping.sequence, sequence);
        agent.say(ids::HEARTBEAT, Pong { sequence }).await;
    }
    assert!(began.elapsed() >= 5 * Patience::default().ping_after);
    // It runs things as ever.
    let _reader = host.run("x");
    agent.runs("x").await;
    agent.exits("x", 0).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
}

const BOUND: Duration = Duration::from_secs(30);

/// What a host makes of an agent that begins so. The agent is there until then.
async fn begins(how: impl AsyncFnOnce(&mut LyingAgent)) -> (HandshakeError, Duration) {
    let (dialer, mut listener) = memory::pair();
    let mut agent = LyingAgent::dials(dialer);
    let connection = listener.accept().await.unwrap();
    let began = Instant::now();
    let greeting = tokio::spawn(handshake(connection, InitParameters::default(), BOUND, Patience::default()));
    how(&mut agent).await;
    let refused = greeting.await.unwrap().map(|_| ()).unwrap_err();
    (refused, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn who_does_not_begin_with_hello_is_not_greeted() {
    let (silent, after) = begins(async |_| {}).await;
    assert!(matches!(silent, HandshakeError::Silent(bound) if bound == BOUND), "{silent}");
    assert_eq!(after, BOUND);
    let (half, _) = begins(async |agent| agent.say_bytes(&[0, 0, 0, 9, 1]).await).await;
    assert!(matches!(half, HandshakeError::Silent(_)), "{half}");
    let (huge, after) = begins(async |agent| agent.say_bytes(&u32::MAX.to_be_bytes()).await).await;
    assert!(matches!(huge, HandshakeError::Frame(FrameError::TooLong { .. })), "{huge}");
    assert!(after < BOUND);
    let (noise, _) = begins(async |agent| agent.say_bytes(&[0, 0, 0, 3, 0xff, 0xff, 0xff]).await).await;
    assert!(matches!(noise, HandshakeError::Frame(FrameError::Undecodable(_))), "{noise}");
    let (other, _) = begins(async |agent| agent.say("x", ExecExit::default()).await).await;
    assert!(matches!(other, HandshakeError::NotHello("exec_exit")), "{other}");
    let late = Hello { protocol_version: 99, ..hello(&ALL) };
    let (version, _) = begins(async |agent| agent.say(ids::HELLO, late).await).await;
    assert!(matches!(version, HandshakeError::Version(99)), "{version}");
    let (closed, _) = begins(async |agent| {
        let (dialer, _listener) = memory::pair();
        *agent = LyingAgent::dials(dialer);
    })
    .await;
    assert!(matches!(closed, HandshakeError::Closed), "{closed}");
}
