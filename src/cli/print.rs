//! `print!` and `println!` of the command line, in the place of the standard library's, which panic where a reader has
//! gone: `creel image ls | head -1` has done all that it was asked for.

use std::fmt;
use std::io::{self, Write as _};

use crate::exit::Exit;

macro_rules! print {
    ($($text:tt)*) => {
        $crate::cli::print::text(format_args!($($text)*))
    };
}

macro_rules! println {
    () => {
        $crate::cli::print::text(format_args!("\n"))
    };
    ($($line:tt)*) => {
        $crate::cli::print::text(format_args!("{}\n", format_args!($($line)*)))
    };
}

/// Writes to stdout. Where that can't be, there is nothing left to do for a command whose work it is to tell.
pub(super) fn text(text: fmt::Arguments<'_>) {
    match io::stdout().write_fmt(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("creel: failed to write to stdout: {error}");
            std::process::exit(Exit::Broken.code().into());
        }
        _ => {}
    }
}
