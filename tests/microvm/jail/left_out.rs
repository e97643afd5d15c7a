//! A layer that is left out is missed: by an attempt that succeeds, or by somebody who reads the living processes.
//!
//! The keeper is built once more, with a feature that lets a file beside it name a layer to leave out. The table is also that of
//! docs/security.md: `UPDATE_SECURITY_MD=1 cargo test --test microvm jail` writes it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{ATTEMPTS, built, ends, expect_same_table, processes, processes_so_far, rooted};
use crate::harness::{Run, Sandbox, TINY, World, touching, wait_until, workflow};

/// Beside other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// What reads the processes that are confined.
const NAMESPACES: &str = "their namespaces are read";
const ROOT: &str = "their root directory is read";
const CAPABILITIES: &str = "their capabilities and filters are read";
const KEEPER: &str = "the keeper's capabilities and filters are read";
const DESCRIPTORS: &str = "their directory, descriptors and limits are read";
/// A layer behind it can't be taken on without it, or the program has nothing to talk by.
const NOT_STARTED: &str = "the machine does not start";

/// Layers by their names in the keeper, and what misses each. Not among them: dropping capabilities, which exec(2) does once more.
const LAYERS: [(&str, &str); 17] = [
    ("pid namespace", "leaving a process behind"),
    ("network namespace", NAMESPACES),
    ("ipc namespace", NAMESPACES),
    ("uts namespace", NAMESPACES),
    // What Landlock is told of is nowhere else.
    ("root directory", NOT_STARTED),
    ("restricted mounts", ROOT),
    ("forbid core dumps", DESCRIPTORS),
    ("bound its processes", "forking without end"),
    ("bound its files", "making a disk longer"),
    ("arrange its descriptors", NOT_STARTED),
    ("leave the machine's directory", NOT_STARTED),
    ("close the ways back to capabilities", CAPABILITIES),
    ("become its own user", "becoming root"),
    ("give up new privileges", NOT_STARTED),
    ("restrict its files by Landlock", "removing a socket"),
    ("deny system calls", "a vsock socket"),
    ("confine the keeper", KEEPER),
];

/// A kit whose keeper leaves a layer out.
struct Kit {
    directory: PathBuf,
    left_out: &'static str,
}

impl Kit {
    fn make(sandbox: &Sandbox) -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("leave-out");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(manifest).args(["build", "--quiet", "--locked", "--package", "creel-keeper"]);
        cargo.args(["--features", "creel-keeper/leave-out", "--target-dir"]).arg(&target);
        assert!(cargo.status().expect("cargo").success());
        let directory = sandbox.root().join("kit");
        let kit = &sandbox.world().kit;
        assert!(Command::new("cp").arg("-r").arg(kit).arg(&directory).status().expect("cp").success());
        fs::copy(target.join("debug/creel-keeper"), directory.join("bin/creel-keeper")).expect("its keeper");
        Self { directory, left_out: "" }
    }

    fn leave_out(&mut self, layer: &'static str) {
        fs::write(self.directory.join("bin/leave-out"), layer).expect("a file");
        self.left_out = layer;
    }

    fn run(&self, sandbox: &Sandbox, qemu: &Path) -> Run {
        // Not the release build: that leaves no namespace out.
        let mut command = Command::new(env!("CARGO_BIN_EXE_creel"));
        sandbox.settle_in(&mut command);
        let file = sandbox.root().join("ci.yml");
        fs::write(&file, workflow(TINY, &[("never", "true")])).expect("a file");
        command.args(["run", "-f"]).arg(file).env("LEAVE_OUT_NAMESPACE", self.left_out);
        command.env("CREEL_JAIL__MODE", "required").env("CREEL_MACHINE__ACCEL", "tcg");
        command.env("CREEL_KIT__DIR", &self.directory).env("CREEL_QEMU__PATH", qemu);
        Run::start(command)
    }
}

