//! Processes of a machine are killed from outside.

use std::time::{Duration, Instant};

use crate::harness::{Ended, Process, Sandbox, TINY, World, machine};

const TWO_SECONDS: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq)]
enum During {
    Boot,
    Step,
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Qemu,
    Vsock,
    Keeper,
}

/// Kills one of the machine's processes and checks how soon that is known, and that the others go with it.
fn kill(victim: Victim, during: During) -> Option<Ended> {
    let world = World::get()?;
    let sandbox = Sandbox::new(world);
    let run = sandbox.start_step(TINY, "echo started; sleep 1000");
    if during == During::Step {
        run.wait_for_stdout("started");
    }
    let machine = machine(sandbox.root());
    if during == During::Boot {
        // Well into the boot, but not to its end: QEMU serves QMP by then.
        std::thread::sleep(Duration::from_millis(500));
    }
    let process: &Process = match victim {
        Victim::Qemu => &machine.qemu,
        Victim::Vsock => &machine.vsock,
        Victim::Keeper => &machine.keeper,
    };
    let since = Instant::now();
    process.kill();
    let ended = run.finish();
    eprintln!("{victim:?} during {during:?}: {:?}", ended.at - since);
    ended.expect_code(125).expect_within(TWO_SECONDS, since);
    ended.expect_stderr(if during == During::Boot { "setup failed" } else { "step `step`" });
    Some(ended)
}

#[test]
fn qemu_killed_during_a_step_is_a_crash_by_its_signal() {
    let Some(ended) = kill(Victim::Qemu, During::Step) else { return };
    ended.expect_stderr("machine crashed (QEMU: signal 9)");
}

#[test]
fn qemu_killed_during_boot_is_a_crash_by_its_signal() {
    let Some(ended) = kill(Victim::Qemu, During::Boot) else { return };
    ended.expect_stderr("machine crashed (QEMU: signal 9)");
}

#[test]
fn the_vsock_helper_killed_during_a_step_is_a_crash_that_names_it() {
    let Some(ended) = kill(Victim::Vsock, During::Step) else { return };
    ended.expect_stderr("machine crashed (vsock: signal 9)");
}

#[test]
fn the_vsock_helper_killed_during_boot_is_a_crash_that_names_it() {
    let Some(ended) = kill(Victim::Vsock, During::Boot) else { return };
    ended.expect_stderr("machine crashed (vsock: signal 9)");
}

#[test]
fn the_keeper_killed_during_a_step_is_creel_s_own_fault() {
    let Some(ended) = kill(Victim::Keeper, During::Step) else { return };
    ended.expect_stderr("creel's own fault").expect_stderr("keeper");
}

#[test]
fn the_keeper_killed_during_boot_is_creel_s_own_fault() {
    let Some(ended) = kill(Victim::Keeper, During::Boot) else { return };
    ended.expect_stderr("creel's own fault").expect_stderr("keeper");
}
