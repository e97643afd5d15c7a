//! Streams with credit (`creel.exec.2`): bytes both ways, their limits and their ends.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use creel_proto::agent::files_request::Work;
use creel_proto::agent::{ExecStart, FilesRead, FilesRequest, Ping, Pong};
use creel_proto::names::ids;
use creel_proto::{Envelope, Payload};

use crate::credit::{Exec, MAX_DATA_BYTES, WINDOW, noise, run};
use crate::host::{Host, Session, argv, sh, until};

/// Far longer than anything takes that nothing holds up.
const A_WHILE: Duration = Duration::from_millis(400);

fn in_directory(host: &Host, name: &str, request: ExecStart) -> ExecStart {
    let cwd = host.writable(name).to_str().unwrap().to_owned();
    ExecStart { cwd, ..request }
}

fn with_input(request: ExecStart) -> ExecStart {
    ExecStart { input: true, ..request }
}

/// Sends all of `input` as far as the program takes it, and gives credit, until the exit.
async fn converse(session: &mut Session, exec: &mut Exec, input: &[u8]) {
    let mut sent = 0;
    let mut ended = false;
    while exec.exit.is_none() {
        let limit = exec.state.map_or(0, |state| usize::try_from(state.input_limit).unwrap());
        let until = input.len().min(limit).min(sent + MAX_DATA_BYTES);
        if until > sent || (until == input.len() && !ended && exec.state.is_some()) {
            ended = until == input.len();
            exec.input(session, sent as u64, &input[sent..until], ended).await;
            sent = until;
            continue;
        }
        exec.take(session.receive().await);
        exec.credit_if_low(session).await;
    }
}

#[tokio::test]
async fn output_arrives_as_it_was_written() {
    let (host, mut session) = Host::with_credit().await;
    let noise = noise(20 << 20);
    let request = in_directory(&host, "work", sh("cat noise; cat noise >&2"));
    fs::write(host.directory().join("work/noise"), &noise).unwrap();
    let ended = run(&mut session, "noise", request).await;
    assert!(ended.output[0] == noise && ended.output[1] == noise);
    assert_eq!(ended.exit_code(), 0);
    let words = run(&mut session, "words", sh(r"printf 'a\377\200'; printf '\000e' >&2; exit 3")).await;
    assert_eq!(words.output, [b"a\xff\x80".to_vec(), b"\0e".to_vec()]);
    assert_eq!(words.exit_code(), 3);
}

#[tokio::test]
async fn input_arrives_as_it_was_sent_and_ends_where_it_ends() {
    let (_host, mut session) = Host::with_credit().await;
    let noise = noise(5_000_001);
    let mut exec = Exec::new("cat");
    exec.start(&mut session, with_input(argv(&["cat"])), WINDOW).await;
    converse(&mut session, &mut exec, &noise).await;
    assert!(exec.output[0] == noise);
    assert_eq!(exec.exit_code(), 0);
    let state = exec.state.unwrap();
    assert_eq!(state.input_written, 5_000_001);
}

#[tokio::test]
async fn the_end_of_the_input_is_no_end_of_the_output() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("half");
    exec.start(&mut session, with_input(sh("cat; echo half; sleep 0.2; echo rest; exit 4")), WINDOW).await;
    exec.input(&mut session, 0, b"in ", true).await;
    exec.ends(&mut session).await;
    assert_eq!((exec.stdout(), exec.exit_code()), ("in half\nrest\n".into(), 4));
}

#[tokio::test]
async fn without_input_a_program_finds_it_empty() {
    let (_host, mut session) = Host::with_credit().await;
    let exec = run(&mut session, "none", sh("cat; readlink /proc/self/fd/0")).await;
    assert_eq!(exec.stdout(), "/dev/null\n");
    let state = exec.state.unwrap();
    assert!(state.input_closed && state.input_limit == 0);
}

