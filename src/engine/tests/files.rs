//! Real workflow files: each parses, and plans as far as its engine can.

use std::fmt::Write;

use super::{input, nixos, parse, remote, rendered};
use crate::engine::{Action, GitRef, Manifest, Match, PlanInput, Trigger, TriggerKind, plan};

pub(super) const FILES: &[(&str, &str)] = &[
    ("deploy-blog", include_str!("../../../tests/workflows/deploy-blog.yml")),
    ("docker-engine", include_str!("../../../tests/workflows/docker-engine.yml")),
    ("fmt", include_str!("../../../tests/workflows/fmt.yml")),
    ("kubernetes-engine", include_str!("../../../tests/workflows/kubernetes-engine.yml")),
    ("microvm-full", include_str!("../../../tests/workflows/microvm-full.yml")),
    ("rust-test-knot", include_str!("../../../tests/workflows/rust-test-knot.yml")),
    ("test", include_str!("../../../tests/workflows/test.yml")),
];

fn manifest(name: &str) -> Manifest {
    let (_, text) = FILES.iter().find(|(known, _)| *known == name).expect("a file");
    Manifest::parse(&format!("{name}.yml"), text).unwrap_or_else(|errors| panic!("{}", errors.render()))
}

#[test]
fn every_file_parses_to_what_it_says() {
    for (name, _) in FILES {
        insta::assert_debug_snapshot!(format!("manifest_{name}"), manifest(name));
    }
}

#[test]
fn every_file_of_the_folder_is_in_the_list() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workflows");
    let Ok(entries) = std::fs::read_dir(folder) else { panic!("{folder} can't be read") };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".yml").map(str::to_owned))
        .collect();
    names.sort();
    assert_eq!(names, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

#[test]
fn every_file_plans_or_says_what_is_missing() {
    let mut out = String::new();
    for (name, _) in FILES {
        for image in [input().image.expect("an image"), nixos()] {
            let of_image = PlanInput { image: Some(image.clone()), ..input() };
            let outcome = match plan(&manifest(name), &of_image) {
                Ok(plan) => {
                    let can =
                        plan.runnable().map_or_else(|error| error.to_string(), |()| "runnable".to_owned());
                    format!("{} steps; {can}", plan.steps.len())
                }
                Err(error) => error.to_string(),
            };
            writeln!(out, "{name} on {}: {outcome}", image.name).expect("a string takes it");
        }
    }
    insta::assert_snapshot!("plans", out);
}

/// Every file for a push, a pull request and a manual run, as spindle would ask: what matches, and the whole plan.
#[test]
fn every_file_is_planned_for_every_event() {
    let pull_request = TriggerKind::PullRequest {
        source_branch: Some("fix".to_owned()),
        target_branch: "master".to_owned(),
        action: None,
    };
    let triggers = [
        ("push to master", Trigger::push(GitRef::Branch("master".to_owned()))),
        ("pull request into master", Trigger { kind: pull_request, changed_paths: None }),
        ("manual", Trigger::manual()),
    ];
    for (name, _) in FILES {
        let manifest = manifest(name);
        let mut out = String::new();
        for (what, trigger) in &triggers {
            let matched = match manifest.matches(trigger) {
                Match::Yes => "matches".to_owned(),
                Match::No { reasons } => format!("does not match: {}", reasons.join("; ")),
            };
            let input = PlanInput {
                workflow_name: (*name).to_owned(),
                trigger: trigger.clone(),
                image: Some(nixos()),
                ..remote()
            };
            let plan = plan(&manifest, &input).expect("a plan");
            writeln!(out, "═══ {what}: {matched}\n{}", rendered(&plan)).expect("a string takes it");
        }
        insta::assert_snapshot!(format!("planned_{name}"), out);
    }
}

#[test]
fn every_file_says_when_it_runs() {
    let mut triggers = vec![
        ("manual", Trigger::manual()),
        ("push master", Trigger::push(GitRef::Branch("master".to_owned()))),
        ("push release/1/2", Trigger::push(GitRef::Branch("release/1/2".to_owned()))),
        ("push tag v1.0", Trigger::push(GitRef::Tag("v1.0".to_owned()))),
        ("pull request into master", Trigger::pull_request("master")),
    ];
    let mut docs = Trigger::push(GitRef::Branch("master".to_owned()));
    docs.changed_paths = Some(vec!["docs/a.md".to_owned()]);
    let mut blog = docs.clone();
    blog.changed_paths = Some(vec!["docs/a.md".to_owned(), "cmd/blog/x/main.go".to_owned()]);
    triggers.extend([("push master, docs changed", docs), ("push master, blog changed", blog)]);
    let mut out = String::new();
    for (name, _) in FILES {
        for (what, trigger) in &triggers {
            let answer = match manifest(name).matches(trigger) {
                Match::Yes => "yes".to_owned(),
                Match::No { reasons } => format!("no: {}", reasons.join("; ")),
            };
            writeln!(out, "{name}, {what}: {answer}").expect("a string takes it");
        }
    }
    insta::assert_snapshot!("matches", out);
}

#[test]
fn a_plan_shows_each_step_with_its_argv() {
    let manifest = parse(
        "engine: microvm\nwhen: [{event: manual}]\nenvironment: {A: 1}\nsteps:\n  - command: |\n      set -e\n      make\n  \
         - name: second\n    command: make test\n    environment: {B: 0x10}\n",
    );
    let plan = plan(&manifest, &input()).expect("a plan");
    for (index, step) in plan.steps.iter().enumerate() {
        assert_eq!(step.index, index);
    }
    insta::assert_debug_snapshot!("plan_of_two_steps", plan);
    let Action::Exec(exec) = &plan.steps[2].action else { panic!("an exec") };
    insta::assert_snapshot!(
        "environment_of_a_step",
        exec.environment_with(&super::secrets()).to_entries().join("\n")
    );
}
