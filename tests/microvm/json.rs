//! `--json`: what a program reads.

use serde_json::Value;

use crate::harness::{Ended, Run, Sandbox, TINY, World, workflow};

fn run(steps: &[(&str, &str)]) -> Option<(Ended, Vec<Value>)> {
    let world = World::get()?;
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, steps));
    command.arg("--json");
    let ended = Run::start(command).finish();
    let lines = ended
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("`{line}`: {error}")))
        .collect();
    Some((ended, lines))
}

#[test]
fn every_line_is_an_object_and_the_last_is_the_report() {
    let Some((ended, lines)) =
        run(&[("say", "echo out; echo err >&2"), ("fail", "exit 3"), ("never", "true")])
    else {
        return;
    };
    ended.expect_code(1);
    let (report, log) = lines.split_last().expect("lines");
    assert_eq!(report["kind"], "report");
    assert_eq!((&report["success"], &report["exit_code"]), (&false.into(), &1.into()), "{report:#}");
    assert_eq!(report["workflow"], "ci");
    let steps = report["steps"].as_array().expect("steps");
    let names: Vec<_> = steps.iter().map(|step| step["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["say", "fail"], "{report:#}");
    assert_eq!(steps[1]["text"], "exited with code 3");

    let data = |stream: &str| -> Vec<&str> {
        let of_stream = log.iter().filter(|line| line["kind"] == "data" && line["stream"] == stream);
        of_stream.filter_map(|line| line["content"].as_str()).collect()
    };
    assert_eq!((data("stdout"), data("stderr")), (vec!["out"], vec!["err"]), "{}", ended.said());
    let marks: Vec<_> = log
        .iter()
        .filter(|line| line["kind"] == "control" && line["step_id"] == 1)
        .map(|line| line["step_status"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(marks, ["start", "end"], "{}", ended.said());
    assert!(log.iter().all(|line| line["time"].is_string() && line["workflow"] == "ci"), "{}", ended.said());
}

#[test]
fn success_is_reported() {
    let Some((ended, lines)) = run(&[("say", "true")]) else { return };
    ended.expect_code(0);
    let report = lines.last().expect("a report");
    assert_eq!((&report["success"], &report["exit_code"]), (&true.into(), &0.into()), "{report:#}");
}

#[test]
fn bytes_that_are_no_text_come_exactly_in_base64() {
    let Some((ended, lines)) = run(&[("say", r"printf 'a\377\000b\n'; echo text")]) else { return };
    ended.expect_code(0);
    let data: Vec<_> = lines.iter().filter(|line| line["kind"] == "data").collect();
    assert_eq!(data.len(), 2, "{}", ended.said());
    // base64 of 61 ff 00 62.
    assert_eq!(data[0]["content_base64"], "Yf8AYg==", "{}", ended.said());
    assert_eq!((&data[1]["content"], &data[1]["content_base64"]), (&"text".into(), &Value::Null));
}
