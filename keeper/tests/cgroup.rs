//! Processes born in the cgroup that their plan names.

mod fixture;

use std::fs::{self, File};
use std::os::fd::AsRawFd;

use creel_keeper::{Ending, ProcessEnd};
use fixture::cgroup::{Cgroup, cgroup_of};
use fixture::{Fixture, lives_as, open_fds, shell, side, until};

fn files_of(pid: u32) -> Vec<String> {
    let name = |fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).map(|path| path.display().to_string());
    open_fds(pid).into_iter().filter_map(|fd| name(fd).ok()).collect()
}

#[test]
fn each_process_is_born_in_its_cgroup_and_nobody_keeps_the_descriptor() {
    let Some(cgroup) = Cgroup::for_test("born") else { return };
    let (vm, side_group) = (cgroup.child("vm"), cgroup.child("side"));
    let fixture = Fixture::daemon();
    let mut first = side("first", &lives_as("first.pid"));
    let mut qemu = shell("qemu", &format!("cat /proc/self/cgroup > own; {}", lives_as("qemu.pid")));
    first.cgroup = Some(side_group.as_raw_fd());
    qemu.cgroup = Some(vm.as_raw_fd());
    let plain = side("plain", &lives_as("plain.pid"));
    let keeper = fixture.start(&fixture.plan(vec![first, qemu, plain]));
    let pids = [fixture.pid("first.pid"), fixture.pid("qemu.pid"), fixture.pid("plain.pid")];

    let own = cgroup_of(std::process::id());
    assert_eq!(cgroup_of(keeper.0.id()), own);
    assert_eq!(pids.map(cgroup_of), [cgroup.line_of("side"), cgroup.line_of("vm"), own]);
    assert!(fs::read_to_string(fixture.path().join("own")).expect("written").contains(&cgroup.line_of("vm")));
    for pid in pids.into_iter().chain([keeper.0.id()]) {
        let files = files_of(pid);
        let marked = cgroup.path().display().to_string();
        assert!(!files.iter().any(|file| file.starts_with(&marked)), "{pid}: {files:?}");
    }
}

/// What the kernel does under `memory.oom.group`, and creel by `cgroup.kill`.
#[test]
fn a_keeper_beside_the_killed_cgroup_lives_to_tell() {
    let Some(cgroup) = Cgroup::for_test("killed") else { return };
    let vm = cgroup.child("vm");
    let fixture = Fixture::daemon();
    let processes = [side("helper", &lives_as("helper.pid")), shell("qemu", &lives_as("qemu.pid"))];
    let processes = processes.map(|mut process| {
        process.cgroup = Some(vm.as_raw_fd());
        process
    });
    let mut keeper = fixture.start(&fixture.plan(processes.into()));
    let _ = (fixture.pid("helper.pid"), fixture.pid("qemu.pid"));
    fs::write(cgroup.path().join("vm/cgroup.kill"), "1").expect("written");
    assert!(keeper.end().success());
    let killed = ProcessEnd::Signalled { signal: 9, core_dumped: false };
    assert_eq!(fixture.exit("qemu").expect("recorded").end, killed);
    assert_eq!(fixture.exit("helper").expect("recorded").end, killed);
    assert_eq!(fixture.done().expect("recorded").ending, Ending::ProcessEnded { process: "qemu".into() });
    until("an empty cgroup", || cgroup.read("vm/cgroup.events").contains("populated 0"));
}

#[test]
fn a_cgroup_that_is_none_fails_the_start_and_says_so() {
    let fixture = Fixture::daemon();
    let none = File::open("/").expect("open");
    let mut qemu = shell("qemu", "touch ran");
    qemu.cgroup = Some(none.as_raw_fd());
    let mut keeper = fixture.start(&fixture.plan(vec![qemu]));
    assert_eq!(keeper.end().code(), Some(1));
    let ProcessEnd::FailedToStart { error, errno } = fixture.exit("qemu").expect("recorded").end else {
        panic!("it did not start");
    };
    assert_eq!(errno, Some(9));
    assert!(error.starts_with("failed to clone into its cgroup: "), "{error}");
    assert!(!fixture.path().join("ran").exists());
}
