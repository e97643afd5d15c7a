//! A real keeper over real processes. The binary comes from `cargo build -p creel-keeper`, or `CREEL_TEST_KEEPER`.

use std::path::Path;

use super::*;
use crate::runtime::microvm::directory::RunDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn keeper_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CREEL_TEST_KEEPER") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("this test binary");
    let found = exe.ancestors().map(|directory| directory.join("creel-keeper")).find(|path| path.is_file());
    found.expect(
        "no creel-keeper beside this test: run `cargo build -p creel-keeper`, or set CREEL_TEST_KEEPER",
    )
}

fn machine() -> (tempfile::TempDir, MachineDirectory) {
    let base = tempfile::tempdir().expect("a scratch directory");
    let run_dir = RunDir::open(&base.path().join("run")).expect("opened");
    let directory = MachineDirectory::acquire(&run_dir, "test").expect("acquired");
    (base, directory)
}

fn shell(name: &str, script: &str) -> ProcessSpec {
    let mut process = ProcessSpec::new(name, "/bin/sh");
    process.args(["-c", script]).env("PATH", "/usr/bin:/bin");
    process.stdout = Output::Console;
    process.stderr = Output::Console;
    process.ends_machine = name == "qemu";
    process
}

fn lives_as(file: &str) -> String {
    format!("echo $$ > {file}.tmp; mv {file}.tmp {file}; exec sleep 1000")
}

fn spec(directory: &MachineDirectory, processes: Vec<ProcessSpec>) -> KeeperSpec<'_> {
    KeeperSpec {
        program: keeper_binary(),
        namespaces: Namespaces::preferred(),
        root: None,
        held: Vec::new(),
        ownership: Ownership::Embedded,
        directory,
        processes,
        console: ConsoleSizes { head_bytes: 1024, tail_bytes: 1024 },
        cgroups: None,
    }
}

async fn all_events(keeper: &mut Keeper) -> Vec<KeeperEvent> {
    let mut events = keeper.events().expect("taken once");
    let mut seen = Vec::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, events.recv()).await.expect("the machine ends") {
        seen.push(event);
    }
    seen
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Host pids of everything below a process. Each thread has children of its own.
fn descendants(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children: Vec<i32> = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect();
    children.iter().flat_map(|pid| descendants(*pid)).chain(children.clone()).collect()
}

/// Waits until `pid` has exactly that many descendants, all of them at rest: scripts have helpers of their own.
async fn settled(pid: i32, count: usize) -> Vec<i32> {
    let at_rest =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name != "sh\n");
    until("the processes to settle", || {
        let pids = descendants(pid);
        pids.len() == count && pids.iter().all(at_rest)
    })
    .await;
    descendants(pid)
}

fn is_dead(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

#[tokio::test]
async fn every_recorded_end_comes_before_the_keepers() {
    let (_base, directory) = machine();
    let processes = vec![
        shell("helper", "exec sleep 1000"),
        shell("early", "touch early; exit 2"),
        shell("qemu", "while [ ! -e exit-early.json ]; do sleep 0.01; done; echo booted; exit 6"),
    ];
    let mut keeper = Keeper::start(spec(&directory, processes)).expect("it starts");
    let events = all_events(&mut keeper).await;
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            KeeperEvent::ProcessEnded(record) => Some((record.name.as_str(), record.end.clone())),
            KeeperEvent::Gone(_) => None,
        })
        .collect();
    let expected = [
        ("early", ProcessEnd::Exited { code: 2 }),
        ("qemu", ProcessEnd::Exited { code: 6 }),
        ("helper", ProcessEnd::Signalled { signal: 9, core_dumped: false }),
    ];
    assert_eq!(ends, expected);
    let Some(KeeperEvent::Gone(end)) = events.last() else { panic!("the last event is the keeper's end") };
    assert_eq!(end.exit, Some(Exit::Code(0)));
    assert_eq!(end.done.as_ref().expect("recorded").ending, Ending::ProcessEnded { process: "qemu".into() });
    assert_eq!(end.message, "");
    assert_eq!(keeper.console_tail(4), b"ted\n");
    assert_eq!(keeper.console().expect("readable").head, b"booted\n");
    assert_eq!(keeper.wait_gone(PATIENCE).await.as_ref(), Some(end));
}

#[tokio::test]
async fn a_helpers_end_is_told_while_the_machine_lives() {
    let (_base, directory) = machine();
    let processes = vec![shell("helper", "exit 1"), shell("qemu", "exec sleep 1000")];
    let mut keeper = Keeper::start(spec(&directory, processes)).expect("it starts");
    let mut events = keeper.events().expect("taken once");
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time");
    assert!(matches!(event, Some(KeeperEvent::ProcessEnded(record)) if record.name == "helper"));
    assert!(keeper.wait_gone(Duration::ZERO).await.is_none());
    let end = keeper.kill().await.expect("it ends");
    assert_eq!(end.done.expect("an orderly end").ending, Ending::Terminated);
}

