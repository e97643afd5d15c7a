//! A terminal that passes every key on, for as long as a value lives.
//!
//! It is given back on every way out that runs destructors: a return, a panic. Signals are taken by the caller and end in a
//! return.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::runtime::TerminalSize;

/// This process's terminal, in raw mode.
#[derive(Debug)]
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` where stdin is no terminal.
    ///
    /// # Errors
    /// Those of tcsetattr(3).
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        let entered = Self { before };
        // Not Flush: what was typed ahead is typed.
        tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(entered))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Now and not Drain: a terminal whose output is stopped must not hold this up.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Of the terminal that is looked at, if there is one that knows its size.
pub(super) fn terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// The longest name that creeld takes.
const MAX_TERM_BYTES: usize = 64;

/// What kind of terminal this is; empty where that is not known, or can't be said.
pub(super) fn terminal_name() -> String {
    let term = std::env::var("TERM").unwrap_or_default();
    let sane = term.len() <= MAX_TERM_BYTES && !term.contains(|c: char| c.is_control());
    if sane { term } else { String::new() }
}