#[tokio::test]
async fn input_that_nobody_reads_any_more_is_told() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("deaf");
    exec.start(&mut session, with_input(sh("head -c 3; exec <&-; echo; sleep 0.5; exit 6")), WINDOW).await;
    exec.input(&mut session, 0, b"123", false).await;
    exec.shows(&mut session, "123\n").await;
    exec.input(&mut session, 3, &[b'x'; 1000], false).await;
    exec.has_state(&mut session, |state| state.input_closed).await;
    assert!(exec.exit.is_none(), "it runs on");
    // Up to the limit the host may have sent before it heard of it.
    exec.input(&mut session, 1003, &[b'x'; 1000], true).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.exit_code(), 6);
}

#[tokio::test]
async fn without_credit_a_program_waits_and_the_others_do_not() {
    let (host, mut session) = Host::with_credit().await;
    let request = in_directory(&host, "work", sh("head -c 3000000 /dev/zero; touch written"));
    let mut waiting = Exec::new("waiting");
    waiting.start(&mut session, request, 1000).await;
    while waiting.output[0].len() < 1000 {
        waiting.take(session.receive().await);
    }
    session.send(ids::HEARTBEAT, Ping { sequence: 77 }).await;
    let pong = session.receive().await;
    assert_eq!(pong, Envelope::new(ids::HEARTBEAT, Pong { sequence: 77 }));
    let other = run(&mut session, "other", sh("head -c 3000000 /dev/zero | wc -c")).await;
    assert_eq!(other.stdout(), "3000000\n");
    tokio::time::sleep(A_WHILE).await;
    assert!(!host.directory().join("work/written").exists());
    let status = fs::read_to_string(format!("/proc/{}/status", host.agent.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let resident_kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(resident_kib < 32 << 10, "the agent held up to {resident_kib} KiB");
    waiting.credit(&mut session, 1).await;
    waiting.take(session.receive().await);
    assert_eq!(waiting.output[0].len(), 1001);
    waiting.credit(&mut session, WINDOW).await;
    waiting.ends(&mut session).await;
    assert_eq!((waiting.output[0].len(), waiting.exit_code()), (3_000_000, 0));
}

#[tokio::test]
async fn one_stream_without_credit_does_not_hold_up_the_other() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("x");
    exec.limit = [0, WINDOW];
    let window = creel_proto::agent::ExecWindow { stderr_limit: WINDOW, ..Default::default() };
    let request = sh("echo out; echo err >&2; echo more >&2");
    session.send("x", ExecStart { window: Some(window), ..request }).await;
    while !exec.ended[1] {
        exec.take(session.receive().await);
    }
    assert_eq!(exec.output, [b"".to_vec(), b"err\nmore\n".to_vec()]);
    exec.credit(&mut session, WINDOW).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.stdout(), "out\n");
}

#[tokio::test]
async fn an_exit_waits_for_output_that_waits_for_credit() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("x");
    exec.start(&mut session, sh("echo all of it; exit 9"), 3).await;
    while exec.output[0].len() < 3 {
        exec.take(session.receive().await);
    }
    // Longer than the time for which a stream is followed after its program's end.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    exec.credit(&mut session, WINDOW).await;
    exec.ends(&mut session).await;
    assert_eq!((exec.stdout(), exec.exit_code()), ("all of it\n".into(), 9));
}

#[tokio::test]
async fn a_daemon_left_behind_does_not_hold_the_exit_and_lives_on() {
    let (host, mut session) = Host::with_credit().await;
    let script =
        "(until [ -e go ]; do sleep 0.05; done; echo more && echo more && touch alive) & echo started";
    let request = in_directory(&host, "work", sh(script));
    let exec = run(&mut session, "daemon", request).await;
    assert_eq!((exec.stdout(), exec.exit_code()), ("started\n".into(), 0));
    fs::write(host.directory().join("work/go"), "").unwrap();
    until("the daemon's next words", || host.directory().join("work/alive").exists()).await;
}

#[tokio::test]
async fn what_cant_be_started_ends_like_everything_else() {
    let (_host, mut session) = Host::with_credit().await;
    let exec = run(&mut session, "none", argv(&["/no/such/program"])).await;
    assert_eq!(exec.exit_code(), 127);
    assert!(exec.exit.unwrap().error.contains("failed to start `/no/such/program`"));
}

