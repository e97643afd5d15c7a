//! The host's disk is full: said so, at once.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Repository, Run, Sandbox, TINY, World, workflow};

/// The command with a cache directory of `size`.
fn with_cache_of(size: &str, sandbox: &Sandbox, creel: &Command) -> Command {
    with_disk_of(size, "CREEL_CACHE__DIR", sandbox, creel)
}

/// The command with a directory of `size` (as tmpfs takes it), in a mount namespace of its own: nothing is left to
/// unmount.
fn with_disk_of(size: &str, directory: &str, sandbox: &Sandbox, creel: &Command) -> Command {
    let mut command = Command::new("unshare");
    sandbox.settle_in(&mut command);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let mount = format!(r#"mount -t tmpfs -o "size=$1" disk "${directory}" && shift && exec "$@""#);
    command.args(["--mount", "sh", "-c", &mount, "sh", size]).arg(creel.get_program()).args(creel.get_args());
    if let Some(directory) = creel.get_current_dir() {
        command.current_dir(directory);
    }
    command
}

#[test]
fn no_room_for_a_volume_is_a_full_host_disk() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let creel = sandbox.workflow(&workflow(TINY, &[("never", "true")]));
    let ended = Run::start(with_cache_of("64k", &sandbox, &creel)).finish();
    ended.expect_code(125).expect_stderr("host disk full").expect_stderr("/workspace");
    assert!(!ended.stderr.contains("==> never"), "{}", ended.said());
}

#[test]
fn no_room_for_the_source_is_a_full_host_disk() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = Repository::create(sandbox.work_dir().join("project"));
    repository.write(
        "ci.yml",
        "engine: microvm\nimage: tiny\nwhen:\n  - event: manual\nsteps:\n  - command: 'true'\n",
    );
    repository.write("large", vec![b'x'; 2 << 20]);
    repository.commit();
    let mut creel = sandbox.creel(["run", "-f", "ci.yml"]);
    creel.current_dir(&repository.path);
    let ended = Run::start(with_cache_of("1m", &sandbox, &creel)).finish();
    ended.expect_code(125);
    let said = ended.stderr.to_lowercase();
    assert!(said.contains("disk full") || said.contains("disk is full"), "{}", ended.said());
}

#[test]
fn a_guest_that_writes_more_than_the_host_has_ends_at_once() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let write =
        "echo writing\ndd if=/dev/urandom of=/workspace/large bs=1M count=200 conv=fsync\necho written";
    let creel = sandbox.workflow(&workflow(TINY, &[("write", write), ("next", "true")]));
    let run = Run::start(with_cache_of("40m", &sandbox, &creel));
    let since = run.wait_for_stdout("writing");
    let ended = run.finish();
    ended
        .expect_code(125)
        .expect_stderr("step `write`: host disk full")
        .expect_within(Duration::from_secs(30), since);
    assert!(!ended.text().contains("written"), "{}", ended.said());
}

#[test]
fn no_room_for_the_log_is_a_full_host_disk() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let write = "echo writing\nhead -c 62914560 /dev/zero | tr '\\0' x\necho written";
    let creel = sandbox.workflow(&workflow(TINY, &[("write", write), ("next", "true")]));
    // What is remembered of it is seen on the same disk only.
    let mut and_then_listed = Command::new("sh");
    and_then_listed.args(["-c", r#""$@"; code=$?; "$1" ps -a >&2; exit $code"#, "sh"]);
    and_then_listed.arg(creel.get_program()).args(creel.get_args());
    let run = Run::start(with_disk_of("40m", "CREEL_STATE__DIR", &sandbox, &and_then_listed));
    let since = run.wait_for_stdout("writing");
    let ended = run.finish();
    ended
        .expect_code(125)
        .expect_stderr("step `write`: host disk full")
        .expect_within(Duration::from_secs(60), since);
    let listed = ended.stderr.lines().last().unwrap_or_default();
    assert!(listed.contains("ended") && listed.contains("host disk full"), "{}", ended.said());
}
