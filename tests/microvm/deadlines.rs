//! `--timeout` counts from creel's start and is kept to the second.

use std::time::Duration;

use crate::harness::{Run, Sandbox, TINY, World, workflow};

const A_SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_step_that_outlives_the_timeout_ends_with_124_within_a_second_of_it() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut command =
        sandbox.workflow(&workflow(TINY, &[("endless", "echo started; sleep 1000"), ("next", "true")]));
    command.args(["--timeout", "8s"]);
    let run = Run::start(command);
    let deadline = run.started + Duration::from_secs(8);
    run.wait_for_stdout("started");
    let ended = run.finish();
    ended.expect_code(124).expect_stderr("step `endless`: timed out").expect_within(A_SECOND, deadline);
    assert!(ended.at >= deadline, "before its time: {}", ended.said());
    assert!(!ended.stderr.contains("==> next"), "{}", ended.said());
}

#[test]
fn a_step_that_ignores_signals_does_not_outlive_the_timeout() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let stubborn = "trap '' TERM INT HUP\necho started\nwhile :; do sleep 1 || :; done";
    let mut command = sandbox.workflow(&workflow(TINY, &[("stubborn", stubborn)]));
    command.args(["--timeout", "6s"]);
    let run = Run::start(command);
    let deadline = run.started + Duration::from_secs(6);
    run.finish().expect_code(124).expect_stderr("timed out").expect_within(A_SECOND, deadline);
}

#[test]
fn a_boot_that_outlives_the_timeout_ends_with_124_within_a_second_of_it() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, &[("never", "true")]));
    command.args(["--timeout", "1s"]);
    let run = Run::start(command);
    let deadline = run.started + Duration::from_secs(1);
    let ended = run.finish();
    ended.expect_code(124).expect_stderr("timed out").expect_within(A_SECOND, deadline);
    assert!(!ended.stderr.contains("==> never"), "{}", ended.said());
}
