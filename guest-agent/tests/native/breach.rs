//! A host that breaks the contract loses its session, and nothing else.

use creel_proto::agent::{ExecInput, ExecStart, ExecWindow};
use creel_proto::{Envelope, Payload};
use futures_util::SinkExt as _;

use crate::credit::{Exec, WINDOW};
use crate::host::{Host, Session, sh};

fn window(acknowledged: u64, limit: u64) -> ExecWindow {
    ExecWindow {
        stdout_acknowledged: acknowledged,
        stdout_limit: limit,
        stderr_acknowledged: 0,
        stderr_limit: limit,
    }
}

fn input(offset: u64, length: usize, end: bool) -> ExecInput {
    ExecInput { offset, data: vec![b'x'; length].into(), end }
}

/// An exec that has said "ready\n" and reads no input.
async fn ready(session: &mut Session) -> Exec {
    let mut exec = Exec::new("x");
    exec.start(session, ExecStart { input: true, ..sh("echo ready; exec sleep 1000") }, WINDOW).await;
    exec.shows(session, "ready\n").await;
    exec
}

#[tokio::test]
async fn each_breach_ends_the_session_and_the_exec_goes_on() {
    let start = |window| ExecStart { window, ..sh("echo never") };
    let cases: Vec<(&str, &str, Vec<Payload>)> = vec![
        ("acknowledges what was not sent", "x", vec![window(7, WINDOW + 9).into()]),
        ("acknowledges all there can be", "x", vec![window(u64::MAX, u64::MAX).into()]),
        ("a limit before what is acknowledged", "x", vec![window(6, 5).into()]),
        ("a limit that goes back", "x", vec![window(0, WINDOW - 1).into()]),
        ("an acknowledgement that goes back", "x", vec![window(4, WINDOW).into(), window(3, WINDOW).into()]),
        ("a gap in the input", "x", vec![input(1, 1, false).into()]),
        ("input from nowhere", "x", vec![input(u64::MAX, 1, false).into()]),
        ("too much input at once", "x", vec![input(0, (64 << 10) + 1, false).into()]),
        (
            "more input than is allowed",
            "x",
            (0..20).map(|number| input(number << 16, 64 << 10, false).into()).collect(),
        ),
        ("input behind its end", "x", vec![input(0, 1, true).into(), input(1, 1, false).into()]),
        ("an end before the end", "x", vec![input(0, 2, false).into(), input(0, 1, true).into()]),
        ("a start without a window", "y", vec![start(None).into()]),
        ("a start behind the beginning", "y", vec![start(Some(window(1, WINDOW))).into()]),
        ("attached behind the end", "x", vec![start(Some(window(7, WINDOW))).into()]),
        (
            "attached to what was acknowledged",
            "x",
            vec![window(4, WINDOW).into(), start(Some(window(3, WINDOW))).into()],
        ),
    ];
    let host = Host::start();
    let mut session = host.first().await;
    for (breach, id, messages) in cases {
        let mut exec = ready(&mut session).await;
        for message in messages {
            // It may have hung up before the last one.
            let _ = session.stream.send(Envelope::new(id, message)).await;
        }
        session.is_ended().await;
        session = host.resume().await;
        // The agent lives, and so does the exec; it has acknowledged at most these four.
        exec.output[0].truncate(4);
        exec.attach(&mut session, WINDOW).await;
        exec.shows(&mut session, "ready\n").await;
        session.send("x", creel_proto::agent::ExecCancel { grace_ms: 0 }).await;
        exec.ends(&mut session).await;
        assert_eq!(exec.exit.as_ref().unwrap().signal, 15, "{breach}");
        exec.forget(&mut session).await;
    }
}

#[tokio::test]
async fn what_is_said_of_an_exec_that_is_not_known_is_passed_over() {
    let (_host, mut session) = Host::with_credit().await;
    session.send("none", window(9, 3)).await;
    session.send("none", input(9, 9, false)).await;
    session.send("none", creel_proto::agent::PtyResize { rows: 1, cols: 1 }).await;
    session.send("none", creel_proto::agent::ExecForget {}).await;
    let mut exec = ready(&mut session).await;
    session.send("x", creel_proto::agent::PtyResize { rows: 1, cols: 1 }).await;
    session.send("x", creel_proto::agent::ExecCancel { grace_ms: 0 }).await;
    exec.ends(&mut session).await;
}

#[tokio::test]
async fn a_window_beyond_all_bounds_costs_bounded_memory() {
    let (host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("x");
    exec.start(&mut session, sh("exec cat /dev/zero"), 1 << 40).await;
    exec.take(session.receive().await);
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.agent.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let resident_kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(resident_kib < 32 << 10, "the agent held up to {resident_kib} KiB");
}
