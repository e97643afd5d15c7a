//! Lives and deaths on the host's own cgroup2; limits and counts over plain directories, since a test may not have the
//! controllers.

use std::fs;
use std::os::fd::AsFd;

use super::*;
use crate::host::cgroup::scratch::{Scratch, born_in};
use crate::host::{Child, Exit, inotify};
use crate::runtime::MachineUsage;

const PATIENCE: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    memory_max_bytes: 512 << 20,
    pids_max: 256,
    cpu_quota_us: Some(200_000),
    cpu_period_us: 100_000,
    cpu_weight: 100,
    io_weight: 50,
};

const LIMIT_FILES: [&str; 8] = [
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.max",
    "cpu.weight",
    "io.weight",
];

/// A plain directory with the files that stand in for the kernel's.
fn stand_in(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let directory = tempfile::tempdir().expect("a scratch directory");
    for (file, text) in files {
        fs::write(directory.path().join(file), text).expect("written");
    }
    let cgroup = Cgroup::open_any(directory.path()).expect("opened");
    (directory, cgroup)
}

fn said(error: &CgroupError, directory: &tempfile::TempDir) -> String {
    error.to_string().replace(&directory.path().display().to_string(), "<root>")
}

/// A root on the real cgroup2, and one that lacks what this host may not have: its proof is tested apart.
fn root_in(scratch: &Scratch) -> CgroupRoot {
    CgroupRoot { cgroup: Arc::new(Cgroup::open(scratch.cgroup.path()).expect("opened")) }
}

fn unlimited(root: &CgroupRoot, id: &str) -> MachineCgroup {
    MachineCgroup::acquire_with(root, id, LIMITS, &[], |_| Ok(Vec::new())).expect("acquired")
}

async fn end_of(child: &mut Child) -> Exit {
    tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").expect("it is a child")
}

#[test]
fn a_root_that_will_not_do_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let error = CgroupRoot::open(&directory.path().join("gone")).expect_err("not there");
    insta::assert_snapshot!(said(&error, &directory), @"`<root>/gone` does not exist: creel-machines.service is not running; run `systemctl start creel-machines.service`");
    let error = CgroupRoot::open(directory.path()).expect_err("a plain directory");
    insta::assert_snapshot!(said(&error, &directory), @"`<root>` is not on a cgroup2 file system: creel needs the unified hierarchy of cgroup v2");

    let (directory, cgroup) =
        stand_in(&[("cgroup.controllers", "hugetlb pids\n"), ("cgroup.subtree_control", "\n")]);
    let error = CgroupRoot::proven(cgroup).expect_err("no controllers");
    insta::assert_snapshot!(said(&error, &directory), @"`<root>` is not offered the controllers cpu, io, memory: creel needs cgroup v2 alone (boot with `systemd.unified_cgroup_hierarchy=1` and without `cgroup_disable=`), and `Delegate=yes` on creel-machines.service");

    let (directory, cgroup) = stand_in(&[
        ("cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("cgroup.subtree_control", "cpu memory\n"),
    ]);
    let error = CgroupRoot::proven(cgroup).expect_err("not enabled");
    insta::assert_snapshot!(said(&error, &directory), @"`<root>/cgroup.subtree_control` lacks the controllers io, pids: creel-machines.service enables them when it starts; with no machine running, run `systemctl restart creel-machines.service`");

    let all = "cpuset cpu io memory pids\n";
    let (directory, cgroup) =
        stand_in(&[("cgroup.controllers", all), ("cgroup.subtree_control", "pids memory io cpu\n")]);
    let root = CgroupRoot::proven(cgroup).expect("complete");
    assert_eq!(root.path(), directory.path());
}

