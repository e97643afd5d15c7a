//! The host's own kernel: every rule here was broken once by a hand-made cgroup, or by a copied descriptor.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use rustix::pipe::{PipeFlags, pipe_with};

use super::scratch::{Scratch, born_in};
use super::*;
use crate::host::{Child, Exit, Spawn, spawn};

const PATIENCE: Duration = Duration::from_secs(20);

async fn end_of(child: &mut Child) -> Exit {
    tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").expect("it is a child")
}

#[tokio::test]
async fn a_process_is_born_in_its_cgroup() {
    let Some(scratch) = Scratch::make("a_process_is_born_in_its_cgroup") else { return };
    let leaf = scratch.cgroup.create_child("leaf").expect("made");
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let spec = Spawn::new(Path::new("/bin/cat")).expect("no NUL").arg("/proc/self/cgroup").expect("no NUL");
    let mut child = spawn(&spec.fd(write.as_fd(), 1).cgroup(leaf.as_fd())).expect("it starts");
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).expect("text");
    assert_eq!(end_of(&mut child).await, Exit::Code(0));
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup2 has the number 0");
    let suffix = format!("/{}/leaf", scratch.cgroup.path().file_name().expect("named").display());
    assert!(own.ends_with(&suffix), "{own} is not {suffix}");
    leaf.wait_empty(PATIENCE).await.expect("a zombie reaped or not is no process");
}

#[tokio::test]
async fn a_cgroup_that_takes_no_process_fails_the_start_and_leaves_no_child() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let plain = Cgroup::open_any(directory.path()).expect("opened");
    let spec = Spawn::new(Path::new("/bin/true")).expect("no NUL");
    let error = spawn(&spec.cgroup(plain.as_fd())).expect_err("no cgroup");
    assert_eq!(error.step, crate::host::SpawnStep::Clone);
}

#[tokio::test]
async fn kill_ends_all_levels_and_the_kernel_tells_of_it() {
    let Some(scratch) = Scratch::make("kill_ends_all_levels_and_the_kernel_tells_of_it") else { return };
    let machine = scratch.cgroup.create_child("m-1").expect("made");
    let leaves = ["keeper", "vm"].map(|name| machine.create_child(name).expect("made"));
    assert!(!machine.populated().expect("readable"));
    machine.wait_empty(Duration::ZERO).await.expect("empty is empty at once");
    let mut children: Vec<Child> =
        leaves.iter().map(|leaf| born_in(leaf, "sleep 1000 & exec sleep 1000")).collect();
    assert!(machine.populated().expect("readable"));

    let error = scratch.cgroup.remove_tree("m-1").expect_err("somebody lives there");
    assert_eq!(error.errno(), Some(Errno::BUSY));
    let error = machine.wait_empty(Duration::from_millis(30)).await.expect_err("nobody has killed them");
    let text = error.to_string();
    assert!(text.contains("m-1") && text.contains("(sleep, state S)"), "{text}");

    scratch.cgroup.end_child("m-1", PATIENCE).await.expect("ended");
    assert!(!machine.path().exists());
    for child in &mut children {
        assert_eq!(end_of(child).await, Exit::Signal(9));
    }
    scratch.cgroup.end_child("m-1", PATIENCE).await.expect("once more is no error");
    assert_eq!(scratch.cgroup.children().expect("readable"), Vec::<String>::new());
}

#[tokio::test]
async fn a_cgroup_that_can_not_be_watched_is_waited_for_all_the_same() {
    let Some(scratch) = Scratch::make("a_cgroup_that_can_not_be_watched_is_waited_for_all_the_same") else {
        return;
    };
    let leaf = scratch.cgroup.create_child("leaf").expect("made");
    let mut child = born_in(&leaf, "exec sleep 1000");
    let error = leaf.wait_empty_by(None, Duration::from_millis(30)).await.expect_err("it lives");
    assert!(matches!(error, crate::host::CgroupFsError::StillPopulated { .. }), "{error}");
    leaf.kill().expect("killed");
    leaf.wait_empty_by(None, PATIENCE).await.expect("empty");
    assert_eq!(end_of(&mut child).await, Exit::Signal(9));
}