#[tokio::test]
async fn killing_records_how_each_process_ended_in_every_namespace() {
    for namespaces in [Namespaces::None, Namespaces::Pid, Namespaces::UserPid] {
        let (_base, directory) = machine();
        let processes = vec![shell("helper", &lives_as("helper.pid")), shell("qemu", &lives_as("qemu.pid"))];
        let spec = KeeperSpec { namespaces, ..spec(&directory, processes) };
        let mut keeper = Keeper::start(spec).expect("it starts");
        let support = host::probe();
        let possible = match namespaces {
            Namespaces::None => true,
            Namespaces::Pid => support.pid.is_ok(),
            Namespaces::UserPid => support.user_pid.is_ok(),
            Namespaces::Jail | Namespaces::UserJail => unreachable!("they are another test's"),
        };
        assert_eq!(keeper.namespaces(), if possible { namespaces } else { Namespaces::None });
        let pids = settled(keeper.pid().as_raw_pid(), 2).await;
        let end = keeper.kill().await.expect("it ends");
        assert_eq!(end.exit, Some(Exit::Code(0)), "{namespaces:?}: {}", end.message);
        assert!(pids.into_iter().all(is_dead));
        assert_eq!(all_events(&mut keeper).await.len(), 3, "two ends and the keeper's");
    }
}

#[tokio::test]
async fn sigterm_is_not_lost_however_early_it_comes() {
    for _ in 0..10 {
        let (_base, directory) = machine();
        let keeper =
            Keeper::start(spec(&directory, vec![shell("qemu", "exec sleep 1000")])).expect("it starts");
        let end = keeper.kill().await.expect("it ends");
        assert_eq!(end.exit, Some(Exit::Code(0)), "it ended by itself, not by SIGKILL");
    }
}

#[tokio::test]
async fn a_killed_keeper_is_told_and_takes_its_children_along() {
    for namespaces in [Namespaces::None, Namespaces::preferred()] {
        let (_base, directory) = machine();
        let spec = KeeperSpec { namespaces, ..spec(&directory, vec![shell("qemu", &lives_as("qemu.pid"))]) };
        let mut keeper = Keeper::start(spec).expect("it starts");
        let pids = settled(keeper.pid().as_raw_pid(), 1).await;
        pidfd_send_signal(keeper.pidfd(), Signal::KILL).expect("it lives");
        let events = all_events(&mut keeper).await;
        let [KeeperEvent::Gone(end)] = &events[..] else { panic!("only the keeper's end: {events:?}") };
        assert_eq!((end.exit, &end.done), (Some(Exit::Signal(9)), &None));
        until("the child's death", || pids.iter().all(|pid| is_dead(*pid))).await;
    }
}

#[tokio::test]
async fn dropping_an_embedded_keeper_ends_everything_and_a_daemons_lives_on() {
    let (_base, directory) = machine();
    let keeper =
        Keeper::start(spec(&directory, vec![shell("qemu", &lives_as("qemu.pid"))])).expect("it starts");
    let pids = settled(keeper.pid().as_raw_pid(), 1).await;
    drop(keeper);
    until("the end of it all", || !directory.path().exists() && pids.iter().all(|pid| is_dead(*pid))).await;

    let (_base, directory) = machine();
    let spec = spec(&directory, vec![shell("qemu", &lives_as("qemu.pid"))]);
    let keeper = Keeper::start(KeeperSpec { ownership: Ownership::Daemon, ..spec }).expect("it starts");
    until("the process", || directory.path().join("qemu.pid").exists()).await;
    let pid = keeper.pid();
    drop(keeper);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!is_dead(pid.as_raw_pid()));
    rustix::process::kill_process(pid, Signal::TERM).expect("it lives");
    until("its end, reaped", || !Path::new(&format!("/proc/{pid}")).exists()).await;
}

#[tokio::test]
async fn no_copy_of_a_handed_down_descriptor_stays_in_creel_or_keeper() {
    let (_base, directory) = machine();
    let marked = memfd::empty("handed-down-and-gone").expect("made");
    let mut qemu = shell("qemu", &lives_as("qemu.pid"));
    assert_eq!(qemu.pass(marked), 3);
    assert_eq!(qemu.pass_console(), 4);
    let keeper = Keeper::start(spec(&directory, vec![qemu])).expect("it starts");
    let child = settled(keeper.pid().as_raw_pid(), 1).await[0].to_string();
    let holds = |pid: &str| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it lives")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .any(|target| target.to_string_lossy().contains("handed-down-and-gone"))
    };
    let keeper_pid = keeper.pid().to_string();
    assert!(holds(&child));
    until("the keeper's copy to go", || !holds(&keeper_pid)).await;
    assert!(!holds("self"));
    keeper.kill().await.expect("it ends");
}

#[tokio::test]
async fn what_can_not_start_says_why() {
    let (_base, directory) = machine();
    let mut qemu = ProcessSpec::new("qemu", "/nonexistent/qemu");
    qemu.ends_machine = true;
    let mut keeper = Keeper::start(spec(&directory, vec![qemu])).expect("the keeper itself starts");
    let events = all_events(&mut keeper).await;
    let Some(KeeperEvent::ProcessEnded(record)) = events.first() else { panic!("recorded: {events:?}") };
    assert!(matches!(&record.end, ProcessEnd::FailedToStart { errno: Some(2), .. }));

    let (_base, directory) = machine();
    let program = PathBuf::from("/nonexistent/creel-keeper");
    let spec = KeeperSpec { program, ..spec(&directory, vec![shell("qemu", "true")]) };
    let error = Keeper::start(spec).expect_err("no keeper").to_string();
    assert_eq!(error, "failed to start `/nonexistent/creel-keeper`: could not execute it");
}

mod lifetime;
