//! Execs on a terminal of their own (`creel.exec.2`).

use creel_proto::agent::{ExecCancel, ExecStart, ExecTerminal, PtyResize};

use crate::credit::{Exec, WINDOW};
use crate::host::{Host, Session, sh};

fn on_terminal(request: ExecStart) -> ExecStart {
    let terminal = ExecTerminal { term: "vt220".into(), rows: 33, cols: 101 };
    ExecStart { terminal: Some(terminal), ..request }
}

async fn start(session: &mut Session, script: &str) -> Exec {
    let mut exec = Exec::new("pty");
    exec.start(session, on_terminal(sh(script)), WINDOW).await;
    exec
}

#[tokio::test]
async fn a_program_has_a_terminal_of_the_size_that_was_asked_for_and_is_told_of_another() {
    let (_host, mut session) = Host::with_credit().await;
    let script = "trap 'stty size; echo err >&2; exit 6' WINCH; tty; stty size; echo $TERM; \
                  : </dev/tty && echo con''trolled; while :; do sleep 0.02; done";
    let mut exec = start(&mut session, script).await;
    exec.shows(&mut session, "controlled").await;
    assert!(exec.stdout().contains("/dev/pts/"), "{}", exec.stdout());
    assert!(exec.stdout().contains("33 101\r\nvt220\r\n"), "{}", exec.stdout());
    session.send("pty", PtyResize { rows: 50, cols: 132 }).await;
    exec.ends(&mut session).await;
    assert!(exec.stdout().contains("50 132\r\nerr\r\n"), "{}", exec.stdout());
    assert_eq!((exec.exit_code(), exec.output[1].len()), (6, 0));
}

#[tokio::test]
async fn an_interrupt_that_is_typed_reaches_the_program() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec = start(
        &mut session,
        "trap 'echo in''terrupted; exit 7' INT; echo re''ady; while :; do sleep 0.02; done",
    )
    .await;
    exec.shows(&mut session, "ready").await;
    exec.input(&mut session, 0, b"\x03", false).await;
    exec.ends(&mut session).await;
    assert!(exec.stdout().contains("interrupted"));
    assert_eq!(exec.exit_code(), 7);
}

#[tokio::test]
async fn the_end_of_the_input_is_typed_and_hangs_up_on_nobody() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec =
        start(&mut session, "stty -echo; echo re''ady; cat; echo after; sleep 0.2; echo still; exit 8").await;
    exec.shows(&mut session, "ready").await;
    exec.input(&mut session, 0, b"typed\n", false).await;
    exec.input(&mut session, 6, b"", true).await;
    exec.ends(&mut session).await;
    assert!(exec.stdout().ends_with("typed\r\nafter\r\nstill\r\n"), "{:?}", exec.stdout());
    assert_eq!(exec.exit_code(), 8);
    assert!(exec.state.unwrap().input_closed);
}

#[tokio::test]
async fn much_that_is_shown_arrives_whole_also_when_credit_comes_after_the_end() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec = start(&mut session, "stty -onlcr; seq 100000 200000; exit 3").await;
    exec.ends(&mut session).await;
    let expected: String = (100_000..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(exec.stdout() == expected, "{} bytes", exec.stdout().len());
    exec.forget(&mut session).await;

    let mut late = Exec::new("late");
    late.start(&mut session, on_terminal(sh("echo one; echo two; exit 4")), 2).await;
    while late.output[0].len() < 2 {
        late.take(session.receive().await);
    }
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    late.credit(&mut session, WINDOW).await;
    late.ends(&mut session).await;
    assert_eq!((late.stdout().as_str(), late.exit_code()), ("one\r\ntwo\r\n", 4));
}

#[tokio::test]
async fn a_shell_is_typed_to_across_a_cut() {
    let (host, mut session) = Host::with_credit().await;
    let mut exec = start(&mut session, "exec sh -i").await;
    let first = b"echo on''e\n";
    exec.input(&mut session, 0, first, false).await;
    exec.shows(&mut session, "one\r\n").await;
    drop(session);
    let mut session = host.resume().await;
    exec.attach(&mut session, WINDOW).await;
    let length = first.len() as u64;
    exec.has_state(&mut session, |state| state.input_written == length).await;
    exec.input(&mut session, length, b"echo tw''o; exit 9\n", false).await;
    exec.ends(&mut session).await;
    assert!(exec.stdout().contains("two\r\n"));
    assert_eq!(exec.exit_code(), 9);
}

#[tokio::test]
async fn a_cancel_hangs_up_on_a_shell_that_ignores_the_rest() {
    let (_host, mut session) = Host::with_credit().await;
    let script = "trap '' TERM; trap 'echo hung up; exit 5' HUP; echo ready; while :; do sleep 0.02; done";
    let mut exec = start(&mut session, script).await;
    exec.shows(&mut session, "ready").await;
    session.send("pty", ExecCancel { grace_ms: 20_000 }).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.exit_code(), 5);
}
