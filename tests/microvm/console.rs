//! A guest writes its console without end, and nothing on the host grows with it.

use std::fs;
use std::path::Path;

use crate::harness::{Run, SERVICE, Sandbox, World, machine, resident_kib, workflow};

const FLOOD_BYTES: u64 = 20 << 20;

/// Far above what is kept of a console, far below the flood.
const MOST_FILE_BYTES: u64 = 1 << 20;
const MOST_KEEPER_KIB: u64 = 8 << 10;

#[test]
fn a_flooded_console_stays_small_and_harms_no_run() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let flood = format!("echo started; echo flood {FLOOD_BYTES} > /run/trigger; cat /run/answer; sleep 1");
    let run = Run::start(sandbox.workflow(&workflow(SERVICE, &[("flood", &flood), ("next", "echo next")])));
    run.wait_for_stdout("started");
    let machine = machine(sandbox.root());
    let creel_before = resident_kib(run.pid());
    run.wait_for_stdout("flooded");
    let directory = sandbox.machine_directory().expect("the machine's directory");
    let (files, keeper) = (total_bytes(&directory), resident_kib(machine.keeper.pid));
    let creel = resident_kib(run.pid()).saturating_sub(creel_before);
    let ended = run.finish();

    ended.expect_code(0);
    assert_eq!(ended.text(), "started\nflooded\nnext\n", "{}", ended.said());
    assert!(files < MOST_FILE_BYTES, "{files} bytes in the machine's directory");
    assert!(keeper < MOST_KEEPER_KIB, "the keeper holds {keeper} KiB");
    assert!(creel < MOST_KEEPER_KIB, "creel has grown by {creel} KiB");
}

#[test]
fn the_end_of_a_flooded_console_is_shown_when_the_machine_crashes() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let flood = "echo flood 1000000 > /run/trigger; cat /run/answer; echo panic > /run/trigger; sleep 1000";
    let ended = sandbox.start_step(SERVICE, flood).finish();
    ended
        .expect_code(125)
        .expect_stderr("machine crashed (guest reset or panic)")
        .expect_stderr("sysrq_handle_crash");
    let quoted = ended.stderr.lines().filter(|line| line.trim_start().starts_with("| ")).count();
    assert!(quoted <= 60, "{quoted} lines of console are a flood themselves: {}", ended.said());
}

fn total_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("the machine's directory").filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}
