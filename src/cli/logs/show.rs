//! Writes a log: output byte for byte on its own streams and marks between, or JSON lines.
//!
//! Nothing is to be undone when this is interrupted, so it blocks on its streams as `cat` does.

use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;

use crate::cli::failure::{Failure, with_causes};
use crate::cli::render::{Colour, Palette};
use crate::state::log::{
    Control, FollowError, Follower, LineSplitter, LogLine, Payload, Record, SETUP_STEP, StepStatus, Stream,
    StreamExpired, StreamFollower,
};
use crate::text::printable;

/// Which steps are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    All,
    Step(i32),
}

impl Filter {
    /// By name, else by number.
    ///
    /// # Errors
    /// When the run has no such step.
    pub(super) fn of(text: &str, names: &[String]) -> Result<Self, Failure> {
        let by_name = names.iter().position(|name| name == text);
        let by_number = || text.parse().ok().filter(|index| names.is_empty() || *index < names.len());
        match by_name.or_else(by_number).and_then(|index| i32::try_from(index).ok()) {
            Some(index) => Ok(Self::Step(index)),
            None => {
                let steps: Vec<String> = names
                    .iter()
                    .enumerate()
                    .map(|(index, name)| format!("{index} `{}`", printable(name)))
                    .collect();
                let (shown, steps) = (printable(text), steps.join(", "));
                Err(Failure::usage(format!("the run has no step `{shown}`; it has {steps}")))
            }
        }
    }

    fn has(self, step: i32) -> bool {
        match self {
            Self::All => true,
            Self::Step(index) => index == step,
        }
    }
}

/// Why not all was written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The reader of stdout has gone.
    Nobody,
    Failed(String),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Nobody;
        }
        Self::Failed(format!("failed to show the log: {error}"))
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    json: bool,
    step_names: Vec<String>,
    filter: Filter,
    palette: Palette,
    lines: LineSplitter,
    /// Whether the terminal's cursor stands behind unfinished output.
    in_line: bool,
    terminal: bool,
}

impl Writer {
    pub(super) fn new(json: bool, step_names: Vec<String>, filter: Filter) -> Self {
        Self {
            json,
            step_names,
            filter,
            palette: Palette::of_stderr(),
            lines: LineSplitter::default(),
            in_line: false,
            terminal: io::stdout().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When it can't be read, or not be written.
    pub(super) async fn write(&mut self, mut log: Follower) -> Result<(), WriteError> {
        while let Some(next) = log.next().await {
            match next {
                Ok(record) if self.filter.has(record.step) => self.record(&record)?,
                Ok(_) => {}
                // What is cut of other steps is nothing that is missed here.
                Err(FollowError::Expired(range)) if !self.filter.has(range.step) => {}
                Err(FollowError::Expired(range)) => {
                    self.finish()?;
                    let line = LogLine::expired(&range, Timestamp::now());
                    if self.json {
                        out(line.to_json_line().as_bytes())?;
                    } else {
                        self.note(&line.content);
                    }
                }
                Err(FollowError::Log(error)) => return Err(WriteError::Failed(with_causes(&error))),
            }
        }
        Ok(self.finish()?)
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        if self.json {
            let mut lines = Vec::new();
            self.lines.push(record, |line| lines.push(line));
            return all_out(&lines);
        }
        match &record.payload {
            Payload::Data { stream: Stream::Stdout, bytes } => {
                self.in_line = bytes.last().is_some_and(|byte| *byte != b'\n');
                out(bytes)
            }
            Payload::Data { stream: Stream::Stderr, bytes } => {
                self.in_line = bytes.last().is_some_and(|byte| *byte != b'\n');
                io::stderr().lock().write_all(bytes)
            }
            Payload::Control(control) => {
                self.control(record.step, control);
                Ok(())
            }
        }
    }

    /// As on the run's own screen; a setup that failed is told there by the summary.
    fn control(&mut self, step: i32, control: &Control) {
        let name = usize::try_from(step).ok().and_then(|step| self.step_names.get(step));
        let name = name.map_or_else(|| step.to_string(), Clone::clone);
        match control.step_status {
            StepStatus::Start if step == SETUP_STEP => {}
            StepStatus::Start => self.note(&self.palette.paint(Colour::Bold, &format!("==> {name}"))),
            StepStatus::End if control.content == "ok" => {}
            StepStatus::End => {
                let who =
                    if step == SETUP_STEP { "setup failed".to_owned() } else { format!("step `{name}`") };
                self.note(&self.palette.paint(Colour::Red, &format!("{who}: {}", control.content)));
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut lines = Vec::new();
        self.lines.finish(|line| lines.push(line));
        all_out(&lines)
    }

    fn note(&mut self, text: &str) {
        let apart = if self.terminal && self.in_line { "\n" } else { "" };
        self.in_line = false;
        // Marks are beside the matter: a closed stderr is no reason to stop.
        let _ = writeln!(io::stderr().lock(), "{apart}{text}");
    }
}

/// The bytes of one stream and nothing else; what is gone is told beside them.
///
/// # Errors
/// When it can't be read, or not be written.
pub(super) async fn write_stream(mut stream: StreamFollower) -> Result<(), WriteError> {
    while let Some(next) = stream.next().await {
        match next {
            Ok(piece) => out(&piece.bytes)?,
            Err(gone @ StreamExpired::Expired { .. }) => {
                let _ = writeln!(io::stderr().lock(), "note: {gone}");
            }
            Err(StreamExpired::Log(error)) => return Err(WriteError::Failed(with_causes(&error))),
        }
    }
    Ok(())
}

fn all_out(lines: &[LogLine]) -> io::Result<()> {
    lines.iter().try_for_each(|line| out(line.to_json_line().as_bytes()))
}

fn out(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    // Whoever follows sees what is there, whole line or not.
    stdout.flush()
}
