//! What the documentation shows is read as a user would type it: workflow files parse and plan, and
//! command lines are ones that `creel` takes.

#![expect(clippy::unwrap_used, reason = "a test that can't read its own repository has failed")]

#[path = "docs/api.rs"]
mod api;
#[path = "docs/configuration.rs"]
mod configuration;
#[path = "docs/shell.rs"]
mod shell;

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use creel::cli::args::Cli;
use creel::cli::manual::examples;
use creel::engine::{ImageFacts, Manifest, PlanInput, RunFacts, SourceKind, Trigger, plan};

fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let names = ["README.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut paths: Vec<PathBuf> = names.iter().map(|name| root.join(name)).chain(docs).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.sort();
    assert!(paths.len() > names.len(), "docs/ has pages");
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The fenced blocks of a language, each with the line that it begins at.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            None if line.trim() == format!("```{language}") => open = Some((number + 1, String::new())),
            None => {}
            Some(_) if line.trim() == "```" => found.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    found
}

fn assert_plans(name: &str, text: &str) {
    let manifest = Manifest::parse(name, text).unwrap_or_else(|errors| panic!("{}", errors.render()));
    let input = PlanInput {
        workflow_name: "docs".into(),
        trigger: Trigger::manual(),
        facts: RunFacts::default(),
        image: Some(ImageFacts { name: "tiny".into(), shell: "/bin/sh".into(), base_config_hash: None }),
        source: SourceKind::Disk { commit: None, dirty: false },
    };
    let plan = plan(&manifest, &input).unwrap_or_else(|error| panic!("{name}: {error}"));
    plan.runnable().unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_whole_workflow_file_in_the_docs_can_be_run() {
    let mut seen = 0;
    for (path, text) in pages() {
        for (line, block) in blocks(&text, "yaml") {
            if block.starts_with("# workflow") {
                assert_plans(&format!("{}:{line}", path.display()), &block);
                seen += 1;
            }
        }
    }
    assert!(seen > 1, "the README and docs/ show workflows");
}

#[test]
fn every_example_can_be_run() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files: Vec<PathBuf> =
        std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> =
        files.into_iter().filter(|file| file.extension().is_some_and(|it| it == "yml")).collect();
    assert!(!files.is_empty());
    for path in files {
        assert_plans(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
    }
}

/// Whether a program takes the words, its name first.
fn assert_taken(place: &str, program: clap::Command, words: &[String]) {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    if let Err(error) = program.try_get_matches_from(words) {
        let shown = matches!(error.kind(), DisplayHelp | DisplayVersion);
        assert!(shown, "{place}: {}\n{error}", words.join(" "));
    }
}

fn programs() -> [clap::Command; 2] {
    [Cli::command(), creel::daemon::command_line()]
}

#[test]
fn every_command_line_in_the_docs_is_one_that_creel_takes() {
    let mut seen = 0;
    for (path, text) in pages() {
        let shown = blocks(&text, "console").into_iter().map(|(line, block)| {
            let commands = block.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned);
            (line, commands.collect::<Vec<_>>())
        });
        let scripts = blocks(&text, "sh").into_iter();
        let scripts = scripts.map(|(line, block)| (line, block.lines().map(str::to_owned).collect()));
        for (line, commands) in shown.chain(scripts) {
            for command in &commands {
                for program in programs() {
                    for words in shell::of_program(command, program.get_name()) {
                        assert_taken(&format!("{}:{line}", path.display()), program.clone(), &words);
                        seen += 1;
                    }
                }
            }
        }
    }
    assert!(seen > 5, "the docs show commands");
}

#[test]
fn every_example_of_help_is_one_that_creel_takes() {
    fn walk(command: &clap::Command, seen: &mut usize) {
        for example in examples(command) {
            for program in programs() {
                for words in shell::of_program(&example, program.get_name()) {
                    assert_taken(command.get_name(), program.clone(), &words);
                    *seen += 1;
                }
            }
        }
        command.get_subcommands().for_each(|sub| walk(sub, seen));
    }
    let mut seen = 0;
    programs().iter().for_each(|program| walk(program, &mut seen));
    assert!(seen > 20, "help shows commands");
}
