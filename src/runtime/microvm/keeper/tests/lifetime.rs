//! Who outlives whom when creel is killed, and in which cgroup everybody is meanwhile.

use std::fs::File;
use std::process::{Command, Stdio};

use super::*;

#[path = "../../../../../keeper/tests/fixture/cgroup.rs"]
mod cgroup;

use cgroup::{Cgroup, cgroup_of};

const THIS: &str = "runtime::microvm::keeper::tests::lifetime";

struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A keeper that nobody is the parent of any more.
struct Orphan(OwnedFd);

impl Orphan {
    fn adopt(pid: i32) -> Self {
        let pid = Pid::from_raw(pid).expect("a pid");
        Self(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("it lives"))
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// This test binary as an owner, with pipes for standard streams as a service manager has them, run by `wrapper`.
fn owner(wrapper: &[&str], stand_in: &str, run_dir: &Path, cgroup: Option<&Cgroup>) -> KilledOnDrop {
    let exe = std::env::current_exe().expect("this test binary").display().to_string();
    let name = format!("{THIS}::{stand_in}");
    let words: Vec<&str> = wrapper.iter().copied().chain([&*exe, "--ignored", "--exact", &name]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("OWNER_RUN_DIR", run_dir);
    if let Some(cgroup) = cgroup {
        command.env("OWNER_CGROUP", cgroup.path());
    }
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().map(KilledOnDrop).expect("it starts")
}

fn directory_of_owner() -> MachineDirectory {
    let run_dir = std::env::var_os("OWNER_RUN_DIR").expect("set by the test");
    MachineDirectory::acquire(&RunDir::open(Path::new(&run_dir)).expect("opened"), "owned").expect("acquired")
}

/// Not a test: the owner of the test below, to be killed.
#[tokio::test]
#[ignore = "run by another test as a child process"]
async fn owner_to_be_killed() {
    let directory = directory_of_owner();
    let processes = vec![shell("helper", &lives_as("helper.pid")), shell("qemu", &lives_as("qemu.pid"))];
    let _keeper = Keeper::start(spec(&directory, processes)).expect("it starts");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_is_left_within_a_second_of_an_owners_death_by_sigkill() {
    let base = tempfile::tempdir().expect("a scratch directory");
    let mut owner = owner(&[], "owner_to_be_killed", &base.path().join("run"), None);
    let machine = base.path().join("run/m-owned");
    let pids = settled(owner.0.id().cast_signed(), 3).await;
    assert!(machine.exists());
    let killed_at = std::time::Instant::now();
    owner.0.kill().expect("it lives");
    owner.0.wait().expect("it is a child");
    until("the end of it all", || !machine.exists() && pids.iter().all(|pid| is_dead(*pid))).await;
    assert!(killed_at.elapsed() < Duration::from_secs(1), "took {:?}", killed_at.elapsed());
}

/// Not a test: the daemon of the tests below, to be killed. Its QEMU ends when told to through a FIFO.
#[tokio::test]
#[ignore = "run by another test as a child process"]
async fn daemon_to_be_killed() {
    let directory = directory_of_owner();
    let script = "mkfifo go; : > ready; read line < go; echo after all; exit 6";
    let processes = vec![shell("helper", "exec sleep 1000"), shell("qemu", script)];
    let cgroups = std::env::var_os("OWNER_CGROUP").map(|path| {
        let open = |name| File::open(Path::new(&path).join(name)).expect("made by the test");
        (open("keeper"), open("vm"))
    });
    let cgroups = cgroups
        .as_ref()
        .map(|(keeper, machine)| KeeperCgroups { keeper: keeper.as_fd(), machine: machine.as_fd() });
    let (ownership, namespaces) = (Ownership::Daemon, Namespaces::Pid);
    let spec = KeeperSpec { ownership, namespaces, cgroups, ..spec(&directory, processes) };
    let _keeper = Keeper::start(spec).expect("it starts");
    std::future::pending::<()>().await;
}

fn reclaimed(run: &Path) -> Vec<String> {
    RunDir::open(run).expect("opened").reclaim().expect("listed").names
}

/// Ends by itself after its daemon was killed, and leaves the same records as ever.
async fn outlives_its_daemon(cgroup: Option<&Cgroup>) {
    let base = tempfile::tempdir().expect("a scratch directory");
    let run = base.path().join("run");
    let mut owner = owner(&[], "daemon_to_be_killed", &run, cgroup);
    let machine = run.join("m-owned");
    let daemon = owner.0.id().cast_signed();
    until("the machine", || machine.join("ready").exists() && descendants(daemon).len() == 3).await;
    // Children come before their parents.
    let [first, second, keeper] = descendants(daemon)[..] else { panic!("a keeper and two processes") };
    let _killed_at_last = Orphan::adopt(keeper);
    let streams = [0, 1, 2].map(|fd| std::fs::read_link(format!("/proc/{keeper}/fd/{fd}")).expect("open"));
    assert_eq!(streams[..2], [Path::new("/dev/null"), Path::new("/dev/null")]);
    assert!(streams[2].to_string_lossy().starts_with("/memfd:"), "{streams:?}");

    owner.0.kill().expect("it lives");
    owner.0.wait().expect("it is a child");
    // With it go the other ends of its pipes.
    drop(owner);
    assert!(![first, second, keeper].into_iter().any(is_dead));
    assert_eq!(reclaimed(&run), [""; 0], "the keeper holds the lock");
    if let Some(cgroup) = cgroup {
        let lines = [first, second, keeper].map(|pid| cgroup_of(pid.cast_unsigned()));
        assert_eq!(lines, [cgroup.line_of("vm"), cgroup.line_of("vm"), cgroup.line_of("keeper")]);
    }

    std::fs::write(machine.join("go"), "go\n").expect("it reads");
    until("the keeper's end", || [first, second, keeper].into_iter().all(is_dead)).await;
    let exit = |name: &str| -> ExitRecord {
        let json = std::fs::read(machine.join(creel_keeper::records::exit_file(name))).expect("recorded");
        serde_json::from_slice(&json).expect("whole")
    };
    assert_eq!(exit("qemu").end, ProcessEnd::Exited { code: 6 });
    assert_eq!(exit("helper").end, ProcessEnd::Signalled { signal: 9, core_dumped: false });
    let done = std::fs::read(machine.join(creel_keeper::records::DONE_FILE)).expect("recorded");
    let done: DoneRecord = serde_json::from_slice(&done).expect("whole");
    assert_eq!(done.ending, Ending::ProcessEnded { process: "qemu".into() });
    let console = ConsoleHistory::read(File::open(machine.join(CONSOLE_FILE)).expect("kept"));
    assert_eq!(console.expect("readable").head, b"after all\n");
    assert_eq!(reclaimed(&run), ["owned"], "the lock went with it");
}

#[tokio::test]
async fn a_daemons_keeper_outlives_its_death_by_sigkill() {
    outlives_its_daemon(None).await;
}

#[tokio::test]
async fn a_daemons_keeper_outlives_it_in_the_same_cgroup() {
    let Some(cgroup) = Cgroup::for_test("outlives") else { return };
    let _directories = (cgroup.child("keeper"), cgroup.child("vm"));
    outlives_its_daemon(Some(&cgroup)).await;
}

#[tokio::test]
async fn keeper_and_processes_are_born_in_their_cgroups_in_every_namespace() {
    for namespaces in [Namespaces::None, Namespaces::Pid, Namespaces::UserPid] {
        let support = host::probe();
        let possible = match namespaces {
            Namespaces::None => true,
            Namespaces::Pid => support.pid.is_ok(),
            Namespaces::UserPid => support.user_pid.is_ok(),
            Namespaces::Jail | Namespaces::UserJail => unreachable!("they are another test's"),
        };
        let Some(cgroup) = Cgroup::for_test(&format!("{namespaces:?}")) else { return };
        let (own, vm) = (cgroup.child("keeper"), cgroup.child("vm"));
        let (_base, directory) = machine();
        let processes = vec![shell("helper", "exec sleep 1000"), shell("qemu", "exec sleep 1000")];
        let cgroups = Some(KeeperCgroups { keeper: own.as_fd(), machine: vm.as_fd() });
        let spec = KeeperSpec { namespaces, cgroups, ..spec(&directory, processes) };
        let keeper = Keeper::start(spec).expect("it starts");
        // A fallback to no namespace keeps the cgroup.
        assert_eq!(keeper.namespaces(), if possible { namespaces } else { Namespaces::None });
        let pid = keeper.pid().as_raw_pid();
        let pids = settled(pid, 2).await;
        assert_eq!(cgroup_of(pid.cast_unsigned()), cgroup.line_of("keeper"), "{namespaces:?}");
        for pid in pids {
            assert_eq!(cgroup_of(pid.cast_unsigned()), cgroup.line_of("vm"), "{namespaces:?}");
        }
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).expect("it lives");
        let shared = keeper.namespaces() == Namespaces::None;
        assert_eq!(namespace(&pid.to_string()) == namespace("self"), shared, "{namespaces:?}");
        let holds_it = || {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
            let mut held = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
            held.any(|file| file.starts_with(cgroup.path()))
        };
        // The last process runs a moment before the keeper closes what it needed.
        until("the keeper's copy to go", || !holds_it()).await;
        let end = keeper.kill().await.expect("it ends");
        assert_eq!(end.exit, Some(Exit::Code(0)), "{}", end.message);
        // Since Linux 6.18 a reaped process leaves its cgroup a moment later.
        until("an empty cgroup", || cgroup.read("cgroup.events").contains("populated 0")).await;
    }
}

#[tokio::test]
async fn without_the_namespace_the_cgroups_are_kept() {
    let Some(cgroup) = Cgroup::for_test("fallback") else { return };
    let _directories = (cgroup.child("keeper"), cgroup.child("vm"));
    let base = tempfile::tempdir().expect("a scratch directory");
    // In a user namespace the limit is its own (namespaces(7)); over it, clone fails with ENOSPC.
    let limit = "echo 0 > /proc/sys/user/max_pid_namespaces && exec \"$@\"";
    let wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"];
    let run = base.path().join("run");
    let owner = owner(&wrapper, "daemon_to_be_killed", &run, Some(&cgroup));
    let daemon = owner.0.id().cast_signed();
    until("the machine", || run.join("m-owned/ready").exists() && descendants(daemon).len() == 3).await;
    let [first, second, keeper] = descendants(daemon)[..] else { panic!("a keeper and two processes") };
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).expect("it lives");
    assert_eq!(namespace(&first.to_string()), namespace("self"), "this test is about the fallback");
    let lines = [first, second, keeper].map(|pid| cgroup_of(pid.cast_unsigned()));
    assert_eq!(lines, [cgroup.line_of("vm"), cgroup.line_of("vm"), cgroup.line_of("keeper")]);
    std::fs::write(run.join("m-owned/go"), "go\n").expect("it reads");
    until("the keeper's end", || is_dead(keeper)).await;
}

#[tokio::test]
async fn a_cgroup_that_takes_no_process_is_an_error_and_leaves_nothing() {
    let (_base, directory) = machine();
    let none = File::open("/").expect("opened");
    let cgroups = Some(KeeperCgroups { keeper: none.as_fd(), machine: none.as_fd() });
    let spec = KeeperSpec { cgroups, ..spec(&directory, vec![shell("qemu", "true")]) };
    let KeeperError::Spawn(error) = Keeper::start(spec).expect_err("no cgroup") else { panic!("a spawn") };
    assert_eq!((error.step, error.source.raw_os_error()), (SpawnStep::Clone, Some(9)));
}
