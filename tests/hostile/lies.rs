//! Each lie ends the connection with its own error, and the session with it; those who run beside it notice nothing.

use creel::agent::{MAX_CHATTER, Patience, SessionEvent, Violation};
use creel::runtime::{InputProgress, STREAM_WINDOW_BYTES, Stream};
use creel_proto::agent::{BuiltPaths, ExecExit, ExecState, ExecStdout, Message};
use creel_proto::names::extensions;
use creel_proto::{Envelope, FrameError};
use prost::Message as _;
use tokio::time::timeout;

use crate::guest::{ALL, Program, ScriptedGuest};
use crate::host::{Host, SOON};
use crate::liar::{LyingAgent, greeted, greeted_with};

/// The agent of a broken session can't come back, with the right key or without.
async fn is_not_believed_again(host: Host, mut agent: LyingAgent) {
    agent.dial();
    use creel_proto::agent::ResumeProof;
    use creel_proto::{Payload, names::ids};
    use futures_util::StreamExt as _;
    agent.say(ids::HELLO, crate::guest::hello(&ALL)).await;
    let Payload::ResumeChallenge(challenge) = agent.hear().await.payload else { panic!("no challenge") };
    let hmac = crate::guest::proof(&agent.key, &challenge.nonce);
    agent.say(ids::RESUME, ResumeProof { hmac }).await;
    let heard = timeout(SOON, agent.wire.next()).await.expect("it is hung up on");
    assert!(heard.is_none_or(|heard| heard.is_err()));
    assert!(!host.session.is_away());
}

#[tokio::test]
async fn a_frame_of_4_gib() {
    let (mut host, mut agent) = greeted().await;
    agent.say_bytes(&u32::MAX.to_be_bytes()).await;
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::Frame(FrameError::TooLong { .. })), "{violation}");
    is_not_believed_again(host, agent).await;
}

#[tokio::test]
async fn a_frame_that_is_no_message() {
    let (mut host, mut agent) = greeted().await;
    agent.say_bytes(&[0, 0, 0, 3, 0xff, 0xff, 0xff]).await;
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::Frame(FrameError::Undecodable(_))), "{violation}");
}

#[tokio::test]
async fn two_frames_within_each_other() {
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    let chunk = ExecStdout { raw: vec![b'a'; 100].into(), ..Default::default() };
    let frame = Message::from(Envelope::new("x", chunk)).encode_to_vec();
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    let half = [&length[..], &frame[..50]].concat();
    // A second writer's frame in the middle of the first one's.
    agent.say_bytes(&[&half[..], &length, &frame, &frame[50..]].concat()).await;
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::Frame(_) | Violation::Offset { .. }), "{violation}");
}

#[tokio::test]
async fn half_a_frame_is_a_broken_connection_and_no_lie() {
    let (mut host, mut agent) = greeted().await;
    agent.say_bytes(&[0, 0, 1, 0, 1, 2]).await;
    agent.dial();
    assert!(matches!(host.event().await, SessionEvent::Away { .. }));
    agent.comes_back().await;
}

#[tokio::test]
async fn fields_of_a_later_contract_are_none() {
    let (mut host, mut agent) = greeted().await;
    let mut reader = host.run("x");
    agent.runs("x").await;
    let chunk = ExecStdout { raw: b"hello"[..].into(), ..Default::default() };
    let mut frame = Message::from(Envelope::new("x", chunk)).encode_to_vec();
    frame.extend([0xba, 0x3e, 3, b'n', b'e', b'w']);
    agent.say_bytes(&[&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], &frame].concat()).await;
    agent.exits("x", 5).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    assert_eq!(reader.take().await.unwrap().bytes, "hello");
    assert!(reader.take().await.is_none());
}

#[tokio::test]
async fn ids_never_asked_for_are_passed_over_and_a_flood_of_them_is_not() {
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    agent.prints("y", 0, "who?").await;
    agent.exits("z", 0).await;
    agent.exits("x", 0).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { id, .. } if id == "x"));
    for _ in 0..MAX_CHATTER {
        agent.say("y", ExecState::default()).await;
    }
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::Chatter { count } if count == MAX_CHATTER + 1), "{violation}");
}

