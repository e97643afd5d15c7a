//! What confines QEMU, its helper and the keeper: read from living processes, and tried by a program in QEMU's place.
//!
//! The table of attempts is also that of docs/security.md: `UPDATE_SECURITY_MD=1 cargo test --test microvm jail` writes it.

mod helper;
mod left_out;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{OrdinaryUser, Run, Sandbox, TINY, World, required, workflow};

const SOON: Duration = Duration::from_secs(5);

/// Users of machines, as `jail.first_uid` and `jail.uid_count` have them.
const USERS: std::ops::Range<u32> = 2_000_000_000..2_000_065_536;

/// What is tried, which layer it meets first, and what comes of it for root's machines and for a user's.
const ATTEMPTS: [(&str, &str, &str, &str); 50] = [
    ("reading the host's users", "root directory", "ENOENT", "ENOENT"),
    ("reading /proc", "root directory", "ENOENT", "ENOENT"),
    ("writing /proc/sys", "root directory", "ENOENT", "ENOENT"),
    ("reading /sys", "root directory", "ENOENT", "ENOENT"),
    ("reading other machines", "root directory", "ENOENT", "ENOENT"),
    ("reading the host's memory", "root directory", "ENOENT", "ENOENT"),
    ("taking another machine's address", "root directory", "ENOENT", "ENOENT"),
    ("changing the kernel that machines boot", "Landlock", "EACCES", "EACCES"),
    ("changing QEMU", "read-only mounts", "EROFS", "EROFS"),
    ("making a file", "read-only mounts", "EROFS", "EROFS"),
    ("making a file where it may make sockets", "Landlock", "EACCES", "EACCES"),
    ("removing a socket", "Landlock", "EACCES", "EACCES"),
    ("making a device", "seccomp", "EPERM", "EPERM"),
    ("leaving by ..", "root directory", "ENOENT", "ENOENT"),
    ("asking the daemon", "root directory", "ENOENT", "ENOENT"),
    ("a vsock socket", "seccomp", "EPERM", "EPERM"),
    ("a network socket", "seccomp", "EPERM", "EPERM"),
    ("a netlink socket", "seccomp", "EPERM", "EPERM"),
    ("a packet socket", "seccomp", "EPERM", "EPERM"),
    ("io_uring", "seccomp", "EPERM", "EPERM"),
    ("a 32-bit call", "seccomp", "killed by SYS", "killed by SYS"),
    ("an x32 call", "seccomp", "killed by SYS", "killed by SYS"),
    ("mounting", "seccomp", "EPERM", "EPERM"),
    ("unmounting", "seccomp", "EPERM", "EPERM"),
    ("the new way to mount", "seccomp", "EPERM", "EPERM"),
    ("a user namespace", "seccomp", "EPERM", "EPERM"),
    ("a user namespace by clone", "seccomp", "EPERM", "EPERM"),
    ("a user namespace by clone3", "seccomp", "ENOSYS", "ENOSYS"),
    ("entering a namespace", "seccomp", "EPERM", "EPERM"),
    ("another root", "seccomp", "EPERM", "EPERM"),
    ("opening by handle", "seccomp", "EPERM", "EPERM"),
    ("tracing the keeper", "seccomp", "EPERM", "EPERM"),
    ("reading the keeper's memory", "seccomp", "EPERM", "EPERM"),
    ("taking the keeper's descriptors", "seccomp", "EPERM", "EPERM"),
    ("becoming root", "its own user; without root, a namespace that has none", "EPERM", "EINVAL"),
    ("taking capabilities", "none in any set", "EPERM", "EPERM"),
    ("a key", "seccomp", "EPERM", "EPERM"),
    ("a BPF program", "seccomp", "EPERM", "EPERM"),
    ("performance counters", "seccomp", "EPERM", "EPERM"),
    ("userfaultfd", "seccomp", "EPERM", "EPERM"),
    ("a kernel module", "seccomp", "EPERM", "EPERM"),
    ("another kernel", "seccomp", "EPERM", "EPERM"),
    ("a restart", "seccomp", "EPERM", "EPERM"),
    ("another host name", "seccomp", "EPERM", "EPERM"),
    ("another time", "seccomp", "EPERM", "EPERM"),
    ("typing into a terminal", "seccomp", "EPERM", "EPERM"),
    ("making a disk longer", "limit of file sizes", "killed by XFSZ", "killed by XFSZ"),
    ("opening without end", "limit of descriptors", "EMFILE", "EMFILE"),
    ("forking without end", "limit of processes of its user, which it has as root's", "EAGAIN", "done"),
    ("leaving a process behind", "pid namespace", "ended", "ended"),
];

fn attacker(sandbox: &Sandbox) -> PathBuf {
    built(sandbox, "attacker", &[])
}

