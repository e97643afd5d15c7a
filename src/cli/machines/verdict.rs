//! What a command ends with that did something in a machine for its caller.

use crate::cli::render::summary;
use crate::exit::Exit;
use crate::runtime::{Outcome, Verdict};

/// The program's code where it has one; otherwise what became of it is said.
pub(super) fn finish(verdict: &Verdict) -> Exit {
    // Of a machine that was ended on purpose there is nothing to explain.
    if let Some(tail) = verdict.console_tail.as_ref().filter(|_| Exit::from(&verdict.outcome) == Exit::Broken)
    {
        for line in summary::console_block(tail) {
            eprintln!("{line}");
        }
    }
    match verdict.outcome {
        Outcome::Exited { code } if verdict.detail.is_none() => Exit::of_command(code),
        Outcome::Exited { code } => {
            eprintln!("creel: {verdict}");
            Exit::of_command(code)
        }
        Outcome::Signalled { signal } => {
            eprintln!("creel: {verdict}");
            Exit::of_command(signal + 128)
        }
        _ => {
            eprintln!("creel: {verdict}");
            (&verdict.outcome).into()
        }
    }
}
