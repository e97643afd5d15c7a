//! What programs write, and when it has been written.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use creel_proto::agent::ExecStart;

use crate::host::{Host, sh};

#[tokio::test]
async fn ten_mebibytes_of_noise_arrive_as_they_were() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    // xorshift: every byte value in every position, the same in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take((10 << 20) / 8)
    .flatten()
    .collect();
    fs::write(directory.join("noise"), &noise).unwrap();
    let cwd = directory.to_str().unwrap().to_owned();
    let ended = session.exec(ExecStart { cwd, ..sh("cat noise; cat noise >&2") }).await;
    assert!(ended.stdout == noise);
    assert!(ended.stderr == noise);
}

#[tokio::test]
async fn text_for_a_plain_host_is_cut_at_characters_only() {
    let host = Host::start();
    let mut session = host.accept_with(&[]).await;
    let directory = host.writable("work");
    let mut text = String::from("x");
    for number in 0..40_000 {
        write!(text, "äß€😀{number}").unwrap();
    }
    fs::write(directory.join("text"), &text).unwrap();
    let cwd = directory.to_str().unwrap().to_owned();
    let ended = session.exec(ExecStart { cwd, ..sh("cat text") }).await;
    assert!(ended.stdout() == text);

    // In two writes, with time to be read between them.
    session.send("halves", sh(r"printf '\303'; sleep 0.2; printf '\274-\377-\342\202'")).await;
    assert_eq!(session.end("halves").await.stdout(), "ü-\u{fffd}-\u{fffd}");
}

#[tokio::test]
async fn a_plain_host_sees_no_extension_fields() {
    let host = Host::start();
    let mut session = host.accept_with(&[]).await;
    let ended = session.exec(sh("echo out; kill -9 $$")).await;
    assert_eq!(ended.stdout(), "out\n");
    let exit = ended.exit;
    assert_eq!(exit.exit_code, 137);
    assert_eq!((exit.signal, exit.out_of_memory, exit.cpu_time_us, exit.max_rss_kib), (0, false, 0, 0));
}

#[tokio::test]
async fn two_programs_run_at_once() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    // Neither can end without the other: each waits for the other's pipe.
    session.send("make", sh(&format!("cd {cwd} && mkfifo a b"))).await;
    session.end("make").await;
    session.send("one", ExecStart { cwd: cwd.clone(), ..sh("echo one > a; cat b") }).await;
    session.send("two", ExecStart { cwd, ..sh("cat a; echo two > b") }).await;
    let ends = session.ends(&["one", "two"]).await;
    assert_eq!((ends["one"].stdout(), ends["two"].stdout()), ("two\n", "one\n"));
}

#[tokio::test]
async fn a_daemon_left_behind_does_not_hold_the_exit_and_lives_on() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let script =
        "(until [ -e go ]; do sleep 0.05; done; echo more && echo more && touch alive) & echo started";
    let ended = session.exec(ExecStart { cwd, ..sh(script) }).await;
    assert_eq!(ended.exit.exit_code, 0);
    assert_eq!(ended.stdout(), "started\n");
    // Its output goes nowhere now, yet writing must not kill it.
    fs::write(directory.join("go"), "").unwrap();
    crate::host::until("the daemon's next words", || directory.join("alive").exists()).await;
}

#[tokio::test]
async fn a_chattering_daemon_is_left_after_a_bounded_time() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let script = "(while [ ! -e stop ]; do echo chatter; sleep 0.05; done) & echo started";
    let started = Instant::now();
    let ended = session.exec(ExecStart { cwd, ..sh(script) }).await;
    fs::write(directory.join("stop"), "").unwrap();
    assert_eq!(ended.exit.exit_code, 0);
    assert!(ended.stdout().contains("started\n"));
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_child_that_outlives_the_program_a_little_is_heard_out() {
    let (_host, mut session) = Host::with_session().await;
    let ended = session.exec(sh("(sleep 0.3; echo late) & echo early")).await;
    assert_eq!(ended.stdout(), "early\nlate\n");
}

#[tokio::test]
async fn a_slow_host_slows_the_program_and_loses_nothing() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    const SIZE: usize = 64 << 20;
    let script = format!("head -c {SIZE} /dev/zero; touch written");
    session.send("big", ExecStart { cwd, ..sh(&script) }).await;
    // Time enough to write it all, if nothing held it up.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!directory.join("written").exists());
    let ended = session.end("big").await;
    assert_eq!((ended.stdout.len(), ended.exit.exit_code), (SIZE, 0));
    let status = fs::read_to_string(format!("/proc/{}/status", host.agent.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 48 << 10, "the agent held up to {peak_kib} KiB");
}