fn built(sandbox: &Sandbox, name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/microvm/attacker.c");
    let program = sandbox.root().join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-o"]).arg(&program).args(flags).arg(source);
    assert!(compiler.status().expect("a compiler").success());
    program
}

/// Whether machines of root can be made here.
fn rooted() -> bool {
    let rooted = rustix::process::geteuid().is_root();
    if !rooted {
        assert!(!required(), "this takes root");
        eprintln!("skipped: machines of root are root's to make");
    }
    rooted
}

/// What it says on its console, a line each.
fn said(mut command: Command, attacker: &Path) -> Vec<String> {
    command.env("CREEL_QEMU__PATH", attacker).env("CREEL_MACHINE__ACCEL", "tcg");
    let ended = Run::start(command).finish();
    ended.expect_code(125).expect_stderr("QEMU: exit status 0").expect_stderr("that was all");
    let lines = ended.stderr.lines().filter_map(|line| line.strip_prefix("  | "));
    lines.map(str::to_owned).collect()
}

/// Each attempt's end.
fn ends(said: &[String]) -> BTreeMap<&str, &str> {
    said.iter().filter_map(|line| line.strip_prefix("attack ")?.rsplit_once(": ")).collect()
}

fn expect_ends(said: &[String], of: impl Fn(&(&str, &str, &'static str, &'static str)) -> &'static str) {
    let ends = ends(said);
    for attempt in &ATTEMPTS[..ATTEMPTS.len() - 1] {
        assert_eq!(ends.get(attempt.0), Some(&of(attempt)), "{}: {said:#?}", attempt.0);
    }
    assert_eq!(ends.len(), ATTEMPTS.len() - 1, "{said:#?}");
    let has = |text: &str| said.iter().any(|line| line.starts_with(text));
    assert!(has("core dumps: none") && has("directories that it has open: 0 of"), "{said:#?}");
}

#[test]
fn a_program_in_qemu_s_place_gets_nowhere_in_a_machine_of_root() {
    let Some(world) = World::get() else { return };
    if !rooted() {
        return;
    }
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, &[("never", "true")]));
    command.env("CREEL_JAIL__MODE", "required");
    let said = said(command, &attacker(&sandbox));
    expect_ends(&said, |(.., root, _)| root);
    let who = said.iter().find_map(|line| line.strip_prefix("who: uid ")).expect("it says who it is");
    let uid: u32 = who.split(',').next().and_then(|uid| uid.parse().ok()).expect("a number");
    assert!(USERS.contains(&uid), "{who}");
    // What it has left behind has ended.
    sandbox.expect_no_process_within(SOON);
    assert_eq!(processes_of(uid), Vec::<u32>::new());
}

#[test]
fn nor_in_one_of_an_ordinary_user_but_for_what_only_root_can_bound() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let Some(user) = OrdinaryUser::create(&sandbox) else { return };
    let attacker = attacker(&sandbox);
    let directory = sandbox.home().join("project");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("ci.yml"), workflow(TINY, &[("never", "true")])).expect("a file");
    user.own(&directory);
    let mut command = user.creel(&directory, ["run", "-f", "ci.yml"]);
    command.env("CREEL_IMAGES__DIR", &world.images);
    let said = said(command, &attacker);
    expect_ends(&said, |(.., user)| user);
    user.expect_nothing_left();
}

fn processes_of(uid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|status| status.uid() == uid))
        .collect()
}

