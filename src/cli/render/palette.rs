//! Colour, where the reader wants it.

use std::io::{self, IsTerminal as _};

/// Whether and how text is coloured on one stream. `NO_COLOR` (no-color.org) is honoured.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    colour: bool,
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

impl Palette {
    pub fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    pub fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: terminal && !refused }
    }

    /// Whether there is colour.
    pub fn coloured(self) -> bool {
        self.colour
    }

    /// The text in a colour, where there is colour.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}