#[tokio::test]
async fn a_flood_of_tiny_frames_of_a_running_exec() {
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    for _ in 0..=MAX_CHATTER {
        agent.prints("x", 0, "").await;
    }
    assert!(matches!(host.violation().await, Violation::Chatter { .. }));
}

#[tokio::test]
async fn large_messages_of_no_meaning_count_too() {
    let (mut host, mut agent) = greeted().await;
    let paths = BuiltPaths { paths: vec![String::new(); 50_000], ..Default::default() };
    let frame = Message::from(Envelope::new("x", paths)).encode_to_vec();
    let frame = [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], &frame].concat();
    for _ in 0..=MAX_CHATTER {
        agent.say_bytes(&frame).await;
    }
    assert!(matches!(host.violation().await, Violation::Chatter { .. }));
}

#[tokio::test]
async fn a_guest_without_credit_may_talk() {
    let (mut host, mut agent) = greeted_with(&[extensions::OUTPUT_1], Patience::default()).await;
    for _ in 0..MAX_CHATTER + 100 {
        agent.say("y", BuiltPaths::default()).await;
    }
    let _reader = host.run("x");
    agent.hear_of("exec_start").await;
    agent.exits("x", 0).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
}

#[tokio::test]
async fn output_beyond_credit() {
    let (mut host, mut agent) = greeted().await;
    let _unread = host.run("x");
    agent.runs("x").await;
    let block = vec![7; 32 << 10];
    for number in 0..STREAM_WINDOW_BYTES / (32 << 10) {
        agent.prints("x", number * (32 << 10), block.clone()).await;
    }
    // Both streams have a window of their own.
    agent.complains("x", 0, "x").await;
    agent.prints("x", STREAM_WINDOW_BYTES, "x").await;
    let violation = host.violation().await;
    let Violation::OverCredit { stream, end, limit, .. } = violation else { panic!("{violation}") };
    assert_eq!((stream, end, limit), (Stream::Stdout, STREAM_WINDOW_BYTES + 1, STREAM_WINDOW_BYTES));
}

#[tokio::test]
async fn a_gap_in_the_output_and_output_that_comes_twice() {
    for claimed in [4, 0] {
        let (mut host, mut agent) = greeted().await;
        let _reader = host.run("x");
        agent.runs("x").await;
        agent.prints("x", 0, "abc").await;
        agent.prints("x", claimed, "x").await;
        let violation = host.violation().await;
        assert!(
            matches!(violation, Violation::Offset { claimed: said, expected: 3, .. } if said == claimed),
            "{violation}"
        );
    }
}

#[tokio::test]
async fn output_after_its_end() {
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    agent.say("x", ExecStdout { end: true, ..Default::default() }).await;
    agent.prints("x", 0, "more").await;
    assert!(matches!(host.violation().await, Violation::AfterEnd { .. }));
}

#[tokio::test]
async fn output_after_the_exit() {
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    agent.exits("x", 0).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    agent.prints("x", 0, "more").await;
    assert!(matches!(host.violation().await, Violation::AfterExit { .. }));
}

#[tokio::test]
async fn two_exits() {
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    agent.exits("x", 0).await;
    agent.exits("x", 0).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    assert!(matches!(host.violation().await, Violation::SecondExit { .. }));
}

#[tokio::test]
async fn an_exit_that_tells_another_length() {
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    agent.prints("x", 0, "abc").await;
    agent.exits("x", 4).await;
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::Length { said: 4, received: 3, .. }), "{violation}");
    let (mut host, mut agent) = greeted().await;
    let _reader = host.run("x");
    agent.runs("x").await;
    agent.say("x", ExecExit { stderr_bytes: 1, ..Default::default() }).await;
    assert!(matches!(host.violation().await, Violation::Length { stream: Stream::Stderr, .. }));
}

