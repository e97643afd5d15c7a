use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use super::*;
use crate::host::Exit;

fn shell(script: &str) -> Spawn<'static> {
    let spec = Spawn::new(Path::new("/bin/sh")).expect("no NUL");
    spec.arg("-c").expect("no NUL").arg(script).expect("no NUL").env("PATH", "/usr/bin:/bin").expect("no NUL")
}

async fn end_of(mut child: Child) -> Exit {
    tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .expect("it ends")
        .expect("it is a child")
}

/// Runs a script and returns what it wrote.
async fn output_of(script: &str, namespaces: Namespaces) -> String {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let child = spawn(&shell(script).fd(write.as_fd(), 1).namespaces(namespaces)).expect("it starts");
    drop(write);
    assert_eq!(end_of(child).await, Exit::Code(0));
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).expect("text");
    text
}

#[tokio::test]
async fn exit_codes_and_signals_come_back() {
    assert_eq!(end_of(spawn(&shell("exit 9")).expect("it starts")).await, Exit::Code(9));
    let child = spawn(&shell("exec sleep 1000")).expect("it starts");
    child.signal(Signal::TERM).expect("it lives");
    assert_eq!(end_of(child).await, Exit::Signal(15));
}

#[tokio::test]
async fn a_missing_program_is_an_error_and_leaves_no_child() {
    let error = spawn(&Spawn::new(Path::new("/nonexistent/keeper")).expect("no NUL")).expect_err("missing");
    assert_eq!(error.step, SpawnStep::Exec);
    assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    assert_eq!(error.to_string(), "failed to start `/nonexistent/keeper`: could not execute it");
}

#[tokio::test]
async fn a_program_gets_the_named_descriptors_and_no_others() {
    let zero = File::open("/dev/zero").expect("open");
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    // Each takes the other's number: a copy in the wrong order would lose one.
    let spec =
        shell("exec sleep 1000").fd(zero.as_fd(), write.as_raw_fd()).fd(write.as_fd(), zero.as_raw_fd());
    let child = spawn(&spec).expect("it starts");
    let directory = format!("/proc/{}/fd", child.pid());
    let mut fds: Vec<RawFd> = fs::read_dir(&directory)
        .expect("it lives")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().parse().expect("a number"))
        .collect();
    fds.sort_unstable();
    let mut expected = [zero.as_raw_fd(), write.as_raw_fd()];
    expected.sort_unstable();
    assert_eq!(fds, expected);
    let target = |fd: RawFd| fs::read_link(format!("{directory}/{fd}")).expect("open");
    assert_eq!(target(write.as_raw_fd()), Path::new("/dev/zero"));
    assert!(target(zero.as_raw_fd()).to_string_lossy().starts_with("pipe:"));
    drop(read);
    child.signal(Signal::KILL).expect("it lives");
    end_of(child).await;
}

#[tokio::test]
async fn signals_begin_with_their_defaults_but_for_the_blocked_ones() {
    let child = spawn(&shell("exec sleep 1000").blocked(Signal::TERM)).expect("it starts");
    let status = fs::read_to_string(format!("/proc/{}/status", child.pid())).expect("it lives");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(
        field("SigIgn:"),
        Some("0000000000000000"),
        "this test ignores SIGPIPE, as every Rust program does"
    );
    assert_eq!(field("SigBlk:"), Some("0000000000004000"));
    child.signal(Signal::KILL).expect("it lives");
    end_of(child).await;
}

#[tokio::test]
async fn a_namespace_makes_it_pid_1_under_the_same_user() {
    for (namespaces, support) in
        [(Namespaces::Pid, crate::host::probe().pid), (Namespaces::UserPid, crate::host::probe().user_pid)]
    {
        let expected = format!("1 {} {}\n", rustix::process::geteuid(), rustix::process::getegid());
        match support {
            Ok(()) => assert_eq!(output_of("echo $$ $(id -u) $(id -g)", namespaces).await, expected),
            // What the probe denies, a start denies too.
            Err(_) => drop(spawn(&shell("true").namespaces(namespaces)).expect_err("the probe said so")),
        }
    }
}

fn is_gone(pid: Pid) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_dropped_child_leaves_no_zombie_with_and_without_a_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let wait = |pid| {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_gone(pid) {
            assert!(std::time::Instant::now() < deadline, "process {pid} is still there");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    // Dropped inside a runtime that goes on.
    let first = runtime();
    let pid = first.block_on(async { spawn(&shell("exit 0")).expect("it starts").pid() });
    first.block_on(async {
        while !is_gone(pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    // Dropped inside a runtime that ends first.
    let second = runtime();
    let pid = second.block_on(async { spawn(&shell("exec sleep 0.2")).expect("it starts").pid() });
    drop(second);
    wait(pid);
    // Dropped outside any.
    let third = runtime();
    let child = third.block_on(async { spawn(&shell("exec sleep 0.2")).expect("it starts") });
    let pid = child.pid();
    drop(child);
    wait(pid);
}
