use std::time::Duration;

use bytes::Bytes;
use creel_proto::FrameCodec;
use creel_proto::agent::{ExecCancel, ExecExit, ExecStdout};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::*;
use crate::agent::wire::GuestCodec;
use crate::runtime::streams::output;
use crate::runtime::{Outcome, OutputReader, STREAM_WINDOW_BYTES, Work};
use crate::transport::ByteStream;

/// The agent's side of a session.
struct Agent(Framed<DuplexStream, FrameCodec>);

impl Agent {
    async fn prints(&mut self, id: &str, offset: u64, text: &'static str) {
        let chunk = ExecStdout { raw: Bytes::from_static(text.as_bytes()), offset, ..ExecStdout::default() };
        self.0.send(Envelope::new(id, chunk)).await.unwrap();
    }

    async fn exits(&mut self, id: &str, exit_code: i32) {
        let exit = ExecExit { exit_code, ..ExecExit::default() };
        self.0.send(Envelope::new(id, exit)).await.unwrap();
    }

    async fn hears(&mut self) -> Envelope {
        timeout(Duration::from_secs(10), self.0.next()).await.unwrap().unwrap().unwrap()
    }
}

fn session() -> (Session, SessionEvents, Agent) {
    session_with(&[extensions::OUTPUT_1, extensions::SIGNAL_1])
}

fn session_with(agreed: &[&str]) -> (Session, SessionEvents, Agent) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let near: Box<dyn ByteStream> = Box::new(near);
    let (wire, terms) = (Framed::new(near, GuestCodec::default()), Terms::of(agreed));
    let (session, events) = Session::start(wire, Hello::default(), terms, Patience::default());
    (session, events, Agent(Framed::new(far, FrameCodec)))
}

fn begin(session: &Session, id: &str) -> Result<OutputReader, StartError> {
    let (output, reader) = output();
    let work = Work::Program {
        argv: vec!["x".into()],
        env: vec![],
        cwd: "/".into(),
        user: "u".into(),
        terminal: None,
    };
    let streams = ExecStreams { input: None, output };
    session.begin(ExecRequest { id: id.into(), work, deadline: None }, streams).map(|()| reader)
}

async fn next(events: &mut SessionEvents) -> SessionEvent {
    timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_a_program_says_that_was_given_up_is_never_taken_for_its_successor_s() {
    let (session, mut events, mut agent) = session();
    let mut first = begin(&session, "same").unwrap();
    agent.prints("same", 0, "early").await;
    assert_eq!(first.take().await.unwrap().bytes, "early");
    session.cancel("same");
    assert!(first.take().await.is_none(), "its reader ends");
    assert_eq!(begin(&session, "same").unwrap_err(), StartError::Duplicate("same".into()));

    // The old program goes on, and ends; another's end is told meanwhile.
    let _other = begin(&session, "other").unwrap();
    agent.prints("same", 5, "late").await;
    agent.exits("same", 0).await;
    agent.exits("other", 3).await;
    assert!(matches!(next(&mut events).await, SessionEvent::WorkEnded { id, .. } if id == "other"));

    let mut second = begin(&session, "same").unwrap();
    agent.prints("same", 0, "new").await;
    assert_eq!(second.take().await.unwrap().bytes, "new");
    agent.exits("same", 9).await;
    let SessionEvent::WorkEnded { id, end } = next(&mut events).await else { panic!("it ended") };
    assert_eq!((id.as_str(), end.outcome), ("same", Outcome::Exited { code: 9 }));
}

#[tokio::test]
async fn who_is_given_up_is_cancelled_in_the_guest_once() {
    let (session, _events, mut agent) = session();
    let _queue = begin(&session, "x").unwrap();
    assert_eq!(agent.hears().await.payload.name(), "exec_start");
    session.cancel("x");
    session.cancel("x");
    session.cancel("unknown");
    session.power_off().unwrap();
    let cancel = agent.hears().await;
    assert_eq!(cancel, Envelope::new("x", ExecCancel { grace_ms: CANCEL_GRACE_MS }));
    assert_eq!(agent.hears().await.payload.name(), "poweroff");
}

#[tokio::test]
async fn an_agent_without_the_extension_is_asked_for_nothing_new() {
    let (session, _events, mut agent) = session_with(&[extensions::OUTPUT_1]);
    let _queue = begin(&session, "x").unwrap();
    let refusal = session.signal("x", 15).unwrap_err();
    assert_eq!(refusal, SignalError::Unsupported { extension: "creel.signal.1" });
    session.cancel("x");
    session.power_off().unwrap();
    assert_eq!(agent.hears().await.payload.name(), "exec_start");
    assert_eq!(agent.hears().await.payload.name(), "poweroff");
}

#[tokio::test]
async fn a_signal_reaches_those_that_run() {
    let (session, mut events, mut agent) = session();
    assert_eq!(session.signal("x", 2), Err(SignalError::NoExec("x".into())));
    let _queue = begin(&session, "x").unwrap();
    agent.hears().await;
    session.signal("x", 2).unwrap();
    assert_eq!(agent.hears().await.payload, ExecSignal { signal: 2 }.into());
    agent.exits("x", 0).await;
    next(&mut events).await;
    assert_eq!(session.signal("x", 2), Err(SignalError::NoExec("x".into())));
}

#[tokio::test]
async fn output_that_nobody_reads_holds_others_up_until_it_is_given_up() {
    let (session, mut events, mut agent) = session();
    let _unread = begin(&session, "unread").unwrap();
    let _other = begin(&session, "other").unwrap();
    let block = ["x"; 32 << 10].concat().leak();
    for number in 0..=STREAM_WINDOW_BYTES / (32 << 10) {
        agent.prints("unread", number * (32 << 10), block).await;
    }
    agent.exits("other", 0).await;
    assert!(timeout(Duration::from_millis(100), events.recv()).await.is_err(), "the window is full");
    session.cancel("unread");
    assert!(matches!(next(&mut events).await, SessionEvent::WorkEnded { id, .. } if id == "other"));
}
