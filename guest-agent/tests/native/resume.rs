//! A connection that takes up where the last one broke (`creel.resume.1`).

use std::fs;
use std::time::Duration;

use creel_proto::agent::{ExecCancel, ExecForget, ExecStart, SourceUnpack, SourceUnpackResult};
use creel_proto::names::ids;
use creel_proto::{Envelope, Payload};

use crate::credit::{Exec, MAX_DATA_BYTES, WINDOW, noise};
use crate::host::{Host, argv, sh, until};

/// Longer than the agent's first pauses between attempts.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn output_crosses_any_number_of_cuts() {
    const SIZE: usize = 20 << 20;
    const MOST_CUTS: usize = 40;
    let (host, mut session) = Host::with_credit().await;
    let directory = host.writable("work");
    let noise = noise(SIZE);
    fs::write(directory.join("noise"), &noise).unwrap();
    let cwd = directory.to_str().unwrap().to_owned();
    let mut exec = Exec::new("noise");
    let script = "cat noise & cat noise >&2; wait; exit 7";
    exec.start(&mut session, ExecStart { cwd, ..sh(script) }, WINDOW).await;
    let mut cuts = 0;
    let mut seed = 1u64;
    while exec.exit.is_none() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // In the middle of frames as well: the agent has several under way.
        let frames = if cuts < MOST_CUTS { usize::try_from(seed >> 40).unwrap() % 40 } else { usize::MAX };
        while exec.exit.is_none() && exec.frames < frames {
            exec.take(session.receive().await);
            exec.credit_if_low(&mut session).await;
        }
        if exec.exit.is_none() {
            cuts += 1;
            drop(session);
            if cuts % 8 == 0 {
                tokio::time::sleep(A_WHILE).await;
            }
            session = host.resume().await;
            // What is sent again must begin where the host says, also where that is long ago.
            for lane in [0, 1] {
                let back = usize::try_from(seed >> 50).unwrap() % 1000;
                let kept = exec.output[lane].len().saturating_sub(back);
                let safe = exec.limit[lane].saturating_sub(WINDOW);
                exec.output[lane].truncate(kept.max(usize::try_from(safe).unwrap()));
            }
            exec.attach(&mut session, WINDOW).await;
        }
    }
    assert!(exec.output[0] == noise && exec.output[1] == noise);
    assert_eq!(exec.exit_code(), 7);
    assert!(cuts > 10, "{cuts} cuts");
}

#[tokio::test]
async fn input_crosses_any_number_of_cuts() {
    let (host, mut session) = Host::with_credit().await;
    let noise = noise(3_000_000);
    let mut exec = Exec::new("cat");
    exec.start(&mut session, ExecStart { input: true, ..argv(&["cat"]) }, WINDOW).await;
    let (mut sent, mut ended, mut messages) = (0, false, 0);
    while exec.exit.is_none() {
        messages += 1;
        if messages % 23 == 0 && messages < 600 {
            drop(session);
            session = host.resume().await;
            exec.attach(&mut session, WINDOW).await;
            exec.has_state(&mut session, |_| true).await;
            // From what the program has on: all before it the agent remembers no more, what is behind it it may know.
            sent = usize::try_from(exec.state.unwrap().input_written).unwrap();
            ended = false;
        }
        let limit = exec.state.map_or(0, |state| usize::try_from(state.input_limit).unwrap());
        let until = noise.len().min(limit).min(sent + MAX_DATA_BYTES / 4 + messages % 1000);
        if until > sent || (until == noise.len() && !ended) {
            ended = until == noise.len();
            exec.input(&mut session, sent as u64, &noise[sent..until], ended).await;
            sent = until;
        } else {
            exec.take(session.receive().await);
            exec.credit_if_low(&mut session).await;
        }
    }
    assert!(exec.output[0] == noise, "{} bytes", exec.output[0].len());
}