#[test]
fn limits_are_written_as_the_kernel_wants_them() {
    let files = LIMIT_FILES.map(|file| (file, "max\n"));
    let (directory, vm) = stand_in(&files);
    assert_eq!(LIMITS.write(&vm).expect("written"), []);
    let written = LIMIT_FILES
        .map(|file| {
            format!("{file}: {}", fs::read_to_string(directory.path().join(file)).expect("there").trim())
        })
        .join("\n");
    insta::assert_snapshot!(written, @r"
    memory.max: 536870912
    memory.high: max
    memory.swap.max: 0
    memory.oom.group: 1
    pids.max: 256
    cpu.max: 200000 100000
    cpu.weight: 100
    io.weight: default 50
    ");
    Limits { cpu_quota_us: None, ..LIMITS }.write(&vm).expect("written");
    assert_eq!(vm.read("cpu.max").expect("there"), "max 100000");
}

#[test]
fn what_a_kernel_may_lack_is_told_and_what_it_must_have_is_an_error() {
    for optional in [&["io.weight"][..], &["memory.swap.max", "io.weight"]] {
        let files = LIMIT_FILES.map(|file| (file, "max\n"));
        let (directory, vm) = stand_in(&files);
        optional.iter().for_each(|file| fs::remove_file(directory.path().join(file)).expect("removed"));
        let missing = LIMITS.write(&vm).expect("the rest is written");
        assert_eq!(missing.iter().map(|missing| missing.file).collect::<Vec<_>>(), optional);
        assert_eq!(
            missing.last().expect("told").to_string(),
            "the kernel has no `io.weight`: a machine that is busy with its disks slows the others"
        );
    }
    for required in ["memory.max", "memory.oom.group", "pids.max", "cpu.max", "cpu.weight"] {
        let files = LIMIT_FILES.map(|file| (file, "max\n"));
        let (directory, vm) = stand_in(&files);
        fs::remove_file(directory.path().join(required)).expect("removed");
        let error = LIMITS.write(&vm).expect_err("a machine without it is not limited").to_string();
        assert!(error.starts_with("failed to write `") && error.contains(required), "{error}");
    }
}

#[test]
fn signs_and_usage_are_read_from_what_the_kernel_counts() {
    let pressure =
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=70\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
    let (directory, vm) = stand_in(&[
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 4\noom_group_kill 1\n"),
        ("pids.events", "max 3\n"),
        ("cpu.stat", "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n"),
        ("memory.peak", "536870912\n"),
        (
            "io.stat",
            "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
        ),
        ("pids.current", "5\n"),
        ("cpu.pressure", pressure),
        ("memory.pressure", pressure),
        ("io.pressure", pressure),
    ]);
    let signs = CgroupSigns::read(&vm).expect("read");
    let expected = CgroupSigns { limit_ooms: 2, oom_kills: 4, oom_group_kills: Some(1), pids_max_hits: 3 };
    assert_eq!(signs, expected);
    assert!(signs.killed_at_own_limit());
    assert!(!CgroupSigns { limit_ooms: 0, ..signs }.killed_at_own_limit(), "the host's memory ran out");

    let waited = Some(Duration::from_micros(70));
    let expected = MachineUsage {
        cpu: Duration::from_millis(1500),
        peak_memory_kib: Some(512 << 10),
        memory_limit_kib: Some(1 << 20),
        read_bytes: 11,
        written_bytes: 22,
        peak_pids: Some(5),
        cpu_pressure: waited,
        memory_pressure: waited,
        io_pressure: waited,
    };
    assert_eq!(signs::usage(&vm, 1 << 30), expected);
    fs::write(directory.path().join("pids.peak"), "9\n").expect("written");
    assert_eq!(signs::usage(&vm, 1 << 30).peak_pids, Some(9), "a newer kernel's peak");

    let (_directory, bare) = stand_in(&[]);
    assert!(CgroupSigns::read(&bare).is_err(), "signs that were not read are not zero");
    let usage = signs::usage(&bare, 1 << 30);
    assert_eq!((usage.peak_memory_kib, usage.peak_pids, usage.io_pressure), (None, None, None));
}

#[test]
fn an_acquire_that_fails_half_way_leaves_nothing() {
    let Some(scratch) = Scratch::make("an_acquire_that_fails_half_way_leaves_nothing") else { return };
    let root = root_in(&scratch);
    let failing = |vm: &Cgroup| {
        assert!(vm.path().join("cgroup.procs").exists(), "it was made");
        vm.write("memory.nonsense", "1").map(|()| Vec::new())
    };
    MachineCgroup::acquire_with(&root, "a", LIMITS, &[], failing).expect_err("no such file");
    MachineCgroup::acquire_with(&root, "a", LIMITS, &["nonsense"], |_| Ok(Vec::new()))
        .expect_err("no such thing");
    assert_eq!(scratch.cgroup.children().expect("readable"), Vec::<String>::new());
    for id in ["", "A", "a/b", ".."] {
        assert!(
            matches!(MachineCgroup::acquire(&root, id, LIMITS), Err(CgroupError::BadId { .. })),
            "{id:?}"
        );
    }
}

#[tokio::test]
async fn a_machine_lives_in_its_cgroups_and_ends_with_all_its_processes() {
    let Some(scratch) = Scratch::make("a_machine_lives_in_its_cgroups") else { return };
    let root = root_in(&scratch);
    let mut machine = unlimited(&root, "one");
    let _neighbour = unlimited(&root, "two");
    assert_eq!(machine.path(), scratch.cgroup.path().join("m-one"));
    assert!(matches!(
        MachineCgroup::acquire(&root, "one", LIMITS),
        Err(CgroupError::Exists { id }) if id == "one"
    ));
    scratch.cgroup.create_child("keep").expect("the holder's").create_child("m-deep").expect("made");
    scratch.cgroup.create_child("m-NOT").expect("made");
    assert_eq!(root.discover().expect("readable"), ["one", "two"]);

    let leaf = |name: &str| Cgroup::open(&machine.path().join(name)).expect("made");
    let mut keeper = born_in(&leaf("keeper"), "exec sleep 1000");
    let mut qemu = born_in(&leaf("vm"), "sleep 1000 & i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; wait");
    assert!(machine.usage().cpu_pressure.is_some() || !machine.path().join("vm/cpu.pressure").exists());
    machine.end(PATIENCE).await.expect("ended");
    assert_eq!((end_of(&mut keeper).await, end_of(&mut qemu).await), (Exit::Signal(9), Exit::Signal(9)));
    assert_eq!(root.discover().expect("readable"), ["two"]);
    assert!(machine.usage().cpu > Duration::ZERO, "what was used is known after the end");
    machine.end(PATIENCE).await.expect("idempotent");
    drop(machine);
    unlimited(&root, "one").end(PATIENCE).await.expect("the id is free again");
}

#[tokio::test]
async fn a_machine_whose_cgroups_somebody_else_removed_ends_well() {
    let Some(scratch) = Scratch::make("a_machine_whose_cgroups_somebody_else_removed") else { return };
    let root = root_in(&scratch);
    let mut machine = unlimited(&root, "one");
    root.reclaim("one", PATIENCE).await.expect("the holder was stopped");
    machine.end(PATIENCE).await.expect("nothing to do");
    assert!(machine.signs().is_err(), "nothing is known of it");
}

#[tokio::test]
async fn what_another_creeld_left_is_found_and_reclaimed() {
    let Some(scratch) = Scratch::make("what_another_creeld_left_is_found_and_reclaimed") else { return };
    let root = root_in(&scratch);
    let machine = unlimited(&root, "left");
    let vm = Cgroup::open(&machine.path().join("vm")).expect("made");
    let mut qemu = born_in(&vm, "exec sleep 1000");
    machine.leave();
    assert_eq!(root.discover().expect("readable"), ["left"]);
    assert!(vm.populated().expect("readable"), "it lives on");
    root.reclaim("left", PATIENCE).await.expect("reclaimed");
    assert_eq!(end_of(&mut qemu).await, Exit::Signal(9));
    assert_eq!(root.discover().expect("readable"), Vec::<String>::new());
    root.reclaim("left", PATIENCE).await.expect("once more is no error");
    assert!(matches!(root.reclaim("../x", PATIENCE).await, Err(CgroupError::BadId { .. })));
}

#[tokio::test]
async fn a_dropped_machine_is_killed_and_removed_without_its_owner() {
    let Some(scratch) = Scratch::make("a_dropped_machine_is_killed_and_removed") else { return };
    let root = root_in(&scratch);
    let machine = unlimited(&root, "one");
    let vm = Cgroup::open(&machine.path().join("vm")).expect("made");
    let mut qemu = born_in(&vm, "exec sleep 1000");
    let mut removals = inotify::watch(scratch.cgroup.as_fd(), inotify::Events::DELETE).expect("watched");
    drop(machine);
    assert_eq!(end_of(&mut qemu).await, Exit::Signal(9));
    while !root.discover().expect("readable").is_empty() {
        tokio::time::timeout(PATIENCE, removals.changed()).await.expect("the cgroups go");
    }
}

#[tokio::test]
async fn a_sign_wakes_who_waits_for_one() {
    let (_directory, cgroup) = stand_in(&[]);
    let root = CgroupRoot { cgroup: Arc::new(cgroup) };
    let count = |vm: &Cgroup, file: &str, text: &str| fs::write(vm.path().join(file), text).expect("written");
    let none = |vm: &Cgroup| {
        count(vm, "memory.events", "oom 0\noom_kill 0\n");
        count(vm, "pids.events", "max 0\n");
        Ok(Vec::new())
    };
    let mut machine = MachineCgroup::acquire_with(&root, "one", LIMITS, &[], none).expect("acquired");
    let vm = Cgroup::open_any(&machine.path().join("vm")).expect("made");
    for (file, text) in [("memory.events", "oom 1\noom_kill 2\n"), ("pids.events", "max 3\n")] {
        let before = machine.signs().expect("readable");
        count(&vm, file, text);
        // A truncation and a write are two changes, between which there is nothing to read.
        while machine.signs().map_or(true, |signs| signs == before) {
            tokio::time::timeout(PATIENCE, machine.changed()).await.expect("told");
        }
    }
    let expected = CgroupSigns { limit_ooms: 1, oom_kills: 2, oom_group_kills: None, pids_max_hits: 3 };
    assert_eq!(machine.signs().expect("readable"), expected);
    // Nothing of the kernel's is behind it that could be killed or removed.
    machine.leave();
}

/// For hosts that have the controllers, as a machine host does.
#[tokio::test]
async fn the_kernel_holds_a_machine_to_its_limits_and_says_so() {
    let test = "the_kernel_holds_a_machine_to_its_limits_and_says_so";
    let Some(scratch) = Scratch::make(test) else { return };
    if let Some(controllers) = lacking(&scratch.cgroup.controllers().expect("readable")) {
        eprintln!("NOT TESTED: `{test}`: the root of this host's cgroup2 does not enable {controllers}");
        return;
    }
    scratch.cgroup.enable(&CONTROLLERS).expect("enabled");
    let root = CgroupRoot::open(scratch.cgroup.path()).expect("proven");
    let limits = Limits { memory_max_bytes: 48 << 20, pids_max: 8, ..LIMITS };
    let leaf = |machine: &MachineCgroup, name: &str| Cgroup::open(&machine.path().join(name)).expect("made");

    let mut machine = MachineCgroup::acquire(&root, "forks", limits).expect("acquired");
    let vm = leaf(&machine, "vm");
    let set = ["memory.max", "memory.high", "memory.oom.group", "pids.max", "cpu.max", "cpu.weight"]
        .map(|file| vm.read(file).expect("readable"));
    assert_eq!(set, ["50331648\n", "max\n", "1\n", "8\n", "200000 100000\n", "100\n"]);
    let told: Vec<_> = machine.missing().iter().map(|missing| missing.file).collect();
    for (file, value) in [("memory.swap.max", "0\n"), ("io.weight", "default 50\n")] {
        assert_eq!(vm.read(file).ok(), (!told.contains(&file)).then(|| value.to_owned()));
    }
    assert_eq!(
        machine.signs().expect("readable"),
        CgroupSigns { oom_group_kills: Some(0), ..Default::default() }
    );
    drop(born_in(&vm, "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done; wait"));
    while machine.signs().expect("readable").pids_max_hits == 0 {
        tokio::time::timeout(PATIENCE, machine.changed()).await.expect("told");
    }
    assert!(machine.usage().peak_pids >= Some(7));
    machine.end(PATIENCE).await.expect("ended");

    let mut machine = MachineCgroup::acquire(&root, "memory", limits).expect("acquired");
    let _keeper = born_in(&leaf(&machine, "keeper"), "exec sleep 1000");
    let mut helper = born_in(&leaf(&machine, "vm"), "exec sleep 1000");
    let mut qemu = born_in(&leaf(&machine, "vm"), "exec dd if=/dev/zero of=/dev/null bs=256M count=1");
    assert_eq!(end_of(&mut qemu).await, Exit::Signal(9));
    assert!(machine.signs().expect("readable").killed_at_own_limit(), "counted before it was killed");
    assert_eq!(end_of(&mut helper).await, Exit::Signal(9), "all of `vm` ends at once");
    assert!(leaf(&machine, "keeper").populated().expect("readable"), "the keeper lives");
    tokio::time::timeout(PATIENCE, machine.changed()).await.expect("told");
    assert!(machine.memory_peak_bytes().is_none_or(|bytes| (40 << 20..=48 << 20).contains(&bytes)));
    machine.end(PATIENCE).await.expect("ended");
    assert!(machine.signs().expect("known").killed_at_own_limit(), "known after the end");
    assert!(machine.usage().cpu > Duration::ZERO);
}
