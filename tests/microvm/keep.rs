//! `creel run --keep`: a machine whose step has failed can be looked into.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Daemon, Run, Sandbox, TINY, World, workflow};

const TEN_SECONDS: Duration = Duration::from_secs(10);

#[test]
fn a_machine_that_is_kept_can_be_looked_into_until_ctrl_c() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let steps = [("make", "echo made > /tmp/left; echo output; exit 6"), ("never", "true")];
    let mut command = sandbox.workflow(&workflow(TINY, &steps));
    // The workflow's time is no limit to the keeping.
    command.args(["--keep", "--timeout", "60s"]);
    let run = Run::start(command);
    run.wait_for_stderr("creel logs ");
    let said = run.stderr_so_far();
    let way_in = said.lines().find(|line| line.contains("creel exec ")).expect("the way in");
    let id = way_in.split_whitespace().nth(2).expect("an id").to_owned();
    assert!(said.contains("kept for 30m"), "{said}");
    assert!(said.find("exited with code 6") < said.find("is kept for"), "the verdict comes first: {said}");

    let looked = daemon.output(["exec", &id, "--", "cat", "/tmp/left"]);
    assert_eq!((looked.code, looked.stdout.as_str()), (0, "made\n"), "{looked:?}");
    let logs = daemon.output(["logs", "--step", "make"]);
    assert_eq!(logs.stdout, "output\n", "{logs:?}");
    run.signal_group(Signal::INT);
    let ended = run.finish();
    ended.expect_code(1).expect_stderr("step `make`: exited with code 6");
    let gone = daemon.output(["exec", &id, "--", "true"]);
    assert_ne!(gone.code, 0, "{gone:?}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_machine_is_kept_for_as_long_as_was_said() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, &[("fail", "exit 3")]));
    command.args(["--keep", "--keep-for", "2s"]);
    let ended = Run::start(command).finish();
    ended.expect_code(1).expect_stderr("kept for 2s").expect_stderr("kept long enough");
    sandbox.expect_nothing_left_within(TEN_SECONDS);
}

#[test]
fn a_machine_that_ends_while_it_is_kept_ends_the_run() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, &[("fail", "exit 3")]));
    command.arg("--keep");
    let run = Run::start(command);
    run.wait_for_stderr("is kept for");
    crate::harness::machine(sandbox.root()).qemu.kill();
    run.finish().expect_code(1).expect_stderr("the machine that was kept has ended: machine crashed");
}
