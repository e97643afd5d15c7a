//! One `ExecStart` from start to `ExecExit`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use creel_proto::agent::{ExecExit, ExecStart};
use tokio::sync::watch;

use crate::oom::OomKills;
use crate::outbox::Outbox;
use crate::output::{OutputEncoder, OutputForm, Stream};
use crate::pump::{Grace, pump};
use crate::reaper::{Exited, Outcome, Reaper};
use crate::spawn::{Program, Running, SpawnError, spawn};
use crate::user::{Accounts, Identity, UserError};

/// Exit codes that don't come from the program (upstream's).
const EXIT_TIMED_OUT: i32 = 124;
const EXIT_NOT_STARTED: i32 = 127;
const EXIT_SIGNAL_BASE: i32 = 128;

const SIGKILL: i32 = 9;

/// A request can be a message long; an error that quotes it has to fit into one as well.
const MAX_ERROR_BYTES: usize = 4096;

/// Where programs are when a request brings no PATH: upstream's guest PATH.
const DEFAULT_PATH: &str = "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:\
                            /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// For a program that ended by itself: what it left behind may still finish a sentence.
const ENDED: Grace = Grace { quiet: Duration::from_secs(1), at_most: Duration::from_secs(5) };

/// For a program that was killed at its deadline: the host waits for the exit.
const KILLED: Grace = Grace { quiet: Duration::from_millis(100), at_most: Duration::from_millis(500) };

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error("an environment entry is not of the form NAME=value")]
    Environment,
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// Runs what `request` asks for and sends its output and its exit under `id`. When the session ends
/// before the program does, the program runs on and its output is dropped.
pub async fn run(reaper: Reaper, id: String, request: ExecStart, form: OutputForm, outbox: Outbox) {
    let oom_kills = OomKills::now();
    let exit = match start(&reaper, &request) {
        Ok(running) => {
            let timeout = match request.timeout_seconds {
                0 => None,
                seconds => Some(Duration::from_secs(seconds.into())),
            };
            let (end, timed_out) = follow(running, timeout, &id, form, &outbox).await;
            verdict(end, timed_out, || oom_kills.grew())
        }
        Err(error) => not_started(&error.to_string()),
    };
    let exit = match form {
        OutputForm::Raw => exit,
        OutputForm::Text => version_1(exit),
    };
    // When the session is over, the exit has nowhere to go.
    let _ = outbox.send(&id, exit).await;
}

fn start(reaper: &Reaper, request: &ExecStart) -> Result<Running, StartError> {
    let identity = Accounts::read()?.resolve(&request.user)?;
    let runtime_directory = format!("/run/user/{}", identity.uid);
    let runtime_directory = Path::new(&runtime_directory).is_dir().then_some(runtime_directory);
    let env = environment(&identity, runtime_directory, &request.env)?;
    let directory = if request.cwd.is_empty() { "/" } else { &request.cwd };
    let program = Program {
        argv: &request.argv,
        env: &env,
        directory: Path::new(directory),
        identity: Some(&identity),
    };
    Ok(spawn(reaper, &program)?)
}

/// The seeds, overridden by the request's own entries, of which the last of a name wins.
fn environment(
    identity: &Identity,
    runtime_directory: Option<String>,
    request: &[String],
) -> Result<Vec<(String, String)>, StartError> {
    let mut env = BTreeMap::from([
        ("USER", identity.name.clone()),
        ("LOGNAME", identity.name.clone()),
        ("HOME", identity.home.clone()),
        ("XDG_CACHE_HOME", format!("{}/.cache", identity.home.trim_end_matches('/'))),
        ("SHELL", identity.shell.clone()),
        ("PATH", DEFAULT_PATH.to_owned()),
    ]);
    env.extend(runtime_directory.map(|directory| ("XDG_RUNTIME_DIR", directory)));
    for entry in request {
        match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() => env.insert(name, value.to_owned()),
            // Not quoted: it may be a secret.
            _ => return Err(StartError::Environment),
        };
    }
    Ok(env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Sends both streams to their ends and waits for the program. The second value: it was killed at its
/// deadline.
async fn follow(
    running: Running,
    timeout: Option<Duration>,
    id: &str,
    form: OutputForm,
    outbox: &Outbox,
) -> (Exited, bool) {
    let Running { process, stdout, stderr } = running;
    let (program, ending) = watch::channel(None);
    let wait = async {
        let (end, timed_out) = process.wait(timeout).await;
        program.send_replace(Some(if timed_out { KILLED } else { ENDED }));
        (end, timed_out)
    };
    let encoder = |stream| OutputEncoder::new(stream, form);
    let (end, (), ()) = tokio::join!(
        wait,
        pump(stdout, encoder(Stream::Stdout), id, outbox, ending.clone()),
        pump(stderr, encoder(Stream::Stderr), id, outbox, ending.clone()),
    );
    end
}

fn verdict(end: Exited, timed_out: bool, oom_kills_grew: impl FnOnce() -> bool) -> ExecExit {
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
    }
}

fn not_started(error: &str) -> ExecExit {
    let fits = |&(start, character): &(usize, char)| start + character.len_utf8() <= MAX_ERROR_BYTES;
    let error = error.char_indices().take_while(fits).map(|(_, character)| character).collect();
    ExecExit { exit_code: EXIT_NOT_STARTED, error, ..ExecExit::default() }
}

/// Without the fields of `creel.output.1`.
fn version_1(exit: ExecExit) -> ExecExit {
    let ExecExit { exit_code, error, timed_out, .. } = exit;
    ExecExit { exit_code, error, timed_out, ..ExecExit::default() }
}

#[cfg(test)]
mod tests {
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
