//! Signals to creel itself: a polite one cancels, and even SIGKILL leaves nothing behind.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Run, Sandbox, TINY, World, machine, wait_until, workflow};

const STEP: &str = "echo started; sleep 1000";

/// How far the run is when the signal comes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The machine's directory was made; its processes may not have been started.
    Preparing,
    /// QEMU runs, and the guest's kernel boots.
    Booting,
    Step,
}

const ALL: [Moment; 3] = [Moment::Preparing, Moment::Booting, Moment::Step];

fn start_and_reach(sandbox: &Sandbox, moment: Moment) -> Run {
    let run = sandbox.start_step(TINY, STEP);
    match moment {
        Moment::Preparing => {
            wait_until(Duration::from_secs(30), "the machine has a directory", || {
                sandbox.machine_directory().is_some()
            });
        }
        Moment::Booting => drop(machine(sandbox.root())),
        Moment::Step => drop(run.wait_for_stdout("started")),
    }
    run
}

fn cancels(send: impl Fn(&Run)) {
    let Some(world) = World::get() else { return };
    for moment in ALL {
        let sandbox = Sandbox::new(world);
        let run = start_and_reach(&sandbox, moment);
        let since = Instant::now();
        send(&run);
        let ended = run.finish();
        eprintln!("cancelled while {moment:?}: {:?}", ended.at - since);
        ended.expect_code(130).expect_stderr("cancelled").expect_within(Duration::from_secs(2), since);
    }
}

#[test]
fn ctrl_c_exits_with_130_and_leaves_nothing() {
    cancels(|run| run.signal_group(Signal::INT));
}

#[test]
fn sigterm_exits_with_130_and_leaves_nothing() {
    cancels(|run| run.signal(Signal::TERM));
}

#[test]
fn sigkill_leaves_nothing_after_two_seconds() {
    let Some(world) = World::get() else { return };
    for moment in ALL {
        let sandbox = Sandbox::new(world);
        let run = start_and_reach(&sandbox, moment);
        run.signal(Signal::KILL);
        let ended = run.finish();
        assert_eq!(ended.signal, Some(9), "while {moment:?}: {}", ended.said());
        if let Moment::Preparing = moment {
            // Killed before it had a keeper, its directory is removed by the next run.
            sandbox.expect_no_process_within(Duration::from_secs(2));
            sandbox.start_step(TINY, "true").finish().expect_code(0);
        }
        // Whoever looks next removes the socket on which the run was reached; there is nobody to list.
        let listed = sandbox.creel(["ps", "--json"]).output().expect("creel runs");
        assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "[]");
        sandbox.expect_nothing_left_within(Duration::from_secs(2));
    }
}

#[test]
fn what_creel_and_its_keeper_leave_when_both_are_killed_is_removed_by_the_next_run() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let run = start_and_reach(&sandbox, Moment::Step);
    let keeper = machine(sandbox.root()).keeper;
    run.signal(Signal::STOP);
    keeper.kill();
    run.signal(Signal::KILL);
    run.finish();
    sandbox.expect_no_process_within(Duration::from_secs(2));
    sandbox.start_step(TINY, "true").finish().expect_code(0);
}

#[test]
fn a_reader_that_goes_away_ends_the_run_and_leaves_nothing() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let creel = sandbox.workflow(&workflow(TINY, &[("endless", "while :; do echo line; done")]));
    let mut shell = Command::new("sh");
    sandbox.settle_in(&mut shell);
    shell.args(["-c", "\"$@\" | head -n 1", "sh"]).arg(creel.get_program()).args(creel.get_args());
    let ended = Run::start(shell).finish();
    assert_eq!(ended.text(), "line\n", "{}", ended.said());
    ended.expect_stderr("cancelled");
}

#[test]
fn a_reader_that_does_not_read_holds_up_neither_the_deadline_nor_the_end() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut creel = sandbox.workflow(&workflow(TINY, &[("endless", "while :; do echo line; done")]));
    creel.args(["--timeout", "10s"]);
    let mut shell = Command::new("sh");
    sandbox.settle_in(&mut shell);
    // Were creel held up until the reader goes, it would end by the closed pipe: as cancelled, with 130.
    let script = "{ \"$@\"; echo \"code $?\" >&2; } | sleep 20";
    shell.args(["-c", script, "sh"]).arg(creel.get_program()).args(creel.get_args());
    let ended = Run::start(shell).finish();
    ended.expect_stderr("code 124");
}
