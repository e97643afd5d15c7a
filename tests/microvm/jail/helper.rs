//! The same attempts from the vsock helper's place, which a hostile guest reaches as directly as QEMU.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{ATTEMPTS, SOON, built, ends, rooted};
use crate::harness::{Run, Sandbox, TINY, World, wait_until, workflow};

/// What comes of an attempt that ends otherwise than in QEMU's place. It makes sockets and removes them, in a directory that is its
/// machine's alone: the socket that is named there is creel's for this machine, whose guest is then heard by nobody. And it has
/// no file that it could write to.
const OTHERWISE: [(&str, &str); 2] = [("removing a socket", "done"), ("making a disk longer", "done")];

#[test]
fn a_program_in_the_helper_s_place_gets_no_further() {
    let Some(world) = World::get() else { return };
    if !rooted() {
        return;
    }
    let sandbox = Sandbox::new(world);
    let kit = sandbox.root().join("kit");
    assert!(Command::new("cp").arg("-r").arg(&world.kit).arg(&kit).status().expect("cp").success());
    let attacker = built(&sandbox, "helper", &["-DHELPER"]);
    fs::rename(attacker, kit.join("bin/vhost-device-vsock")).expect("it is the helper now");
    let mut command = sandbox.workflow(&workflow(TINY, &[("never", "true")]));
    command
        .env("CREEL_JAIL__MODE", "required")
        .env("CREEL_MACHINE__ACCEL", "tcg")
        .env("CREEL_KIT__DIR", &kit);
    let run = Run::start(command);
    let mut said = Vec::new();
    wait_until(Duration::from_secs(60), "the helper has tried all", || {
        let log = sandbox.machine_directory().and_then(|machine| fs::read(machine.join("log-vsock")).ok());
        let log = String::from_utf8_lossy(&log.unwrap_or_default()).into_owned();
        said = log.lines().map(str::to_owned).collect();
        log.contains("that was all")
    });
    run.finish().expect_code(125).expect_stderr("did not accept within");
    let mut expected: BTreeMap<&str, &str> =
        ATTEMPTS[..ATTEMPTS.len() - 1].iter().map(|(attempt, _, root, _)| (*attempt, *root)).collect();
    expected.extend(OTHERWISE);
    assert_eq!(ends(&said), expected, "{said:#?}");
    sandbox.expect_no_process_within(SOON);
}