/// The children of all threads.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A living process, as the kernel tells of it.
struct Process {
    pid: u32,
    status: String,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        // Its name is of any bytes.
        let status = fs::read(format!("/proc/{pid}/status")).ok()?;
        Some(Self { pid, status: String::from_utf8_lossy(&status).into_owned() })
    }

    fn field(&self, name: &str) -> &str {
        let value = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name}")).trim()
    }

    fn namespace(&self, kind: &str) -> PathBuf {
        fs::read_link(format!("/proc/{}/ns/{kind}", self.pid)).expect("its namespace")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).expect("readable")
    }

    fn expect_no_capability_but(&self, effective: u64) {
        for (set, expected) in
            [("CapInh", 0), ("CapPrm", effective), ("CapEff", effective), ("CapBnd", 0), ("CapAmb", 0)]
        {
            assert_eq!(
                u64::from_str_radix(self.field(set), 16),
                Ok(expected),
                "{set} of {}",
                self.field("Name")
            );
        }
        assert_eq!((self.field("NoNewPrivs"), self.field("Seccomp")), ("1", "2"), "{}", self.status);
    }

    fn expect_namespaces_of_its_own(&self, like: &Self, users: bool) {
        let ours = Self::of(std::process::id()).expect("this one lives");
        for kind in ["pid", "mnt", "net", "ipc", "uts"].into_iter().chain(users.then_some("user")) {
            assert_ne!(self.namespace(kind), ours.namespace(kind), "{kind}");
            assert_eq!(self.namespace(kind), like.namespace(kind), "{kind}");
        }
    }

    /// Its root has what it needs and nothing else, to be read.
    fn expect_a_root_of_its_own(&self) {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        let mut names: Vec<_> = fs::read_dir(&root)
            .expect("its root")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        for name in ["etc", "home", "proc", "root", "run", "sys", "var", "bin"] {
            assert!(!names.iter().any(|found| found == name), "{name}: {names:?}");
        }
        // But where a test has its programs, on the way to them and to nothing else.
        let mut ways = vec![root.join("tmp")];
        while let Some(way) = ways.pop() {
            if way.is_dir() {
                ways.extend(fs::read_dir(&way).expect("a directory").flatten().map(|entry| entry.path()));
            } else if way.exists() {
                assert!(way.ends_with("vhost-device-vsock") || way.ends_with("idler"), "{way:?}");
            }
        }
        let devices: Vec<_> =
            fs::read_dir(root.join("dev")).expect("devices").flatten().map(|e| e.file_name()).collect();
        assert!(devices.iter().all(|name| name == "null" || name == "kvm"), "{devices:?}");
        for line in self.read("mountinfo").lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (at, options) = (fields[4], fields[5].split(',').collect::<Vec<_>>());
            let has = |option| options.contains(&option);
            assert!(has("nosuid"), "{line}");
            assert_eq!(has("ro"), !at.starts_with("/dev/") && at != "/sockets", "{line}");
            assert_eq!(has("nodev"), !at.starts_with("/dev/"), "{line}");
        }
    }

    fn expect_no_way_out_by_descriptors(&self) {
        assert_eq!(fs::read_link(format!("/proc/{}/cwd", self.pid)).expect("its directory"), Path::new("/"));
        assert_eq!(self.read("environ"), "");
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("its descriptors").flatten() {
            // Through the link, so that it is what is open.
            let open = fs::metadata(entry.path()).expect("it is open");
            assert!(!open.is_dir(), "{:?}", fs::read_link(entry.path()));
        }
        let limits = self.read("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        let hard = core.split_whitespace().nth(5);
        assert!(matches!(hard, Some("0" | "1")), "{core}");
        let files = limits.lines().find(|line| line.starts_with("Max file size")).expect("a limit");
        assert!(!files.contains("unlimited"), "{files}");
    }
}

/// Keeper, helper and QEMU of the machine that this run has.
fn processes(run: &Run) -> (Process, Vec<Process>) {
    processes_so_far(run).expect("a keeper and its processes")
}

/// Those that are there by now; they may come and go while they are looked at.
fn processes_so_far(run: &Run) -> Option<(Process, Vec<Process>)> {
    let mut its =
        children(run.pid().as_raw_nonzero().get().cast_unsigned()).into_iter().filter_map(Process::of);
    let keeper = its.find(|process| process.field("Name") == "creel-keeper")?;
    let children = children(keeper.pid).into_iter().map(Process::of).collect::<Option<_>>()?;
    Some((keeper, children))
}

/// What `creel inspect --jail` says of the one machine that is listed.
fn inspected(ps: Command, inspect: impl FnOnce(&str) -> Command) -> Vec<serde_json::Value> {
    let listed = Run::start(ps).finish();
    let listed: serde_json::Value = serde_json::from_slice(&listed.expect_code(0).stdout).expect("JSON");
    let said = Run::start(inspect(listed[0]["id"].as_str().expect("an id"))).finish();
    let mut said: serde_json::Value = serde_json::from_slice(&said.expect_code(0).stdout).expect("JSON");
    serde_json::from_value(said["jail"].take()).expect("a list")
}

/// It is what is read here, of the same processes.
fn expect_same<'a>(told: &[serde_json::Value], processes: impl Iterator<Item = &'a Process>) {
    let processes: Vec<&Process> = processes.collect();
    assert_eq!(told.len(), processes.len(), "{told:#?}");
    for process in processes {
        let told = told.iter().find(|told| told["pid"] == process.pid).expect("each of them");
        let uid: u32 =
            process.field("Uid").split_whitespace().next().and_then(|uid| uid.parse().ok()).expect("a uid");
        assert_eq!(told["uids"], serde_json::json!([uid, uid, uid, uid]), "{told:#}");
        let empty = |field: &str| u64::from_str_radix(process.field(field), 16) == Ok(0);
        for (set, field) in
            [("permitted", "CapPrm"), ("effective", "CapEff"), ("bounding", "CapBnd"), ("ambient", "CapAmb")]
        {
            assert_eq!(
                told["capabilities"][set].as_array().expect("a list").is_empty(),
                empty(field),
                "{set}"
            );
        }
        assert_eq!(told["no_new_privileges"], true);
        assert_eq!(told["seccomp_filters"].to_string(), process.field("Seccomp_filters"));
        for kind in ["pid", "mnt", "net", "ipc", "uts"] {
            let namespaces = told["namespaces"].as_array().expect("a list");
            let namespace = namespaces.iter().find(|namespace| namespace["kind"] == kind).expect("each kind");
            let inode = format!("{kind}:[{}]", namespace["inode"]);
            assert_eq!((Path::new(&inode), &namespace["shared"]), (&*process.namespace(kind), &false.into()));
        }
        let count = |list: &str| told[list].as_array().map(Vec::len);
        assert_eq!(count("mounts"), Some(process.read("mountinfo").lines().count()));
        let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).expect("its descriptors").count();
        assert_eq!(count("descriptors"), Some(open));
        assert_eq!(told["environment_bytes"], process.read("environ").len());
    }
}

