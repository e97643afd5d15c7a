//! How a program's end is told to the host. Pure.

use creel_proto::agent::ExecExit;

use crate::reaper::{Exited, Outcome};

/// Exit codes that don't come from the program (upstream's).
const EXIT_TIMED_OUT: i32 = 124;
const EXIT_NOT_STARTED: i32 = 127;
const EXIT_SIGNAL_BASE: i32 = 128;

const SIGKILL: i32 = 9;

/// A request can be a message long; an error that quotes it has to fit into one as well.
const MAX_ERROR_BYTES: usize = 4096;

/// The end of a program that ran.
pub fn verdict(end: Exited, timed_out: bool, oom_kills_grew: impl FnOnce() -> bool) -> ExecExit {
    let (exit_code, signal) = match end.outcome {
        Outcome::Code(code) => (code, 0),
        Outcome::Signal(signal) => (EXIT_SIGNAL_BASE + signal, signal),
    };
    // A shell reports its killed child as a code.
    let out_of_memory = !timed_out && exit_code == EXIT_SIGNAL_BASE + SIGKILL && oom_kills_grew();
    let (exit_code, error) = match (timed_out, out_of_memory) {
        (true, _) => (EXIT_TIMED_OUT, "command timed out"),
        (false, true) => (exit_code, "guest process killed by guest kernel OOM"),
        (false, false) => (exit_code, ""),
    };
    ExecExit {
        exit_code,
        error: error.to_owned(),
        timed_out,
        signal: signal.unsigned_abs(),
        out_of_memory,
        cpu_time_us: u64::try_from(end.cpu_time.as_micros()).unwrap_or(u64::MAX),
        max_rss_kib: end.max_rss_kib,
        ..ExecExit::default()
    }
}

/// The end of one that did not.
pub fn not_started(error: &str) -> ExecExit {
    let fits = |&(start, character): &(usize, char)| start + character.len_utf8() <= MAX_ERROR_BYTES;
    let error = error.char_indices().take_while(fits).map(|(_, character)| character).collect();
    ExecExit { exit_code: EXIT_NOT_STARTED, error, ..ExecExit::default() }
}

/// Without the fields of `creel.output.1`.
pub fn version_1(exit: ExecExit) -> ExecExit {
    let ExecExit { exit_code, error, timed_out, .. } = exit;
    ExecExit { exit_code, error, timed_out, ..ExecExit::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn end(outcome: Outcome) -> Exited {
        Exited { outcome, cpu_time: Duration::from_micros(1500), max_rss_kib: 77 }
    }

    #[test]
    fn a_code_is_passed_on_with_what_was_used() {
        let exit = verdict(end(Outcome::Code(3)), false, || false);
        let used = ExecExit { exit_code: 3, cpu_time_us: 1500, max_rss_kib: 77, ..Default::default() };
        assert_eq!(exit, used);
    }

    #[test]
    fn a_signal_is_128_and_more_and_told_apart_from_such_a_code() {
        let killed = verdict(end(Outcome::Signal(15)), false, || true);
        assert_eq!((killed.exit_code, killed.signal, killed.out_of_memory), (143, 15, false));
        let exited = verdict(end(Outcome::Code(143)), false, || true);
        assert_eq!((exited.exit_code, exited.signal), (143, 0));
    }

    #[test]
    fn a_kill_is_out_of_memory_only_when_the_kernel_counted_one() {
        for outcome in [Outcome::Signal(9), Outcome::Code(137)] {
            let killed = verdict(end(outcome), false, || true);
            assert!(killed.out_of_memory);
            assert_eq!(killed.exit_code, 137);
            assert_eq!(killed.error, "guest process killed by guest kernel OOM");
            let killed = verdict(end(outcome), false, || false);
            assert!(!killed.out_of_memory);
            assert_eq!(killed.error, "");
        }
    }

    #[test]
    fn a_deadline_goes_before_everything_else() {
        let exit = verdict(end(Outcome::Signal(9)), true, || true);
        assert_eq!((exit.exit_code, exit.timed_out, exit.out_of_memory), (124, true, false));
        assert_eq!(exit.error, "command timed out");
    }

    #[test]
    fn a_version_1_host_sees_version_1_fields_only() {
        let exit = version_1(verdict(end(Outcome::Signal(9)), false, || true));
        let plain = ExecExit { exit_code: 137, error: exit.error.clone(), ..Default::default() };
        assert_eq!(exit, plain);
        assert!(exit.error.contains("OOM"));
    }

    #[test]
    fn errors_are_cut_to_fit_a_message() {
        let exit = not_started(&"ä".repeat(MAX_ERROR_BYTES));
        assert_eq!(exit.exit_code, 127);
        assert!(exit.error.len() <= MAX_ERROR_BYTES && exit.error.ends_with('ä'));
    }
}
