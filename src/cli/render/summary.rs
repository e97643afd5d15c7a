//! The end of a run: how each workflow ended, and where its time went.

use std::time::Duration;

use serde_json::{Value, json};

use super::palette::{Colour, Palette};
use crate::exit::Exit;
use crate::runtime::Verdict;
use crate::state::log::Mask;
use crate::text::one_line;
use crate::workflow::{Ending, Report};

/// How many of the console's last lines are shown beside a machine's failure.
const CONSOLE_LINES: usize = 60;

/// And how much of each.
const CONSOLE_LINE_CHARS: usize = 200;

impl From<&Report> for Exit {
    fn from(report: &Report) -> Self {
        match (&report.ending, report.outcome()) {
            (Ending::SetupFailed(error), _) => (&error.failure).into(),
            (_, Some(outcome)) => outcome.into(),
            (_, None) => Self::Success,
        }
    }
}

/// The report without secrets in what the guest said: its console, and its words beside a verdict.
pub fn masked(mut report: Report, mask: &Mask) -> Report {
    let masked_text = |text: &mut Option<String>| {
        if let Some(text) = text {
            *text = String::from_utf8_lossy(&mask.apply(text.as_bytes())).into_owned();
        }
    };
    let masked_tail = |tail: &mut Option<Vec<u8>>| {
        if let Some(tail) = tail {
            *tail = mask.apply(tail);
        }
    };
    for step in &mut report.steps {
        masked_text(&mut step.verdict.detail);
        masked_tail(&mut step.verdict.console_tail);
    }
    if let Ending::SetupFailed(error) = &mut report.ending {
        masked_tail(&mut error.console_tail);
    }
    report
}

/// The report as text for people.
pub fn text(report: &Report, palette: Palette) -> String {
    let mut lines = Vec::new();
    // Of a machine that was ended on purpose there is nothing to explain.
    if let Some(tail) = report.console_tail().filter(|_| Exit::from(report) != Exit::Cancelled) {
        lines.extend(console_block(tail));
    }
    let (verdict, colour) = match &report.ending {
        Ending::Success => ("ok".to_owned(), Colour::Green),
        Ending::SetupFailed(error) => (format!("setup failed: {error}"), Colour::Red),
        Ending::StepFailed => match report.failed_step() {
            Some(step) => (format!("step `{}`: {}", step.name, step.verdict), Colour::Red),
            None => ("failed".to_owned(), Colour::Red),
        },
    };
    lines.push(format!(
        "{} {} in {}",
        palette.paint(Colour::Bold, &format!("workflow {}:", report.workflow)),
        palette.paint(colour, &verdict),
        seconds(report.total)
    ));
    let phases: Vec<String> =
        report.phases.iter().map(|(phase, took)| format!("{} {}", phase.label(), seconds(*took))).collect();
    if !phases.is_empty() {
        lines.push(row("setup", report.setup, &phases.join(", ")));
    }
    for step in &report.steps {
        let text = match &step.verdict {
            Verdict { outcome, detail: Some(detail), .. } if outcome.is_success() => {
                format!("{outcome}, {detail}")
            }
            verdict => verdict.to_string(),
        };
        lines.push(row(&step.name, step.verdict.usage.wall, &text));
    }
    let skipped = report.planned_steps - report.steps.len();
    if skipped > 0 && !report.succeeded() {
        lines.push(format!("  {skipped} of {} steps not run", report.planned_steps));
    }
    if !report.steps.is_empty() {
        lines.push(row("teardown", report.teardown, report.teardown_error.as_deref().unwrap_or_default()));
    }
    lines.join("\n")
}

/// The run's id, and where more is to be had of it.
pub fn way_in(report: &Report, recorded: bool) -> String {
    let id = &report.id;
    if recorded && !report.succeeded() {
        return format!("  run {id}; its output again:\n  creel logs {id}");
    }
    format!("  run {id}")
}

/// The report as the last line of `--json`.
pub fn json(report: &Report) -> Value {
    let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let phases: serde_json::Map<String, Value> = report
        .phases
        .iter()
        .map(|(phase, took)| (format!("{}_us", phase.label()), microseconds(*took).into()))
        .collect();
    let steps: Vec<Value> = report
        .steps
        .iter()
        .map(|step| {
            json!({
                "step_id": step.index,
                "name": step.name,
                "verdict": step.verdict,
                "text": step.verdict.to_string(),
            })
        })
        .collect();
    let setup_error = match &report.ending {
        Ending::SetupFailed(error) => Some(error.to_string()),
        _ => None,
    };
    json!({
        "kind": "report",
        "id": report.id.as_str(),
        "workflow": report.workflow,
        "success": report.succeeded(),
        "exit_code": Exit::from(report).code(),
        "setup_error": setup_error,
        "phases": phases,
        "steps": steps,
        "planned_steps": report.planned_steps,
        "console_tail": report.console_tail().map(|tail| String::from_utf8_lossy(tail).into_owned()),
        "teardown_us": microseconds(report.teardown),
        "total_us": microseconds(report.total),
    })
}

fn row(name: &str, took: Duration, text: &str) -> String {
    const NAME_CHARS: usize = 28;
    let shown: String = if name.chars().count() > NAME_CHARS {
        name.chars().take(NAME_CHARS - 1).chain(['…']).collect()
    } else {
        name.to_owned()
    };
    format!("  {shown:<NAME_CHARS$} {:>8}  {text}", seconds(took)).trim_end().to_owned()
}

fn seconds(duration: Duration) -> String {
    format!("{:.2}s", duration.as_secs_f64())
}

/// The guest's text, made safe for a terminal.
/// The end of a console, to be shown beside a failure.
pub fn console_block(tail: &[u8]) -> Vec<String> {
    let lines = console_lines(tail).into_iter().map(|line| format!("  | {line}"));
    std::iter::once("the end of the guest's console, as the guest wrote it:".to_owned())
        .chain(lines)
        .collect()
}

fn console_lines(tail: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<String> =
        text.lines().map(|line| one_line(line, CONSOLE_LINE_CHARS)).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_can_t_drive_the_terminal() {
        assert_eq!(
            console_lines(b"\x1b[2Jone\r\n\x07\n\xfftwo\n"),
            ["\u{fffd}[2Jone", "\u{fffd}", "\u{fffd}two"]
        );
    }

    #[test]
    fn only_the_last_lines_of_the_console_are_shown() {
        let tail: String = (0..100).map(|line| format!("{line}\n")).collect();
        let shown = console_lines(tail.as_bytes());
        assert_eq!((shown.len(), shown.first().map(String::as_str)), (CONSOLE_LINES, Some("40")));
    }
}