#[tokio::test]
async fn the_end_of_the_last_process_wakes_who_waits() {
    let Some(scratch) = Scratch::make("the_end_of_the_last_process_wakes_who_waits") else { return };
    let leaf = scratch.cgroup.create_child("leaf").expect("made");
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let spec = Spawn::new(Path::new("/bin/sh")).expect("no NUL").arg("-c").expect("no NUL");
    let spec = spec.arg("read line").expect("no NUL").fd(read.as_fd(), 0).cgroup(leaf.as_fd());
    let child = spawn(&spec).expect("it starts");
    drop(read);
    let mut waiting = std::pin::pin!(scratch.cgroup.wait_empty(PATIENCE));
    tokio::select! {
        biased;
        outcome = &mut waiting => panic!("it lives, yet: {outcome:?}"),
        () = tokio::task::yield_now() => {}
    }
    drop(write);
    waiting.await.expect("the kernel tells it");
    drop(child);
}

#[test]
fn levels_are_made_listed_and_removed() {
    let Some(scratch) = Scratch::make("levels_are_made_listed_and_removed") else { return };
    let top = &scratch.cgroup;
    for name in ["b", "a"] {
        top.create_child(name).expect("made").create_child("below").expect("made");
    }
    assert_eq!(top.children().expect("readable"), ["a", "b"], "files are no children");
    assert_eq!(top.create_child("a").expect_err("there is one").errno(), Some(Errno::EXIST));
    assert_eq!(top.remove_child("a").expect_err("it has a child").errno(), Some(Errno::BUSY));
    top.remove_tree("a").expect("removed");
    top.remove_tree("a").expect("gone is gone");
    assert_eq!(top.children().expect("readable"), ["b"]);
    for name in ["", ".", "..", "a/b", "a\nb"] {
        assert!(matches!(top.create_child(name), Err(CgroupFsError::BadName { .. })), "{name:?}");
    }
}

#[test]
fn what_the_kernel_refuses_is_told_with_file_and_value() {
    let Some(scratch) = Scratch::make("what_the_kernel_refuses_is_told_with_file_and_value") else { return };
    let path = scratch.cgroup.path().display().to_string();
    let error = scratch.cgroup.write("cgroup.max.depth", "many").expect_err("no number");
    assert_eq!(error.to_string(), format!("failed to write `many` to `{path}/cgroup.max.depth`"));
    assert_eq!(error.errno(), Some(Errno::INVAL));
    let error = scratch.cgroup.read("memory.nonsense").expect_err("no such file");
    assert_eq!(error.to_string(), format!("failed to open `{path}/memory.nonsense`"));
    let error = scratch.cgroup.enable(&["nonsense"]).expect_err("no such controller");
    assert_eq!(error.to_string(), format!("failed to write `+nonsense` to `{path}/cgroup.subtree_control`"));
}

#[test]
fn what_is_offered_can_be_enabled() {
    let Some(scratch) = Scratch::make("what_is_offered_can_be_enabled") else { return };
    let offered = scratch.cgroup.controllers().expect("readable");
    let names: Vec<&str> = offered.iter().map(String::as_str).collect();
    scratch.cgroup.enable(&names).expect("enabled");
    let mut enabled = scratch.cgroup.enabled_controllers().expect("readable");
    enabled.sort_unstable();
    let mut expected = offered.clone();
    expected.sort_unstable();
    assert_eq!(enabled, expected);
}

#[test]
fn a_plain_directory_is_no_cgroup() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let error = Cgroup::open(directory.path()).expect_err("plain");
    let path = directory.path().display();
    assert_eq!(
        error.to_string(),
        format!("`{path}` is not on a cgroup2 file system: creel needs the unified hierarchy of cgroup v2")
    );
    let error = Cgroup::open(&directory.path().join("missing")).expect_err("missing");
    assert_eq!(error.errno(), Some(Errno::NOENT));
}

#[test]
fn a_value_written_replaces_what_was_there() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let mut file = File::create(directory.path().join("cpu.max")).expect("made");
    file.write_all(b"max 100000\n").expect("written");
    let plain = Cgroup::open_any(directory.path()).expect("opened");
    plain.write("cpu.max", "5 1000").expect("written");
    assert_eq!(plain.read("cpu.max").expect("readable"), "5 1000");
    assert!((plain.has("cpu.max"), plain.has("io.weight")) == (true, false));
}

#[test]
fn who_may_not_make_cgroups_is_told_beforehand() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a scratch directory");
    let plain = Cgroup::open_any(directory.path()).expect("opened");
    plain.check_writable().expect("one's own");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o555)).expect("one's own");
    let outcome = std::thread::scope(|scope| {
        let check = || {
            // SAFETY: touches no memory, and this thread alone, which ends here (setfsuid(2)). Root becomes nobody, for
            // whom permissions count; others stay who they are.
            unsafe { libc::setfsuid(65534) };
            plain.check_writable()
        };
        scope.spawn(check).join().expect("no panic")
    });
    assert_eq!(outcome.expect_err("read-only").errno(), Some(Errno::ACCESS));
}
