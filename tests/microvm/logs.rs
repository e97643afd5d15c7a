//! Runs are remembered: `creel logs`, `creel ps -a`.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Ended, Run, Sandbox, TINY, World, workflow};

const TEN_SECONDS: Duration = Duration::from_secs(10);

fn logs(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    let mut command = sandbox.creel(["logs"]);
    command.args(arguments);
    Run::start(command).finish()
}

/// What `creel ps -a` knows.
fn listed(sandbox: &Sandbox) -> Vec<Value> {
    let output = sandbox.creel(["ps", "-a", "--json"]).output().expect("creel runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_run_that_has_ended_is_shown_again_as_it_was() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let empty = logs(&sandbox, &[]);
    empty.expect_code(2).expect_stderr("no run is remembered");
    let text = workflow(TINY, &[("say", "echo out; echo err >&2; printf '\\377'"), ("fail", "exit 4")]);
    let mut command = sandbox.workflow(&text);
    command.env("TOKEN", "hunter2hunter2").args(["--secret", "TOKEN"]);
    let run = Run::start(command).finish();
    run.expect_code(1);
    let runs = listed(&sandbox);
    let [of_run] = &runs[..] else { panic!("{runs:?}") };
    let id = of_run["id"].as_str().expect("an id");
    run.expect_stderr(&format!("creel logs {id}"));
    assert_eq!(
        (&of_run["kind"], &of_run["state"], &of_run["workflow"], &of_run["ended_as"]),
        (&"run".into(), &"ended".into(), &"ci".into(), &"exited with code 4".into())
    );

    for name in [None, Some(id), Some(&id[..9]), Some("ci"), Some("ci.yml")] {
        let shown = logs(&sandbox, name.as_slice());
        shown.expect_code(0).expect_stderr("==> say").expect_stderr("err\n");
        shown.expect_stderr("step `fail`: exited with code 4");
        assert_eq!(shown.stdout, b"out\n\xff", "{name:?}");
    }
    let of_step = logs(&sandbox, &["--step", "fail"]);
    of_step.expect_code(0).expect_stderr("==> fail");
    assert!(of_step.stdout.is_empty() && !of_step.stderr.contains("==> say"), "{}", of_step.said());
    logs(&sandbox, &["--step", "nope"]).expect_code(2).expect_stderr("0 `say`, 1 `fail`");

    let lines = logs(&sandbox, &["--json"]);
    let lines: Vec<Value> =
        lines.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let out = lines.iter().find(|line| line["content"] == "out").expect("the line");
    assert_eq!(
        (&out["kind"], &out["stream"], &out["step_id"]),
        (&"data".into(), &"stdout".into(), &0.into())
    );
    let from = out["record"].as_u64().expect("a number") + 1;
    let rest = logs(&sandbox, &["--from", &from.to_string()]);
    assert_eq!(rest.stdout, b"\xff", "{}", rest.said());

    let part = logs(&sandbox, &["--step", "say", "--offset", "1"]);
    assert_eq!(part.stdout, b"ut\n\xff", "{}", part.said());
    assert_eq!(part.stderr, "", "nothing but the stream");
    let aside = logs(&sandbox, &["--step", "say", "--stream", "stderr"]);
    assert_eq!((aside.stdout.as_slice(), aside.stderr.as_str()), (&b"err\n"[..], ""), "{}", aside.said());
    logs(&sandbox, &["--offset", "1"]).expect_code(2).expect_stderr("--step");

    let mistyped = format!("{}{}", &id[..9], if id.ends_with('0') { '1' } else { '0' });
    logs(&sandbox, &[&mistyped]).expect_code(2).expect_stderr("did you mean").expect_stderr(id);
    let none = logs(&sandbox, &["zzzzzzzzzz"]);
    none.expect_code(2).expect_stderr("no run `zzzzzzzzzz` is remembered");
}

#[test]
fn a_run_of_another_process_is_followed_to_its_last_byte() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let run = sandbox.start_step(
        TINY,
        "i=0; while [ $i -lt 4000 ]; do echo \"line $i of the output\"; i=$((i+1)); done; sleep 2; echo last; printf end",
    );
    run.wait_for_stdout("line 0 ");
    let running = listed(&sandbox);
    // The machine of a run that goes on, and the run, are one.
    assert_eq!(running.len(), 1, "{running:?}");
    assert_eq!(
        (&running[0]["state"], &running[0]["run"]),
        (&"ready".into(), &running[0]["id"]),
        "{running:?}"
    );
    let follows = Run::start(sandbox.creel(["logs", "-f"]));
    follows.wait_for_stdout("line 0 ");
    let (run, follows) = (run.finish(), follows.finish());
    run.expect_code(0);
    follows.expect_code(0).expect_stderr("==> step").expect_within(TEN_SECONDS, run.at);
    assert_eq!(follows.text(), run.text());
    assert!(follows.text().ends_with("last\nend"));
}

#[test]
fn a_run_whose_creel_was_killed_is_lost_and_its_output_is_not() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let run = sandbox.start_step(TINY, "echo started; sleep 1000");
    run.wait_for_stdout("started");
    let follows = Run::start(sandbox.creel(["logs", "-f", "ci"]));
    follows.wait_for_stdout("started");
    run.signal(Signal::KILL);
    let ended = run.finish();
    let follows = follows.finish();
    follows.expect_code(0).expect_stderr("the run was lost").expect_within(TEN_SECONDS, ended.at);
    let runs = listed(&sandbox);
    assert_eq!(runs[0]["ended_as"], "lost: its creel ended while it ran", "{runs:?}");
    assert_eq!(logs(&sandbox, &[]).stdout, b"started\n");
    sandbox.expect_nothing_left_within(TEN_SECONDS);
}

#[test]
fn a_state_directory_that_can_t_be_written_stops_no_run() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    std::fs::write(sandbox.root().join("state/runs"), "not a directory").expect("a file");
    let run = sandbox.start_step(TINY, "echo said; exit 3").finish();
    run.expect_code(1).expect_stderr("not remembered").expect_stderr("state/runs");
    assert_eq!(run.stdout, b"said\n");
    assert!(!run.stderr.contains("creel logs"), "{}", run.said());
}

#[test]
fn old_runs_make_room_for_new_ones() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    for said in ["one", "two"] {
        let mut command = sandbox.workflow(&workflow(TINY, &[("say", &format!("echo {said}"))]));
        command.env("CREEL_LOGS__MAX_RUNS", "1");
        Run::start(command).finish().expect_code(0);
    }
    assert_eq!(listed(&sandbox).len(), 1);
    assert_eq!(logs(&sandbox, &[]).stdout, b"two\n");
}
