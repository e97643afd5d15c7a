//! The guest ends a run: its kernel, or its agent. A root helper in the image does it, as steps are never root.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::harness::{
    Ended, Run, SERVICE, SERVICE_DIES_AT_BOOT, Sandbox, TINY, World, machine, wait_until, workflow,
};

const TWO_SECONDS: Duration = Duration::from_secs(2);

/// An agent whose connection has ended has five seconds to come back; then what is known is judged.
const AGENT_AWAY: Duration = Duration::from_secs(5);

/// Runs a step that has the guest do something to itself, and checks how soon that is known. What the step said
/// before is given the time to leave the guest; the promise is kept all the same, as time counts from there.
fn after_trigger(word: &str) -> Option<Ended> {
    after_trigger_within(word, TWO_SECONDS)
}

fn after_trigger_within(word: &str, promised: Duration) -> Option<Ended> {
    let world = World::get()?;
    let sandbox = Sandbox::new(world);
    let trigger = format!("echo triggered; sleep 0.3; echo {word} > /run/trigger; sleep 1000");
    let run = Run::start(sandbox.workflow(&workflow(SERVICE, &[("victim", &trigger), ("next", "true")])));
    let since = run.wait_for_stdout("triggered");
    let ended = run.finish();
    eprintln!("{word}: {:?}", ended.at - since);
    ended.expect_code(125).expect_within(promised, since);
    assert!(!ended.stderr.contains("==> next"), "{}", ended.said());
    Some(ended)
}

#[test]
fn an_agent_that_is_a_service_runs_steps_and_powers_off() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let ended = sandbox.start_step(SERVICE, "echo \"pid 1 is $(cat /proc/1/comm)\"").finish();
    ended.expect_code(0).expect_stderr("workflow ci: ok");
    assert_eq!(ended.text(), "pid 1 is init\n");
}

#[test]
fn a_panic_during_a_step_is_a_crash_with_the_end_of_the_console() {
    let Some(ended) = after_trigger("panic") else { return };
    ended
        .expect_stderr("step `victim`: machine crashed (guest reset or panic)")
        .expect_stderr("Kernel panic - not syncing: sysrq triggered crash");
}

#[test]
fn a_reset_during_a_step_is_a_crash() {
    let Some(ended) = after_trigger("reset") else { return };
    ended.expect_stderr("step `victim`: machine crashed (guest reset or panic)");
}

#[test]
fn a_guest_that_powers_itself_off_during_a_step_is_a_crash() {
    let Some(ended) = after_trigger("poweroff") else { return };
    ended.expect_stderr("step `victim`: machine crashed (guest powered off)");
}

#[test]
fn an_agent_that_is_killed_during_a_step_is_lost() {
    let Some(ended) = after_trigger_within("kill-agent", AGENT_AWAY + TWO_SECONDS) else { return };
    ended.expect_stderr("step `victim`: agent lost");
}

#[test]
fn a_panic_before_the_agent_connected_is_a_crash_of_the_setup() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let run = sandbox.start_step(SERVICE_DIES_AT_BOOT, "true");
    let qemu_ended = machine(sandbox.root()).qemu.ended();
    let ended = run.finish();
    ended
        .expect_code(125)
        .expect_stderr("setup failed")
        .expect_stderr("machine crashed (guest reset or panic)")
        .expect_stderr("Kernel panic - not syncing: sysrq triggered crash")
        .expect_within(TWO_SECONDS, qemu_ended);
}

#[test]
fn an_agent_that_connected_and_ended_before_hello_is_lost() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, &[("step", "true")]));
    // In a jail only the machine's own user may connect, who this is not.
    command.env("CREEL_JAIL__MODE", "off");
    let run = Run::start(command);
    // What creel sees of it: a connection to the agent's port that ends without a word. It is made here, long
    // before the guest's own agent is up, since no guest program can be timed to die between two system calls.
    let mut port = None;
    wait_until(Duration::from_secs(30), "creel listens for the agent", || {
        let machine = sandbox.machine_directory();
        let entries =
            machine.and_then(|machine| std::fs::read_dir(machine.join("sockets")).ok()).into_iter().flatten();
        let mut ports = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("vsock_"));
        port = ports.next().and_then(|entry| UnixStream::connect(entry.path()).ok());
        port.is_some()
    });
    let _processes = machine(sandbox.root());
    let since = Instant::now();
    drop(port);
    let ended = run.finish();
    ended
        .expect_code(125)
        .expect_stderr("setup failed")
        .expect_stderr("agent lost")
        .expect_within(TWO_SECONDS, since);
}