#[tokio::test]
async fn many_at_once_share_the_connection() {
    const EXECS: usize = 64;
    const SIZE: usize = 400_000;
    let (_host, mut session) = Host::with_credit().await;
    // Beside them one that never stops.
    let mut flood = Exec::new("flood");
    flood.start(&mut session, sh("exec cat /dev/zero"), WINDOW).await;
    let mut execs = BTreeMap::new();
    for number in 0..EXECS {
        let id = format!("exec-{number}");
        let mut exec = Exec::new(&id);
        exec.start(&mut session, sh(&format!("head -c {SIZE} /dev/zero; exit {number}")), WINDOW).await;
        execs.insert(id, exec);
    }
    while execs.values().any(|exec| exec.exit.is_none()) {
        let message = session.receive().await;
        let exec = if message.id() == "flood" { &mut flood } else { execs.get_mut(message.id()).unwrap() };
        exec.take(message);
        exec.credit_if_low(&mut session).await;
        flood.output[0].shrink_to_fit();
    }
    for number in 0..EXECS {
        let exec = &execs[&format!("exec-{number}")];
        assert_eq!((exec.output[0].len(), exec.exit_code()), (SIZE, i32::try_from(number).unwrap()));
    }
}

#[tokio::test]
async fn two_that_flood_take_turns() {
    let (_host, mut session) = Host::with_credit().await;
    let mut execs = [Exec::new("a"), Exec::new("b")];
    for exec in &mut execs {
        exec.start(&mut session, sh("exec cat /dev/zero"), WINDOW).await;
    }
    let mut bytes = [0usize; 2];
    while bytes.iter().sum::<usize>() < 32 << 20 {
        let message = session.receive().await;
        let number = usize::from(message.id() == "b");
        execs[number].take(message);
        execs[number].credit_if_low(&mut session).await;
        bytes[number] = execs[number].output[0].len();
    }
    assert!(bytes[0].min(bytes[1]) * 3 > bytes[0].max(bytes[1]), "{bytes:?}");
}

#[tokio::test]
async fn a_ping_goes_before_output_that_waits() {
    let (_host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("flood");
    exec.start(&mut session, sh("exec cat /dev/zero"), 1 << 20).await;
    exec.take(session.receive().await);
    // All of it waits for this host to read.
    tokio::time::sleep(A_WHILE).await;
    session.send(ids::HEARTBEAT, Ping { sequence: 5 }).await;
    let mut before = 0;
    loop {
        let message = session.receive().await;
        if let Payload::Pong(pong) = message.payload {
            assert_eq!(pong.sequence, 5);
            break;
        }
        before += 1;
        exec.take(message);
    }
    assert!(before < 16, "{before} frames came before the answer");
}

#[tokio::test]
async fn a_file_tree_comes_out_by_an_exec() {
    let (host, mut session) = Host::with_credit().await;
    let tree = host.writable("tree");
    fs::write(tree.join("file"), "text").unwrap();
    let read = Work::Read(FilesRead { path: tree.to_str().unwrap().to_owned() });
    let files = Some(FilesRequest { work: Some(read) });
    let exec = run(&mut session, "read", ExecStart { files, ..argv(&[]) }).await;
    assert_eq!(exec.exit_code(), 0, "{}", String::from_utf8_lossy(&exec.output[1]));
    let mut archive = tar::Archive::new(&exec.output[0][..]);
    let name = |entry: io::Result<tar::Entry<'_, _>>| entry.unwrap().path().unwrap().display().to_string();
    let names: Vec<_> = archive.entries().unwrap().map(name).collect();
    assert_eq!(names, ["tree/", "tree/file"]);
}

#[tokio::test]
async fn a_request_for_no_files_is_answered() {
    let (_host, mut session) = Host::with_credit().await;
    let files = Some(FilesRequest::default());
    let exec = run(&mut session, "files", ExecStart { files, ..argv(&[]) }).await;
    assert_eq!(exec.exit_code(), 127);
    assert!(exec.exit.unwrap().error.contains("neither what to read nor what to write"));
}