#[tokio::test]
async fn a_repeated_start_attaches_and_starts_nothing() {
    let (host, mut session) = Host::with_credit().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let script = "echo started >> log; echo begin; until [ -e go ]; do sleep 0.02; done; echo end; exit 5";
    let request = ExecStart { cwd, ..sh(script) };
    let mut exec = Exec::new("same");
    exec.start(&mut session, request.clone(), WINDOW).await;
    exec.shows(&mut session, "begin").await;
    // On the same connection from the start, and on another one from where it was.
    exec.output = Default::default();
    exec.start(&mut session, request.clone(), WINDOW).await;
    exec.shows(&mut session, "begin").await;
    drop(session);
    let mut session = host.resume().await;
    exec.start(&mut session, request.clone(), WINDOW).await;
    fs::write(directory.join("go"), "").unwrap();
    exec.ends(&mut session).await;
    assert_eq!((exec.stdout().as_str(), exec.exit_code()), ("begin\nend\n", 5));
    assert_eq!(fs::read_to_string(directory.join("log")).unwrap(), "started\n");
}

#[tokio::test]
async fn an_exit_is_told_on_each_connection_until_it_is_forgotten() {
    let (host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("x");
    // Nothing is acknowledged, and all of it comes again.
    exec.start(&mut session, sh("echo out; echo err >&2; exit 5"), WINDOW).await;
    exec.ends(&mut session).await;
    for _ in 0..3 {
        drop(session);
        session = host.resume().await;
        exec.output = Default::default();
        exec.attach(&mut session, WINDOW).await;
        exec.ends(&mut session).await;
        assert_eq!((exec.stdout().as_str(), exec.exit_code()), ("out\n", 5));
        assert_eq!(exec.output[1], b"err\n");
    }
    // Attached from the end only the exit comes.
    exec.attach(&mut session, WINDOW).await;
    exec.ends(&mut session).await;
    exec.forget(&mut session).await;
    exec.attach(&mut session, WINDOW).await;
    exec.ends(&mut session).await;
    let exit = exec.exit.clone().unwrap();
    assert!(exit.unknown && exit.exit_code == 127, "{exit:?}");
    // Then the id is free again.
    let mut again = Exec::new("x");
    again.start(&mut session, sh("echo anew"), WINDOW).await;
    again.ends(&mut session).await;
    assert_eq!(again.stdout(), "anew\n");
}

#[tokio::test]
async fn without_a_connection_programs_go_on_and_then_wait() {
    let (host, mut session) = Host::with_credit().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let quiet = sh("sleep 0.3; echo done; touch quiet");
    let loud = sh("sleep 0.3; head -c 3000000 /dev/zero; touch loud");
    let mut quiet_exec = Exec::new("quiet");
    quiet_exec.start(&mut session, ExecStart { cwd: cwd.clone(), ..quiet }, WINDOW).await;
    let mut loud_exec = Exec::new("loud");
    loud_exec.start(&mut session, ExecStart { cwd, ..loud }, WINDOW).await;
    while quiet_exec.state.is_none() || loud_exec.state.is_none() {
        let message = session.receive().await;
        let exec = if message.id() == "quiet" { &mut quiet_exec } else { &mut loud_exec };
        exec.take(message);
    }
    drop(session);
    until("the end of the quiet one", || directory.join("quiet").exists()).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!directory.join("loud").exists());
    let mut session = host.resume().await;
    quiet_exec.attach(&mut session, WINDOW).await;
    quiet_exec.ends(&mut session).await;
    assert_eq!(quiet_exec.stdout(), "done\n");
    loud_exec.attach(&mut session, WINDOW).await;
    loud_exec.ends(&mut session).await;
    assert_eq!(loud_exec.output[0].len(), 3_000_000);
}