/// What is noticed of a machine in this jail.
fn noticed(kit: &Kit, sandbox: &Sandbox, attacker: &Path, idler: &Path) -> Vec<&'static str> {
    let ended = kit.run(sandbox, attacker).finish();
    if !ended.stderr.contains("  | who: ") {
        return vec![NOT_STARTED];
    }
    let said: Vec<String> =
        ended.stderr.lines().filter_map(|line| line.strip_prefix("  | ")).map(str::to_owned).collect();
    let ends = ends(&said);
    let attempts = ATTEMPTS[..ATTEMPTS.len() - 1].iter();
    let other = attempts.filter(|(name, _, root, _)| ends.get(name) != Some(root)).map(|(name, ..)| *name);
    let mut noticed: Vec<&str> = other.collect();
    // The last attempt. What it has left is not left for the next layer.
    let left = touching(sandbox.root());
    if !left.is_empty() {
        noticed.push(ATTEMPTS[ATTEMPTS.len() - 1].0);
    }
    for process in left {
        rustix::process::kill_process(process.pid, rustix::process::Signal::KILL).expect("root kills it");
    }
    noticed.extend(read(kit, sandbox, idler));
    noticed
}

/// The checks of living processes that fail.
fn read(kit: &Kit, sandbox: &Sandbox, idler: &Path) -> Vec<&'static str> {
    const CAP_KILL: u64 = 1 << 5;
    let run = kit.run(sandbox, idler);
    // The keeper confines itself when all its processes run.
    wait_until(PATIENCE, "the machine's processes run", || {
        let confined =
            |keeper: &super::Process| keeper.field("Seccomp") == "2" || kit.left_out == "confine the keeper";
        // Each has its program, and so all that is taken on before.
        let runs = |process: &super::Process| process.field("Name") != "creel-keeper";
        let found = processes_so_far(&run);
        found.is_some_and(|(keeper, its)| its.len() == 2 && its.iter().all(runs) && confined(&keeper))
    });
    let (keeper, confined) = processes(&run);
    let fails = |check: &dyn Fn()| catch_unwind(AssertUnwindSafe(check)).is_err();
    let checks: [(&'static str, &dyn Fn()); 5] = [
        (NAMESPACES, &|| {
            confined.iter().for_each(|process| process.expect_namespaces_of_its_own(&keeper, false))
        }),
        (ROOT, &|| confined.iter().for_each(super::Process::expect_a_root_of_its_own)),
        (CAPABILITIES, &|| confined.iter().for_each(|process| process.expect_no_capability_but(0))),
        (KEEPER, &|| keeper.expect_no_capability_but(CAP_KILL)),
        (DESCRIPTORS, &|| confined.iter().for_each(super::Process::expect_no_way_out_by_descriptors)),
    ];
    let failed = checks.into_iter().filter(|(_, check)| fails(*check)).map(|(name, _)| name).collect();
    run.signal(rustix::process::Signal::INT);
    run.finish();
    failed
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build leaves out no namespace")]
fn each_layer_that_is_left_out_is_missed() {
    let Some(world) = World::get() else { return };
    if !rooted() {
        return;
    }
    let sandbox = Sandbox::new(world);
    let mut kit = Kit::make(&sandbox);
    let (attacker, idler) = (built(&sandbox, "attacker", &[]), built(&sandbox, "idler", &["-DSTAYS"]));
    kit.leave_out("nothing");
    assert_eq!(noticed(&kit, &sandbox, &attacker, &idler), Vec::<&str>::new());
    for (layer, missed_by) in LAYERS {
        kit.leave_out(layer);
        let noticed = noticed(&kit, &sandbox, &attacker, &idler);
        assert!(noticed.contains(&missed_by), "without `{layer}`: {noticed:?}");
    }
}

#[test]
fn the_documentation_has_the_table_of_layers() {
    let rows = LAYERS.iter().map(|(layer, missed_by)| format!("| {layer} | {missed_by} |\n"));
    expect_same_table(
        "layers",
        &format!("| left out | missed by |\n| --- | --- |\n{}", rows.collect::<String>()),
    );
}
