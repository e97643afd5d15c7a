//! How a step ended, told apart: by itself, by a signal, by the guest's memory.

use std::time::Duration;

use crate::harness::{Run, Sandbox, TINY, World, workflow};

#[test]
fn a_step_that_a_signal_ends_is_told_by_the_signal() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let ended = sandbox.start_step(TINY, "echo before; kill -SEGV $$; echo after").finish();
    ended.expect_code(1).expect_stderr("step `step`: killed by signal 11");
    assert_eq!(ended.text(), "before\n");
}

#[test]
fn a_step_that_takes_all_memory_is_told_so() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    // As most often: the kernel kills a compiler, and the shell above it reports that as its own exit code.
    let glutton = "echo before; awk 'BEGIN { s = \"x\"; while (1) s = s s }'; exit $?";
    let ended = sandbox.start_step(TINY, glutton).finish();
    ended.expect_code(1).expect_stderr("step `step`: out of memory (the guest kernel killed a process");
    assert!(ended.text().starts_with("before\n"), "{}", ended.said());
}

#[test]
fn a_command_that_is_not_there_is_named_by_the_shell() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let ended = sandbox.start_step(TINY, "no-such-command --at all").finish();
    ended.expect_code(1).expect_stderr("step `step`: exited with code 127");
    assert!(ended.text().contains("no-such-command: not found"), "{}", ended.said());
}

#[test]
fn a_program_left_in_the_background_does_not_hold_its_step() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = "(while :; do sleep 1; done) &\necho started";
    let steps = [("daemon", daemon), ("next", "echo next")];
    let run = Run::start(sandbox.workflow(&workflow(TINY, &steps)));
    let since = run.wait_for_stdout("started");
    let ended = run.finish();
    ended.expect_code(0).expect_within(Duration::from_secs(15), since);
    assert_eq!(ended.text(), "started\nnext\n", "{}", ended.said());
}

#[test]
fn steps_are_nobody_but_the_workflow_s_user() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let step = "id -u; id -G; grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status; \
                echo x > /etc/passwd || echo 'no writing to /etc'";
    let ended = sandbox.start_step(TINY, step).finish();
    ended.expect_code(0);
    let text = ended.text();
    for said in ["970\n970\n", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "no writing to /etc"]
    {
        assert!(text.contains(said), "`{said}` is not on stdout: {}", ended.said());
    }
}
