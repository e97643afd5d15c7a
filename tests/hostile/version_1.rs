//! A guest whose agent has version 1 alone, as upstream's: nothing of creel's own is said to it, and all that version 1 has
//! works.

use creel::agent::credit::MAX_PLAIN_EXECS;
use creel::agent::{Patience, SessionEvent, StartError};
use creel::runtime::{Outcome, ShellRequest, SignalError, Stream, TerminalSize};
use creel_proto::Payload;
use creel_proto::agent::{
    ExecExit, ExecStart, ExecStderr, ExecStdout, Hello, Init, OpenDebugShell, Poweroff, PoweroffResult,
};
use creel_proto::names::ids;

use crate::host::Host;
use crate::liar::{LyingAgent, greeted_with};

async fn greeted() -> (Host, LyingAgent) {
    greeted_with(&[], Patience::default()).await
}

fn text(data: &str) -> ExecStdout {
    ExecStdout { data: data.into(), ..Default::default() }
}

#[tokio::test]
async fn it_is_told_nothing_that_it_does_not_know() {
    let (dialer, listener) = creel::transport::memory::pair();
    let greeting = tokio::spawn(Host::greet(listener, Patience::default()));
    let mut agent = LyingAgent::dials(dialer);
    agent.say(ids::HELLO, Hello { extensions: Vec::new(), ..crate::guest::hello(&[]) }).await;
    let Payload::Init(init) = agent.hear().await.payload else { panic!("no Init") };
    let Init { extensions, machine_key, resumed, .. } = init;
    assert_eq!((extensions, machine_key.len(), resumed), (Vec::new(), 0, false));

    let host = greeting.await.unwrap();
    let _reader = host.run("e");
    let Payload::ExecStart(start) = agent.hear().await.payload else { panic!("no ExecStart") };
    let ExecStart { input, terminal, window, attach, files, .. } = start;
    assert_eq!((input, terminal, window, attach, files), (false, None, None, false, None));
    // Neither a signal nor a cancel has a word there.
    assert!(matches!(host.session.signal("e", 15), Err(SignalError::Unsupported { .. })));
    host.session.cancel("e");
    host.session.power_off().unwrap();
    assert_eq!(agent.hear().await.payload, Poweroff {}.into());
}

#[tokio::test]
async fn its_text_and_its_codes_arrive_as_they_are() {
    let (mut host, mut agent) = greeted().await;
    let mut reader = host.run("e");
    agent.hear_of("exec_start").await;
    agent.say("e", text("one ü")).await;
    agent.say("e", ExecStderr { data: "two".into(), ..Default::default() }).await;
    // What is creel's own is not read of one that has not named it.
    let own = ExecStdout { data: " three".into(), raw: "not this".into(), offset: 99, ..Default::default() };
    agent.say("e", own).await;
    agent.say("e", ExecExit { exit_code: 137, signal: 9, ..Default::default() }).await;
    let SessionEvent::WorkEnded { id, end } = host.event().await else { panic!("it ended") };
    assert_eq!((id.as_str(), end.outcome), ("e", Outcome::Exited { code: 137 }));
    let mut said = [String::new(), String::new()];
    while let Some(chunk) = reader.take().await {
        let stream = usize::from(chunk.stream == Stream::Stderr);
        said[stream] += std::str::from_utf8(&chunk.bytes).unwrap();
    }
    assert_eq!(said, ["one ü three", "two"]);

    let _reader = host.run("late");
    agent.hear_of("exec_start").await;
    agent.say("late", ExecExit { timed_out: true, exit_code: 124, ..Default::default() }).await;
    let SessionEvent::WorkEnded { end, .. } = host.event().await else { panic!("it ended") };
    assert_eq!(end.outcome, Outcome::TimedOut);
}

#[tokio::test]
async fn its_shell_and_its_power_off_are_version_1_s() {
    let (mut host, mut agent) = greeted().await;
    let size = TerminalSize { rows: 5, columns: 7 };
    host.session.open_shell(4321, &ShellRequest { term: "vt100".into(), size }).unwrap();
    let asked = OpenDebugShell { vsock_port: 4321, term: "vt100".into(), rows: 5, cols: 7 };
    let heard = agent.hear().await;
    assert_eq!((heard.id(), heard.payload.clone()), (ids::PTY, asked.into()));
    agent.say(ids::PTY, ExecExit { exit_code: 1, error: "no shell here".into(), ..Default::default() }).await;
    let SessionEvent::ShellRefused { detail } = host.event().await else { panic!("it is refused") };
    assert_eq!(detail, "no shell here");
    host.session.power_off().unwrap();
    agent.hear_of("poweroff").await;
    agent.say(ids::POWEROFF, PoweroffResult::default()).await;
    assert!(matches!(host.event().await, SessionEvent::PoweroffAcknowledged));
    // It has no way to come back: its end is the end.
    drop(agent);
    assert!(matches!(host.event().await, SessionEvent::Closed { .. }));
}

#[tokio::test]
async fn it_runs_as_many_as_its_host_can_hold_output_of() {
    let (mut host, mut agent) = greeted().await;
    let readers: Vec<_> = (0..MAX_PLAIN_EXECS).map(|number| host.run(&number.to_string())).collect();
    assert_eq!(host.try_run("more").unwrap_err(), StartError::TooMany { max: MAX_PLAIN_EXECS });
    agent.say("0", ExecExit::default()).await;
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    host.try_run("more").unwrap();
    drop(readers);
}
