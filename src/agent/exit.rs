//! Reads what the agent says of an exec's end.
//!
//! The agent is in the hostile guest: whatever it claims can only colour the verdict of its own
//! workflow, so it is believed within the words that a step can end in.

use std::time::Duration;

use creel_proto::agent::ExecExit;

use crate::runtime::{OutOfMemory, Outcome, Usage};
use crate::text::one_line;

/// The agent's own words are for people, and a guest may write a novel.
pub const MAX_DETAIL_CHARS: usize = 300;

/// What version-1 agents say when SIGKILL came from the guest kernel's OOM killer.
const VERSION_1_OOM_ERROR: &str = "guest process killed by guest kernel OOM";

/// How a piece of work ended, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecEnd {
    pub outcome: Outcome,
    /// What the agent said beside the code; shown, never interpreted further.
    pub detail: Option<String>,
    pub usage: Usage,
}

impl ExecEnd {
    /// Reads an exit; `extended` when `creel.output.1` is in use.
    pub fn read(
        exit: ExecExit,
        extended: bool,
        wall: Duration,
        stdout_bytes: u64,
        stderr_bytes: u64,
    ) -> Self {
        let signal = i32::try_from(exit.signal).unwrap_or(0);
        let out_of_memory = if extended { exit.out_of_memory } else { exit.error == VERSION_1_OOM_ERROR };
        let outcome = if exit.timed_out {
            Outcome::TimedOut
        } else if out_of_memory {
            Outcome::OutOfMemory { scope: OutOfMemory::GuestProcess }
        } else if extended && signal != 0 {
            Outcome::Signalled { signal }
        } else {
            Outcome::Exited { code: exit.exit_code }
        };
        Self {
            outcome,
            // What a verdict of its own says need not be said again.
            detail: Some(one_line(&exit.error, MAX_DETAIL_CHARS))
                .filter(|detail| !detail.is_empty() && !out_of_memory && !exit.timed_out),
            usage: Usage {
                wall,
                cpu: extended.then(|| Duration::from_micros(exit.cpu_time_us)),
                peak_memory_kib: extended.then_some(exit.max_rss_kib),
                stdout_bytes,
                stderr_bytes,
                machine: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(exit: ExecExit, extended: bool) -> Outcome {
        ExecEnd::read(exit, extended, Duration::ZERO, 0, 0).outcome
    }

    #[test]
    fn a_code_above_128_is_a_code_unless_a_signal_is_named() {
        let exit = ExecExit { exit_code: 137, ..Default::default() };
        assert_eq!(outcome(exit.clone(), true), Outcome::Exited { code: 137 });
        assert_eq!(outcome(exit, false), Outcome::Exited { code: 137 });
        let killed = ExecExit { exit_code: 137, signal: 9, ..Default::default() };
        assert_eq!(outcome(killed, true), Outcome::Signalled { signal: 9 });
    }

    #[test]
    fn out_of_memory_is_told_by_field_or_by_version_1_s_words() {
        let oom = Outcome::OutOfMemory { scope: OutOfMemory::GuestProcess };
        let field = ExecExit { exit_code: 137, signal: 9, out_of_memory: true, ..Default::default() };
        assert_eq!(outcome(field, true), oom);
        let words = ExecExit { exit_code: 137, error: VERSION_1_OOM_ERROR.into(), ..Default::default() };
        assert_eq!(outcome(words, false), oom);
    }

    #[test]
    fn a_timeout_wins_over_its_own_sigkill() {
        let exit = ExecExit { exit_code: 124, signal: 9, timed_out: true, ..Default::default() };
        assert_eq!(outcome(exit, true), Outcome::TimedOut);
    }
}
