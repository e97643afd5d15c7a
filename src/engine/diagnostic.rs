//! What is wrong with a file, where, and how that is shown.

use std::fmt;

use super::yaml::Span;
use crate::text::printable;

/// More problems than this are counted, not shown.
const SHOWN_PROBLEMS: usize = 30;
/// Characters of a source line that are shown around the fault.
const SHOWN_COLUMNS: usize = 100;
/// Characters of a value that are repeated in a message.
const QUOTED_CHARACTERS: usize = 60;

/// One problem and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub span: Span,
    /// One line, free of control characters.
    pub message: String,
}

impl Diagnostic {
    /// A problem at `span`. The message may contain text from the file: what a terminal would obey is replaced.
    #[must_use]
    pub fn new(span: Span, message: impl AsRef<str>) -> Self {
        Self { span, message: printable(message.as_ref()) }
    }
}

/// Everything that is wrong with one workflow file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestErrors {
    file_name: String,
    source: String,
    problems: Vec<Diagnostic>,
}

impl ManifestErrors {
    pub(super) fn new(file_name: &str, source: &str, mut problems: Vec<Diagnostic>) -> Self {
        problems.sort_by_key(|problem| problem.span);
        Self { file_name: printable(file_name), source: source.to_owned(), problems }
    }

    /// The name it was parsed under, fit to be shown.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The problems, first line first.
    #[must_use]
    pub fn problems(&self) -> &[Diagnostic] {
        &self.problems
    }

    /// All problems as a compiler shows them: place, message, the line and a caret under the fault. Ends in a newline.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for problem in self.problems.iter().take(SHOWN_PROBLEMS) {
            out.push_str(&self.headline(problem));
            out.push('\n');
            out.push_str(&excerpt(&self.source, problem.span));
        }
        if let Some(more) = self.more() {
            out.push_str(&more);
            out.push('\n');
        }
        out
    }

    fn headline(&self, problem: &Diagnostic) -> String {
        format!("{}:{}:{}: {}", self.file_name, problem.span.line, problem.span.column, problem.message)
    }

    fn more(&self) -> Option<String> {
        let hidden = self.problems.len().saturating_sub(SHOWN_PROBLEMS);
        (hidden > 0).then(|| format!("{}: and {hidden} more problems", self.file_name))
    }
}

impl fmt::Display for ManifestErrors {
    /// One line a problem, without the source; for logs and APIs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<_> =
            self.problems.iter().take(SHOWN_PROBLEMS).map(|problem| self.headline(problem)).collect();
        lines.extend(self.more());
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ManifestErrors {}

/// `text` in backquotes, shortened.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARACTERS) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// The line of `span` and a caret under it; nothing when the text has no such line or it is blank.
fn excerpt(source: &str, span: Span) -> String {
    let Some(line) = source_line(source, span.line) else { return String::new() };
    if line.trim().is_empty() {
        return String::new();
    }
    let column = span.column.saturating_sub(1);
    let skipped = if column < SHOWN_COLUMNS { 0 } else { column - SHOWN_COLUMNS / 2 };
    // A tab is as wide as the terminal likes; as one space it keeps the caret in place.
    let shown: String =
        line.chars().skip(skipped).take(SHOWN_COLUMNS).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let shown = printable(shown.trim_end());
    let (before, after) = (
        if skipped > 0 { "…" } else { "" },
        if line.chars().count() > skipped + SHOWN_COLUMNS { "…" } else { "" },
    );
    let indent = column - skipped + before.chars().count();
    let width =
        span.width.min((shown.chars().count() + before.chars().count()).saturating_sub(indent)).max(1);
    let gutter = span.line.to_string();
    let margin = " ".repeat(gutter.len());
    format!(" {gutter} | {before}{shown}{after}\n {margin} | {}{}\n", " ".repeat(indent), "^".repeat(width))
}

/// Line `number` (from 1), where lines end as YAML says: `\n`, `\r\n` or `\r`.
fn source_line(source: &str, number: usize) -> Option<&str> {
    let mut rest = source.strip_prefix('\u{feff}').unwrap_or(source);
    for _ in 1..number {
        let end = rest.find(['\n', '\r'])?;
        let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + width..];
    }
    Some(rest.split(['\n', '\r']).next().unwrap_or(rest))
}
