//! Agents that say nothing.

use creel::agent::{Loss, Patience, SessionEvent};
use creel_proto::Payload;
use creel_proto::agent::Pong;
use creel_proto::names::ids;
use tokio::time::Instant;

use crate::liar::greeted;

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
