//! `creel workflow`: what the files of a repository say, without running anything.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{WorkflowCommand, WorkflowLsArgs};
use super::context::Context;
use super::failure::Failure;
use super::run::{Broken, Read, WORKFLOWS_DIRECTORY, read_all, trigger_of};
use crate::engine::{EngineKind, Manifest, Match, Trigger};
use crate::exit::Exit;
use crate::text::printable;
use crate::workflow::source::Repository;

/// Wider images and names push the columns after them aside.
const WIDEST_COLUMN: usize = 40;

/// `creel workflow`.
///
/// # Errors
/// When there is nothing to list; a broken file is a row, and exit code 2.
pub(super) fn workflow(context: &Context, command: WorkflowCommand) -> Result<Exit, Failure> {
    match command {
        WorkflowCommand::Ls(arguments) => {
            let here = std::env::current_dir()
                .map_err(|error| Failure::usage(format!("failed to find the current directory: {error}")))?;
            let (text, exit) = list(&here, context.default_image(), arguments)?;
            print!("{text}");
            Ok(exit)
        }
    }
}

/// The list of the repository around `directory`.
fn list(directory: &Path, default_image: &str, arguments: WorkflowLsArgs) -> Result<(String, Exit), Failure> {
    let repository = Repository::discover(directory).map_err(|error| {
        Failure::usage(format!(
            "workflows are looked for in `{WORKFLOWS_DIRECTORY}` of a git repository: {error}"
        ))
    })?;
    let trigger = trigger_of(arguments.event, arguments.branch, Vec::new(), Some(&repository))?;
    let rows: Vec<Row> =
        read_all(&repository.root)?.into_iter().map(|read| Row::of(read, &trigger, default_image)).collect();
    let broken = rows.iter().any(|row| matches!(row.content, Content::Broken { .. }));
    let exit = if broken { Exit::Usage } else { Exit::Success };
    if arguments.json.json {
        return Ok((format!("{:#}\n", Value::from_iter(rows.iter().map(Row::as_json))), exit));
    }
    if rows.is_empty() {
        eprintln!("there are no workflow files in `{WORKFLOWS_DIRECTORY}`");
        return Ok((String::new(), exit));
    }
    Ok((table(&rows), exit))
}

/// One file.
struct Row {
    name: String,
    file: String,
    content: Content,
}

enum Content {
    Workflow {
        engine: EngineKind,
        /// `None`: the engine makes one.
        image: Option<String>,
        steps: usize,
        matched: Match,
        /// Why creel can't run it, whatever the event.
        not_yet: Option<String>,
    },
    Broken {
        problems: Vec<Problem>,
    },
}

struct Problem {
    /// From 1; `None` where the file could not be read.
    place: Option<(usize, usize)>,
    message: String,
}

impl Row {
    fn of(read: Read, trigger: &Trigger, default_image: &str) -> Self {
        let content = match read.manifest {
            Ok(manifest) => Content::Workflow {
                engine: manifest.engine.value,
                image: image(&manifest, default_image),
                steps: manifest.steps.len(),
                matched: manifest.matches(trigger),
                not_yet: manifest.not_yet().map(|not_yet| not_yet.to_string()),
            },
            Err(Broken::Unreadable(error)) => {
                let message = printable(&format!("failed to read it: {error}"));
                Content::Broken { problems: vec![Problem { place: None, message }] }
            }
            Err(Broken::Wrong(errors)) => {
                let problem = |problem: &crate::engine::Diagnostic| Problem {
                    place: Some((problem.span.line, problem.span.column)),
                    message: problem.message.clone(),
                };
                Content::Broken { problems: errors.problems().iter().map(problem).collect() }
            }
        };
        Self { name: read.name, file: read.file, content }
    }

    /// Engine, image, steps, and whether it runs.
    fn cells(&self) -> [String; 4] {
        match &self.content {
            Content::Workflow { engine, image, steps, matched, not_yet } => {
                let runs = match (matched, not_yet) {
                    (Match::No { reasons }, _) => format!("no: {}", reasons.join("; ")),
                    (Match::Yes, Some(not_yet)) => format!("yes, but not here: {not_yet}"),
                    (Match::Yes, None) => "yes".to_owned(),
                };
                let image = image.as_deref().map_or_else(|| "-".to_owned(), printable);
                [engine.to_string(), image, steps.to_string(), runs]
            }
            Content::Broken { problems } => {
                let problem = problems.first().map(|problem| problem.shown(&self.file)).unwrap_or_default();
                let more = match problems.len() {
                    0 | 1 => String::new(),
                    count => format!(" (and {} more)", count - 1),
                };
                let dash = || "-".to_owned();
                [dash(), dash(), dash(), format!("broken: {problem}{more}")]
            }
        }
    }

    fn as_json(&self) -> Value {
        match &self.content {
            Content::Workflow { engine, image, steps, matched, not_yet } => {
                let reasons: &[String] = match matched {
                    Match::Yes => &[],
                    Match::No { reasons } => reasons,
                };
                json!({
                    "name": self.name,
                    "file": self.file,
                    "engine": engine,
                    "image": image,
                    "steps": steps,
                    "matches": matches!(matched, Match::Yes),
                    "reasons": reasons,
                    "not_yet": not_yet,
                    "problems": [],
                })
            }
            Content::Broken { problems } => json!({
                "name": self.name,
                "file": self.file,
                "engine": null,
                "image": null,
                "steps": null,
                "matches": false,
                "reasons": [],
                "not_yet": null,
                "problems": problems.iter().map(Problem::as_json).collect::<Vec<_>>(),
            }),
        }
    }
}

impl Problem {
    fn shown(&self, file: &str) -> String {
        match self.place {
            Some((line, column)) => format!("{file}:{line}:{column}: {}", self.message),
            None => format!("{file}: {}", self.message),
        }
    }

    fn as_json(&self) -> Value {
        let (line, column) = self.place.unzip();
        json!({ "line": line, "column": column, "message": self.message })
    }
}

/// What a run would take: the file's, or the default, which engine `microvm` alone has.
fn image(manifest: &Manifest, default_image: &str) -> Option<String> {
    match (&manifest.image, manifest.engine.value) {
        (Some(image), _) => Some(image.value.clone()),
        (None, EngineKind::Microvm) => Some(default_image.to_owned()),
        (None, EngineKind::Nixery | EngineKind::Docker | EngineKind::Kubernetes) => None,
    }
}

fn table(rows: &[Row]) -> String {
    let cells: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.cells())).collect();
    let width = |title: &str, texts: &mut dyn Iterator<Item = &str>| {
        texts.map(|text| text.chars().count()).max().unwrap_or(0).clamp(title.len(), WIDEST_COLUMN)
    };
    let names = width("NAME", &mut cells.iter().map(|(name, _)| *name));
    let engines = width("ENGINE", &mut cells.iter().map(|(_, [engine, ..])| engine.as_str()));
    let images = width("IMAGE", &mut cells.iter().map(|(_, [_, image, ..])| image.as_str()));
    let mut text = format!("{:<names$}  {:<engines$}  {:<images$}  STEPS  RUNS\n", "NAME", "ENGINE", "IMAGE");
    for (name, [engine, image, steps, runs]) in &cells {
        text += &format!("{name:<names$}  {engine:<engines$}  {image:<images$}  {steps:>5}  {runs}\n");
    }
    text
}

#[cfg(test)]
mod tests;
