//! Owns stdout and stderr while workflows run side by side.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Output as it is, plain lines about it.
    Text,
    /// One JSON object a line on stdout.
    Json,
}

/// The process's output streams.
pub struct Screen {
    style: Style,
    colour: bool,
    progress: MultiProgress,
    stdout: Mutex<Stdout>,
}

struct Stdout {
    writer: Box<dyn Write + Send>,
    /// Whether the cursor of a terminal stands behind unfinished output.
    in_line: bool,
    /// stdout and stderr are the same terminal, most likely.
    shared_terminal: bool,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("style", &self.style).finish_non_exhaustive()
    }
}

impl Screen {
    /// This process's stdout and stderr. Progress and colour only on a terminal; `NO_COLOR`
    /// (no-color.org) is honoured.
    pub fn new(style: Style) -> Self {
        let terminal = io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let stdout = Stdout {
            writer: Box::new(io::stdout()),
            in_line: false,
            shared_terminal: terminal && io::stdout().is_terminal(),
        };
        Self { style, colour, progress: MultiProgress::with_draw_target(target), stdout: Mutex::new(stdout) }
    }

    pub fn style(&self) -> Style {
        self.style
    }

    /// A line about the run, on stderr.
    pub fn note(&self, line: &str) {
        self.progress.suspend(|| {
            let mut stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
            if stdout.shared_terminal && stdout.in_line {
                let _ = stdout.writer.write_all(b"\n").and_then(|()| stdout.writer.flush());
                stdout.in_line = false;
            }
            // A closed stderr is no reason to stop a workflow.
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    /// Bytes of a step, on stdout.
    ///
    /// # Errors
    /// When stdout can't be written: nobody sees the output any more.
    pub fn output(&self, bytes: &[u8]) -> io::Result<()> {
        self.progress.suspend(|| {
            let mut stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
            stdout.writer.write_all(bytes)?;
            stdout.writer.flush()?;
            stdout.in_line = bytes.last().is_some_and(|byte| *byte != b'\n');
            Ok(())
        })
    }

    /// A spinner with a text, on a terminal; nothing elsewhere.
    pub fn spinner(&self, text: String) -> ProgressBar {
        let spinner = self.progress.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.set_message(text);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    /// The text in a colour of the terminal, where there is colour.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}

/// SGR parameters (ECMA-48, section 8.3.117).
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Colour {
    Bold = 1,
    Red = 31,
    Green = 32,
    Yellow = 33,
}
