//! Which workflows of `.tangled/workflows` run.

use std::process::Command;

use jiff::Timestamp;
use serde_json::Value;

use crate::harness::{Ended, Repository, Run, Sandbox, World, workflow};

fn repository(sandbox: &Sandbox) -> Repository {
    let repository = Repository::create(sandbox.work_dir().join("project"));
    let for_main = |event: &str| format!("event: {event}\n    branch: main");
    for (name, event) in [
        ("by-hand", "event: manual".to_owned()),
        ("on-push", for_main("push")),
        ("on-request", for_main("pull_request")),
    ] {
        let steps = workflow("tiny", &[("say", &format!("echo \"ran {name}\""))]);
        let text = steps.replace("event: manual", &event);
        repository.write(&format!(".tangled/workflows/{name}.yml"), text);
    }
    repository.commit();
    repository
}

fn creel(sandbox: &Sandbox, repository: &Repository, arguments: &[&str]) -> Command {
    let mut command = sandbox.creel(["run"]);
    // From a folder below the root: the repository is found as git finds it.
    command.args(arguments).current_dir(repository.path.join(".tangled"));
    command
}

#[test]
fn without_names_the_workflows_for_a_manual_run_are_run_and_the_others_are_told() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = repository(&sandbox);
    let ended = Run::start(creel(&sandbox, &repository, &[])).finish();
    ended.expect_code(0).expect_stderr("not run: on-push: ").expect_stderr("not run: on-request: ");
    assert_eq!(ended.text(), "ran by-hand\n", "{}", ended.said());
}

#[test]
fn an_event_selects_the_workflows_that_it_would_start() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = repository(&sandbox);
    let ended = Run::start(creel(&sandbox, &repository, &["--event", "push", "--branch", "main"])).finish();
    ended.expect_code(0);
    assert_eq!(ended.text(), "ran on-push\n", "{}", ended.said());

    let none = ["--event", "push", "--branch", "other"];
    let ended = Run::start(creel(&sandbox, &repository, &none)).finish();
    ended.expect_code(2).expect_stderr("no workflow matches this event");
}

#[test]
fn workflows_that_are_named_run_whatever_their_when_says_and_each_line_says_whose_it_is() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let repository = repository(&sandbox);
    let ended = Run::start(creel(&sandbox, &repository, &["on-push", "by-hand.yml"])).finish();
    ended.expect_code(0);
    let text = ended.text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[by-hand] ran by-hand", "[on-push] ran on-push"], "{}", ended.said());
}

/// When the setup of `workflow` began, and when its last step had ended, as `--json` says.
fn life(ended: &Ended, workflow: &str) -> (Timestamp, Timestamp) {
    let text = ended.text();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let marks: Vec<Value> =
        lines.filter(|line| line["kind"] == "control" && line["workflow"] == workflow).collect();
    let times = |status: &str| -> Vec<Timestamp> {
        let of_status = marks.iter().filter(|mark| mark["step_status"] == status);
        of_status.map(|mark| mark["time"].as_str().expect("a time").parse().expect("RFC 3339")).collect()
    };
    let (starts, ends) = (times("start"), times("end"));
    assert_eq!((starts.len(), ends.len()), (2, 2), "the setup and a step: {}", ended.said());
    (starts.into_iter().min().expect("two"), ends.into_iter().max().expect("two"))
}

#[test]
fn as_many_workflows_as_there_are_slots_run_side_by_side_and_the_others_after_them() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let repository = repository(&sandbox);
    for (slots, side_by_side) in [("2", true), ("1", false)] {
        let mut command = creel(&sandbox, &repository, &["--json", "on-push", "by-hand"]);
        command.env("CREEL_SCHEDULER__SLOTS", slots);
        let ended = Run::start(command).finish();
        ended.expect_code(0);
        let (one, other) = (life(&ended, "on-push"), life(&ended, "by-hand"));
        let overlap = one.0.max(other.0) < one.1.min(other.1);
        assert_eq!(overlap, side_by_side, "{slots} slots: {one:?}, {other:?}: {}", ended.said());
    }
}

#[test]
fn what_an_event_would_run_is_listed_without_running_it() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = repository(&sandbox);
    let list = |arguments: &[&str]| {
        let mut command = sandbox.creel(["workflow", "ls"]);
        command.args(arguments).current_dir(repository.path.join(".tangled"));
        Run::start(command).finish()
    };
    let ended = list(&["--event", "push"]);
    ended.expect_code(0);
    let runs: Vec<String> =
        ended.text().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        runs,
        [
            "NAME ENGINE IMAGE STEPS RUNS",
            "by-hand microvm tiny 1 no: when[0]: runs on manual, not on push",
            "on-push microvm tiny 1 yes",
            "on-request microvm tiny 1 no: when[0]: runs on pull_request, not on push",
        ],
        "{}",
        ended.said()
    );
    repository
        .write(".tangled/workflows/broken.yml", "engine: microvm\nwhen: [{event: manual}]\nsteps: [{}]\n");
    let ended = list(&["--json"]);
    ended.expect_code(2);
    let rows: serde_json::Value = serde_json::from_str(&ended.text()).expect("JSON");
    assert_eq!(rows[0]["problems"][0]["line"], 3, "{rows}");
    assert_eq!(rows[1]["matches"], true, "{rows}");
}