#[tokio::test]
async fn an_exec_that_is_given_up_is_cancelled_without_being_attached_to() {
    let (host, mut session) = Host::with_credit().await;
    let mut exec = Exec::new("x");
    exec.start(&mut session, sh("trap '' TERM; echo ready; while :; do sleep 0.02; done"), WINDOW).await;
    exec.shows(&mut session, "ready").await;
    drop(session);
    let mut session = host.resume().await;
    session.send("x", ExecCancel { grace_ms: 100 }).await;
    exec.attach(&mut session, WINDOW).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.exit.unwrap().signal, 9);
}

#[tokio::test]
async fn one_that_is_forgotten_while_it_runs_keeps_its_id_until_it_ends() {
    let (host, mut session) = Host::with_credit().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let script = "until [ -e go ]; do sleep 0.02; done; head -c 3000000 /dev/zero; touch gone";
    let request = ExecStart { cwd, ..sh(script) };
    let mut exec = Exec::new("x");
    exec.start(&mut session, request, 0).await;
    exec.forget(&mut session).await;
    session.send("never-was", ExecForget {}).await;
    exec.has_state(&mut session, |_| true).await;
    let mut other = Exec::new("x");
    other.start(&mut session, sh("echo other"), WINDOW).await;
    let refused = session.receive().await;
    let Payload::ExecExit(exit) = &refused.payload else { panic!("{refused:?}") };
    assert_eq!(exit.exit_code, 127);
    fs::write(directory.join("go"), "").unwrap();
    until("its end", || directory.join("gone").exists()).await;
    tokio::time::sleep(A_WHILE).await;
    other.start(&mut session, sh("echo other"), WINDOW).await;
    other.ends(&mut session).await;
    assert_eq!(other.stdout(), "other\n");
}

#[tokio::test]
async fn only_so_many_are_remembered() {
    const MOST: usize = 1024;
    let (_host, mut session) = Host::with_credit().await;
    for number in 0..MOST {
        let mut exec = Exec::new(&format!("exec-{number}"));
        exec.start(&mut session, argv(&[]), WINDOW).await;
        exec.ends(&mut session).await;
        assert_eq!(exec.exit_code(), 127);
    }
    let mut one_more = Exec::new("one-more");
    one_more.start(&mut session, sh("echo x"), WINDOW).await;
    let refused = session.receive().await;
    let Payload::ExecExit(exit) = refused.payload else { panic!("{refused:?}") };
    assert_eq!(exit.exit_code, 127);
    assert!(exit.error.contains("1024"), "{}", exit.error);
    Exec::new("exec-0").forget(&mut session).await;
    one_more.start(&mut session, sh("echo x"), WINDOW).await;
    one_more.ends(&mut session).await;
    assert_eq!(one_more.stdout(), "x\n");
}

#[tokio::test]
async fn a_source_is_unpacked_once_whatever_becomes_of_the_connection() {
    let archive = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(archive.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut tar = tar::Builder::new(archive.as_file());
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", &b"hello"[..]).unwrap();
    tar.finish().unwrap();
    let host = Host::start_with(&[("CREEL_SOURCE_DISK", archive.path())]);
    let mut session = host.first().await;
    let destination = host.writable("tree");
    let request =
        SourceUnpack { destination: destination.to_str().unwrap().to_owned(), user: crate::host::user() };
    session.send(ids::SOURCE, request.clone()).await;
    until("the file", || destination.join("file").exists()).await;
    drop(session);
    let mut session = host.resume().await;
    fs::remove_file(destination.join("file")).unwrap();
    session.send(ids::SOURCE, request.clone()).await;
    let result = SourceUnpackResult { error: String::new(), files: 1, bytes: 5 };
    assert_eq!(session.receive().await, Envelope::new(ids::SOURCE, result.clone()));
    assert!(!destination.join("file").exists());
    // Another one is another's, whatever its id.
    let other = host.writable("other");
    let request = SourceUnpack { destination: other.to_str().unwrap().to_owned(), ..request };
    session.send(ids::SOURCE, request).await;
    assert_eq!(session.receive().await, Envelope::new(ids::SOURCE, result));
    assert!(other.join("file").exists());
}
