//! A mistake in the configuration, and how it is shown: where it stands, what is wrong, what to do.

use std::fmt;
use std::ops::Range;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// What is wrong and what would be right, in one line.
    pub message: String,
}

/// Where a mistake stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Line {
        /// As it was named.
        file: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// The whole line.
        text: String,
        /// How much of the line is meant, in characters; at least 1.
        width: usize,
    },
    /// By its name.
    Variable(String),
}

/// What is shown of a longer line, so that the mark below it stays near.
const MAX_SHOWN_CHARS: usize = 100;

impl Place {
    /// Where the bytes of `span` stand in the file's text.
    pub(super) fn of(file: &str, text: &str, span: Range<usize>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = text[start..].lines().next().unwrap_or_default();
        let meant = text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
        Self::Line {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            text: line_text.to_owned(),
            width: meant.chars().count().max(1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line, column, .. } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl Problem {
    /// With the line that it stands in and a mark below what is meant. A variable has no line.
    pub fn with_line(&self) -> String {
        let Place::Line { line, column, text, width, .. } = &self.place else {
            return format!("{self}\n");
        };
        let left_out = column.saturating_sub(MAX_SHOWN_CHARS / 2);
        let left_out = if text.chars().count() > MAX_SHOWN_CHARS { left_out } else { 0 };
        // A tab is as wide as the reader's terminal has it, and the mark has to stand below.
        let text: String = text.replace('\t', " ").chars().skip(left_out).take(MAX_SHOWN_CHARS).collect();
        let text = crate::text::printable(&text);
        let indent = (column - 1).saturating_sub(left_out);
        let room = text.chars().count().saturating_sub(indent).max(1);
        let mark = " ".repeat(indent) + &"^".repeat((*width).min(room));
        format!("{self}\n{line:>5} | {text}\n      | {mark}\n")
    }
}
