//! Who may take up a connection, and what becomes of execs when nobody does (`creel.resume.1`).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use creel_proto::agent::{ExecStart, Init, ResumeChallenge};
use creel_proto::names::ids;
use tokio::time::timeout;

use crate::credit::{Exec, KEY, WINDOW, init};
use crate::host::{Host, Session, sh, until};

/// Starts a program that leaves a trace when it ends, and hangs up on the agent.
async fn leave_one_behind(host: &Host, mut session: Session) -> PathBuf {
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let mut exec = Exec::new("x");
    let script = "echo ready; until [ -e go ]; do sleep 0.02; done; head -c 3000000 /dev/zero; touch done";
    exec.start(&mut session, ExecStart { cwd, ..sh(script) }, WINDOW).await;
    exec.shows(&mut session, "ready").await;
    directory
}

#[tokio::test]
async fn a_host_that_greets_anew_knows_nothing_and_holds_up_nothing() {
    let (host, session) = Host::with_credit().await;
    let directory = leave_one_behind(&host, session).await;
    let (mut session, _) = host.greeted().await;
    session.send(ids::INIT, init()).await;
    let mut exec = Exec::new("x");
    exec.attach(&mut session, WINDOW).await;
    exec.ends(&mut session).await;
    assert!(exec.exit.take().unwrap().unknown);
    exec.start(&mut session, sh("echo another"), WINDOW).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.stdout(), "another\n");
    fs::write(directory.join("go"), "").unwrap();
    until("the end of what runs on", || directory.join("done").exists()).await;
}

#[tokio::test]
async fn a_host_without_a_key_can_not_come_back() {
    let host = Host::start();
    let (mut session, _) = host.greeted().await;
    session.send(ids::INIT, init()).await;
    let directory = leave_one_behind(&host, session).await;
    fs::write(directory.join("go"), "").unwrap();
    until("the end of what runs on", || directory.join("done").exists()).await;
    let (mut session, _) = host.greeted().await;
    session.send(ids::RESUME, ResumeChallenge { nonce: vec![1; 32].into() }).await;
    session.is_ended().await;
    let (mut session, _) = host.greeted().await;
    session.send(ids::INIT, Init { resumed: true, ..init() }).await;
    session.is_ended().await;
    let (mut session, _) = host.greeted().await;
    session.send(ids::INIT, Init { machine_key: vec![1; 31].into(), ..init() }).await;
    session.is_ended().await;
    let mut session = host.first().await;
    let mut exec = Exec::new("y");
    exec.start(&mut session, sh("exit 3"), WINDOW).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.exit_code(), 3);
}

#[tokio::test]
async fn a_host_of_version_1_after_one_with_credit_gets_plain_text() {
    let (host, session) = Host::with_credit().await;
    let directory = leave_one_behind(&host, session).await;
    let mut session = host.accept_with(&[]).await;
    let ended = session.exec(sh(r"printf 'a\377b'")).await;
    assert_eq!(ended.stdout(), "a\u{fffd}b");
    assert_eq!((ended.exit.stdout_bytes, ended.exit.max_rss_kib), (0, 0));
    fs::write(directory.join("go"), "").unwrap();
    until("the end of what runs on", || directory.join("done").exists()).await;
}

#[tokio::test]
async fn the_key_can_not_be_read_from_the_agent() {
    let (host, mut session) = Host::with_credit().await;
    let agent = host.agent.id();
    let script =
        format!("cat /proc/{agent}/mem /proc/{agent}/environ /proc/{agent}/maps; ls /proc/{agent}/fd");
    let mut exec = Exec::new("thief");
    exec.start(&mut session, sh(&script), WINDOW).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.stdout(), "");
    assert_ne!(exec.exit_code(), 0);
    let own = String::from_utf8(KEY.to_vec()).unwrap();
    let script = "cat /proc/self/environ /proc/self/cmdline; cat /proc/self/maps; ls -l /proc/self/fd";
    exec = Exec::new("own");
    exec.start(&mut session, sh(script), WINDOW).await;
    exec.ends(&mut session).await;
    assert!(!exec.stdout().contains(&own));
}

#[tokio::test]
async fn the_agent_comes_back_at_once() {
    let (host, session) = Host::with_credit().await;
    drop(session);
    // A host gives up after five seconds.
    let session = timeout(Duration::from_secs(2), host.resume()).await.expect("it dials again");
    drop(session);
    let session = timeout(Duration::from_secs(2), host.resume()).await.expect("and again");
    drop(session);
}

#[tokio::test]
async fn a_proof_is_asked_for_once_a_connection() {
    let (host, session) = Host::with_credit().await;
    drop(session);
    let (mut session, _) = host.greeted().await;
    for _ in 0..2 {
        session.send(ids::RESUME, ResumeChallenge { nonce: vec![1; 32].into() }).await;
    }
    session.is_ended().await;
    let mut session = host.resume().await;
    let mut exec = Exec::new("x");
    exec.start(&mut session, sh("exit 3"), WINDOW).await;
    exec.ends(&mut session).await;
    assert_eq!(exec.exit_code(), 3);
}
