//! creeld, driven by another language's gRPC library that knows nothing of creel but its `.proto` files
//! (`tests/grpc/client.py`).

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::harness::{Daemon, Sandbox, TINY, World, required};

/// The interpreter that Debian's `python3-grpcio` belongs to, whatever else is on `PATH`.
const PYTHON: &str = "/usr/bin/python3";

/// As these tests' creeld sees it.
const GROUPS: &str = "root:x:0:\ncreel:x:4100:\ncreel-spindle:x:4200:\n";
const SPINDLE_GID: u32 = 4200;

/// The client's script.
fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/client.py")
}

/// A directory with stubs that were generated from this tree, and the client.
fn stubs() -> &'static Path {
    static STUBS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = STUBS.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory for stubs");
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755))
            .expect("others may read it");
        // Other users read it as well, wherever the tree is.
        std::fs::copy(script(), directory.path().join("client.py")).expect("the client is copied");
        let made = Command::new(PYTHON)
            .arg(script())
            .args(["--proto", concat!(env!("CARGO_MANIFEST_DIR"), "/proto/proto"), "--stubs"])
            .arg(directory.path())
            .arg("stubs")
            .status()
            .expect("python runs; `scripts/setup --test` installs what it needs");
        assert!(made.success(), "the stubs are generated: {made}");
        directory
    });
    directory.path()
}

/// `client.py` on the sandbox's daemon.
fn client(sandbox: &Sandbox) -> Command {
    // A daemon's socket is everybody's to connect to, and its directory everybody's to pass.
    std::fs::set_permissions(sandbox.root(), Permissions::from_mode(0o755)).expect("an open directory");
    let mut command = Command::new(PYTHON);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(stubs().join("client.py")).arg("--stubs").arg(stubs());
    command.arg("--socket").arg(sandbox.daemon_socket()).args(["--image", TINY]);
    command
}

/// `command` as another user, with no group but these.
fn as_user(uid: u32, groups: &[u32], command: &Command) -> Command {
    let mut other = Command::new("setpriv");
    other.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--inh-caps=-all"]);
    let list: Vec<String> = groups.iter().map(u32::to_string).collect();
    if list.is_empty() {
        other.arg("--clear-groups");
    } else {
        other.args(["--groups", &list.join(",")]);
    }
    other.arg("--").arg(command.get_program()).args(command.get_args());
    other.env("PYTHONDONTWRITEBYTECODE", "1").current_dir("/");
    other
}

/// # Panics
/// When something was not as promised; what the client saw is shown.
fn passes(mut command: Command) {
    let output = command.output().expect("the client runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn scenarios(names: &[&str]) {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let mut command = client(&sandbox);
    command.args(names);
    passes(command);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn python_drives_a_machine_s_whole_life() {
    scenarios(&["machine_life", "machine_bounds", "exec_input"]);
}

#[test]
fn python_looks_at_a_machine_signals_types_copies_and_is_told_of_all_that() {
    scenarios(&["machine_in_use"]);
}

#[test]
fn python_learns_the_api_by_reflection() {
    scenarios(&["reflection"]);
}

#[test]
fn python_drives_a_workflow_s_whole_life() {
    scenarios(&["workflow_life", "workflow_fails"]);
}

#[test]
fn python_cancels_and_is_late_and_asks_for_nonsense() {
    scenarios(&["workflow_bounds"]);
}

#[test]
fn a_slot_that_is_taken_the_queue_for_it_and_what_its_machine_holds_are_in_the_metrics() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let metrics = sandbox.root().join("metrics.sock");
    let address = format!("unix:{}", metrics.display());
    let variables = [("CREEL_SCHEDULER__SLOTS", "1"), ("CREEL_DAEMON__METRICS", address.as_str())];
    let daemon = Daemon::start_with(&sandbox, &variables);
    let mut command = client(&sandbox);
    command.arg("--metrics").arg(&metrics).arg("slots");
    passes(command);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn the_example_of_the_documentation_runs_a_workflow() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let output = Command::new(PYTHON)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(examples.join("workflow.py"))
        .arg(stubs())
        .arg(sandbox.daemon_socket())
        .arg(examples.join("greet.yml"))
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.starts_with("Hello from Linux") && log.ends_with("as spindle-workflow\n"), "{log}\n{said}");
    assert!(said.contains("greet: exited: 0"), "{said}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn roles_and_tenants_are_kept_apart() {
    let Some(world) = World::get() else { return };
    if !rustix::process::geteuid().is_root() {
        let why = "only root can become other users";
        assert!(!required(), "roles can't be tested here: {why}");
        eprintln!("skipped: {why}");
        return;
    }
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start_with_groups(&sandbox, GROUPS);
    let mut stranger = client(&sandbox);
    stranger.arg("stranger");
    passes(as_user(4301, &[], &stranger));

    // Two at once, each with a workflow under way, each after the other's.
    let mut owners = [(4302, "did:plc:alice"), (4303, "did:plc:bob")].map(|(uid, owner)| {
        let mut spindle = client(&sandbox);
        spindle.args(["--owner", owner, "spindle"]);
        let mut command = as_user(uid, &[SPINDLE_GID], &spindle);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        child.expect("the client runs")
    });
    let mut sayings = Vec::new();
    for owner in &mut owners {
        let mut said = BufReader::new(owner.stdout.take().expect("a pipe"));
        let mut lines = String::new();
        while !lines.ends_with("ready\n") {
            let read = said.read_line(&mut lines).expect("what it says");
            assert!(read > 0, "it ended early: {lines}");
        }
        sayings.push(said);
    }
    for (uid, owner) in [(4302, "did:plc:bob"), (4303, "did:plc:alice")] {
        let mut intruder = client(&sandbox);
        intruder.args(["--owner", owner, "intruder"]);
        passes(as_user(uid, &[SPINDLE_GID], &intruder));
    }
    for (mut owner, mut said) in owners.into_iter().zip(sayings) {
        owner.stdin.take().expect("a pipe").write_all(b"go on\n").expect("it listens");
        let status = owner.wait().expect("it ends");
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("what it said");
        assert!(status.success(), "{status}: {rest}");
    }
    assert_eq!(daemon.stop(), Some(0));
}
