use std::process::Command;

use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::cli::args::{Cli, Command as Subcommand};

const STEP: &str = "steps:\n  - command: 'true'\n";

/// A repository whose branch is `main`, with these workflow files.
fn repository(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let git = Command::new("git").args(["init", "-q", "-b", "main"]).current_dir(directory.path()).status();
    assert!(git.unwrap().success());
    let folder = directory.path().join(WORKFLOWS_DIRECTORY);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
    directory
}

/// What the command line prints below `directory`, and its exit code.
fn listed(directory: &Path, words: &[&str]) -> Result<(String, Exit), Failure> {
    let words = ["creel", "workflow", "ls"].iter().chain(words);
    match Cli::try_parse_from(words).unwrap().command {
        Subcommand::Workflow(WorkflowCommand::Ls(arguments)) => list(directory, "tiny", arguments),
        other => panic!("{other:?}"),
    }
}

fn of_each_kind() -> TempDir {
    let on_push = format!("engine: microvm\nimage: debian\nwhen:\n  - event: push\n    branch: main\n{STEP}");
    let by_hand =
        format!("engine: microvm\nwhen:\n  - event: [manual, push]\n    tag: v*\n{STEP}{}", &STEP[7..]);
    let nixery = format!("engine: nixery\nwhen:\n  - event: push\n    branch: '*'\n{STEP}");
    let broken = format!("engine: microvm\nwhen:\n  - evnt: push\n{STEP}stepz: 1\n");
    repository(&[
        ("on-push.yml", on_push.as_bytes()),
        ("by-hand.yaml", by_hand.as_bytes()),
        ("nixery.yml", nixery.as_bytes()),
        ("broken.yml", broken.as_bytes()),
        ("latin1.yml", b"engine: microvm\n# caf\xe9\n"),
        ("notes.txt", b"no workflow"),
    ])
}

#[test]
fn every_file_is_listed_with_what_the_event_does_to_it() {
    let directory = of_each_kind();
    let (text, exit) = listed(directory.path(), &[]).unwrap();
    assert_eq!(exit, Exit::Usage, "a file is broken");
    insta::assert_snapshot!("manual", text);
    let (text, _) = listed(directory.path(), &["--event", "push"]).unwrap();
    insta::assert_snapshot!("push_to_the_branch_checked_out", text);
    let (text, _) = listed(directory.path(), &["--event", "push", "--branch", "refs/tags/v1"]).unwrap();
    insta::assert_snapshot!("push_of_a_tag", text);
}

#[test]
fn good_files_alone_are_a_success_also_where_none_runs() {
    let text = format!("engine: microvm\nwhen:\n  - event: push\n    branch: main\n{STEP}");
    let directory = repository(&[("test.yml", text.as_bytes())]);
    let (text, exit) = listed(&directory.path().join(".tangled"), &["--event", "pull_request"]).unwrap();
    assert_eq!(exit, Exit::Success);
    assert!(text.ends_with("no: when[0]: runs on push, not on pull_request\n"), "{text}");
}

#[test]
fn json_holds_every_reason_and_every_problem() {
    let directory = of_each_kind();
    let (text, exit) = listed(directory.path(), &["--event", "push", "--json"]).unwrap();
    assert_eq!(exit, Exit::Usage);
    let value: Value = serde_json::from_str(&text).unwrap();
    insta::assert_snapshot!("json", format!("{value:#}"));
}

#[test]
fn a_folder_outside_of_a_repository_and_one_without_workflows_are_told() {
    let nowhere = tempfile::tempdir().unwrap();
    let failure = listed(nowhere.path(), &[]).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.to_string().contains("git repository"), "{failure}");
    let empty = repository(&[]);
    assert_eq!(listed(empty.path(), &[]).unwrap(), (String::new(), Exit::Success));
    std::fs::remove_dir(empty.path().join(WORKFLOWS_DIRECTORY)).unwrap();
    let failure = listed(empty.path(), &[]).unwrap_err();
    assert!(failure.to_string().starts_with("there is no `"), "{failure}");
}