const SLEEPS: &str = "echo begun; exec sleep 1000";

#[test]
fn each_layer_is_there_in_the_living_processes_of_root() {
    let Some(world) = World::get() else { return };
    if !rooted() {
        return;
    }
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, &[("step", SLEEPS)]));
    command.env("CREEL_JAIL__MODE", "required");
    let run = Run::start(command);
    run.wait_for_stdout("begun");
    let (keeper, confined) = processes(&run);
    const CAP_KILL: u64 = 1 << 5;
    keeper.expect_no_capability_but(CAP_KILL);
    keeper.expect_a_root_of_its_own();
    assert_eq!(confined.len(), 2, "QEMU and its helper");
    for process in &confined {
        let uids: Vec<u32> =
            process.field("Uid").split_whitespace().map(|uid| uid.parse().unwrap_or(0)).collect();
        assert!(uids.iter().all(|uid| USERS.contains(uid) && *uid == uids[0]), "{uids:?}");
        assert_eq!(process.field("Gid"), process.field("Uid"));
        assert_eq!(process.field("Groups"), "");
        process.expect_no_capability_but(0);
        process.expect_namespaces_of_its_own(&keeper, false);
        process.expect_a_root_of_its_own();
        process.expect_no_way_out_by_descriptors();
    }
    let told =
        inspected(sandbox.creel(["ps", "--json"]), |id| sandbox.creel(["inspect", "--jail", "--json", id]));
    expect_same(&told, std::iter::once(&keeper).chain(&confined));
    run.signal(rustix::process::Signal::INT);
    run.finish().expect_code(130);
}

#[test]
fn and_in_those_of_an_ordinary_user_in_a_user_namespace() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let Some(user) = OrdinaryUser::create(&sandbox) else { return };
    let directory = sandbox.home().join("project");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("ci.yml"), workflow(TINY, &[("step", SLEEPS)])).expect("a file");
    user.own(&directory);
    let mut command = user.creel(&directory, ["run", "-f", "ci.yml"]);
    command.env("CREEL_IMAGES__DIR", &world.images);
    let run = Run::start(command);
    run.wait_for_stdout("begun");
    let (keeper, confined) = processes(&run);
    assert_eq!(confined.len(), 2, "QEMU and its helper");
    for process in &confined {
        process.expect_no_capability_but(0);
        process.expect_namespaces_of_its_own(&keeper, true);
        process.expect_a_root_of_its_own();
        process.expect_no_way_out_by_descriptors();
    }
    let told = inspected(user.creel(&directory, ["ps", "--json"]), |id| {
        user.creel(&directory, ["inspect", "--jail", "--json", id])
    });
    expect_same(&told, std::iter::once(&keeper).chain(&confined));
    run.signal(rustix::process::Signal::INT);
    run.finish().expect_code(130);
    user.expect_nothing_left();
}

#[test]
fn the_documentation_has_this_table() {
    let mut table = String::from("| attempt | met by | of root | of a user |\n| --- | --- | --- | --- |\n");
    for (attempt, layer, root, user) in ATTEMPTS {
        let shown = |end: &str| match end {
            "done" => "**not confined**".to_owned(),
            "ended" => "ended with its machine".to_owned(),
            end => format!("`{end}`"),
        };
        table += &format!("| {attempt} | {layer} | {} | {} |\n", shown(root), shown(user));
    }
    expect_same_table("attempts", &table);
}

/// What stands between the page's marks is this; or it is written anew.
fn expect_same_table(mark: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->"));
    let (before, rest) = page.split_once(&begin).expect("a place for the table");
    let (found, after) = rest.split_once(&end).expect("and its end");
    if std::env::var_os("UPDATE_SECURITY_MD").is_some() {
        fs::write(&path, format!("{before}{begin}{table}{end}{after}")).expect("written");
    } else {
        assert_eq!(found, table, "UPDATE_SECURITY_MD=1 cargo test --test microvm jail writes it anew");
    }
}