/// An exec that was sent three bytes of input.
async fn fed() -> (Host, LyingAgent, creel::runtime::InputWriter) {
    let (host, mut agent) = greeted().await;
    let (writer, reader) = host.run_with_input("x");
    tokio::spawn(async move {
        let mut reader = reader;
        while reader.take().await.is_some() {}
    });
    assert_eq!(agent.hear_of("exec_start").await.id(), "x");
    agent.say("x", ExecState { input_limit: 100, ..Default::default() }).await;
    writer.send(b"abc").await.unwrap();
    agent.hear_of("exec_input").await;
    (host, agent, writer)
}

#[tokio::test]
async fn an_acknowledgement_of_input_that_was_never_sent() {
    let (mut host, mut agent, _writer) = fed().await;
    agent.say("x", ExecState { input_written: 4, input_limit: 100, ..Default::default() }).await;
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::InputBeyond { written: 4, sent: 3, .. }), "{violation}");
}

#[tokio::test]
async fn an_acknowledgement_of_input_that_goes_back() {
    let (mut host, mut agent, writer) = fed().await;
    agent.say("x", ExecState { input_written: 3, input_limit: 100, ..Default::default() }).await;
    let mut progress = writer.progress();
    progress.wait_for(|so_far| *so_far == InputProgress { written: 3, closed: false }).await.unwrap();
    agent.say("x", ExecState { input_written: 2, input_limit: 100, ..Default::default() }).await;
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::InputBack { written: 2, before: 3, .. }), "{violation}");
}

#[tokio::test]
async fn credit_for_input_that_is_taken_back() {
    let (mut host, mut agent, _writer) = fed().await;
    agent.say("x", ExecState { input_limit: 99, ..Default::default() }).await;
    let violation = host.violation().await;
    assert!(matches!(violation, Violation::CreditBack { limit: 99, before: 100, .. }), "{violation}");
}

#[tokio::test]
async fn a_written_offset_that_goes_back_over_a_break() {
    let (mut host, mut agent, _writer) = fed().await;
    agent.say("x", ExecState { input_written: 3, input_limit: 100, ..Default::default() }).await;
    agent.comes_back().await;
    agent.hear_of("exec_start").await;
    agent.say("x", ExecState { input_written: 1, input_limit: 100, ..Default::default() }).await;
    assert!(matches!(host.event().await, SessionEvent::Away { .. }));
    assert!(matches!(host.violation().await, Violation::InputBack { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_of_liars_is_as_well_served_as_ever() {
    const OUTPUT: u64 = 32 << 20;
    let liars: Vec<_> = (0..4)
        .map(|kind| {
            tokio::spawn(async move {
                loop {
                    let (mut host, mut agent) = greeted().await;
                    let _unread = host.run("x");
                    let window = agent.runs("x").await;
                    match kind {
                        0 => {
                            for _ in 0..=MAX_CHATTER {
                                agent.prints("x", 0, "").await;
                            }
                        }
                        1 => {
                            let all = vec![7; usize::try_from(window.stdout_limit).unwrap() + 1];
                            agent.prints("x", 0, all).await;
                        }
                        2 => agent.say_bytes(&u32::MAX.to_be_bytes()).await,
                        _ => {
                            agent.exits("x", 0).await;
                            agent.exits("x", 0).await;
                        }
                    }
                    // However it is told, the session is over.
                    while !matches!(host.event().await, SessionEvent::Closed { .. }) {}
                }
            })
        })
        .collect();
    let (dialer, listener) = creel::transport::memory::pair();
    let serving = tokio::spawn(async move {
        let mut guest = ScriptedGuest::new(|_| Program { writes: OUTPUT, reads: false });
        let stream = dialer.dial().unwrap();
        guest.serve(stream).await
    });
    let mut host = Host::greet(listener, Patience::default()).await;
    let reader = host.run("neighbour");
    assert_eq!(timeout(SOON, crate::cuts::read_all(reader)).await.unwrap(), OUTPUT);
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    liars.iter().for_each(tokio::task::JoinHandle::abort);
    serving.abort();
}
