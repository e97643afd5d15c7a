//! What the documentation shows is read as a user would type it: workflow files parse and plan, and
//! command lines are ones that `creel` takes.

#![expect(clippy::unwrap_used, reason = "a test that can't read its own repository has failed")]

use std::path::{Path, PathBuf};

use clap::Parser as _;
use creel::cli::args::Cli;
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
        secrets: Vec::new(),
    };
    plan(&manifest, &input).unwrap_or_else(|error| panic!("{name}: {error}"));
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
    assert!(!files.is_empty());
    for path in files {
        assert_plans(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
    }
}

#[test]
fn every_command_line_in_the_docs_is_one_that_creel_takes() {
    let mut seen = 0;
    for (path, text) in pages() {
        for (line, block) in blocks(&text, "console") {
            for command in block.lines().filter_map(|line| line.strip_prefix("$ creel ")) {
                // What a shell would do with the rest of the line is not creel's.
                let command = command.split(['|', '>', '#', ';', '&']).next().unwrap_or_default();
                let words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
                let parsed = Cli::try_parse_from(std::iter::once("creel").chain(words));
                if let Err(error) = parsed {
                    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
                    let shown = matches!(error.kind(), DisplayHelp | DisplayVersion);
                    assert!(shown, "{}:{line}: creel {command}\n{error}", path.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "the docs show commands");
}

#[test]
fn every_setting_is_documented() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(page).unwrap();
    for key in creel::config::KEYS {
        let row = format!("| `{}.{}` | `{}` |", key.section, key.name, key.variable());
        assert!(text.contains(&row), "docs/configuration.md lacks the row {row}");
    }
}
