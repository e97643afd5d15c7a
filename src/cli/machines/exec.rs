//! `creel exec`: a program in a machine, with its output here and its exit code as ours; with -i it reads our stdin, with -t
//! it has a terminal.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::connect::{api_failure, find, machine_id};
use super::raw::{Raw, terminal_name, terminal_size};
use super::stdio::{feed, show};
use super::verdict::finish;
use crate::api::{ApiError, Client, NewExec};
use crate::cli::args::ExecArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::run::pairs;
use crate::cli::signals::cancel_on_signals;
use crate::engine::WORKFLOW_USER;
use crate::exit::Exit;
use crate::runtime::streams::{input, output};
use crate::runtime::{ExecStreams, InputWriter, MachineId, Terminal, Verdict, Work};

/// The directory that images mount for work.
const DEFAULT_CWD: &str = "/workspace";

/// That of a program whose reader has gone (signal(7), SIGPIPE).
const BROKEN_PIPE: i32 = 128 + 13;

pub(in crate::cli) async fn exec(context: &Context, arguments: ExecArgs) -> Result<Exit, Failure> {
    let cancel = CancellationToken::new();
    cancel_on_signals(cancel.clone())?;
    let machine = machine_id(&arguments.id)?;
    let terminal = terminal(arguments.tty, io::stdin().is_terminal())?;
    let (interactive, with_terminal) = (arguments.interactive, terminal.is_some());
    let work = Work::Program {
        argv: arguments.command,
        env: pairs("--env", &arguments.env)?,
        cwd: arguments.cwd.unwrap_or_else(|| DEFAULT_CWD.to_owned()),
        user: arguments.user.unwrap_or_else(|| WORKFLOW_USER.to_owned()),
        terminal,
    };
    let exec = NewExec { id: exec_id(arguments.exec_id)?, work, timeout: arguments.timeout.map(Into::into) };
    let client = tokio::select! {
        client = find(context, &arguments.socket, &machine) => client?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    // Keys are the program's from here on, Ctrl-C among them.
    let raw = if interactive && with_terminal { Raw::enter().map_err(Failure::internal)? } else { None };
    let passing = Passing { interactive, with_terminal };
    let ended = passing.run(&client, &machine, exec, &cancel).await;
    drop(raw);
    match ended? {
        Ended::Verdict(_) if cancel.is_cancelled() => Err(cancelled()),
        Ended::Verdict(verdict) => Ok(finish(&verdict)),
        Ended::NobodyReads => Ok(Exit::of_command(BROKEN_PIPE)),
    }
}

fn cancelled() -> Failure {
    Failure::new(Exit::Cancelled, "cancelled")
}

/// # Errors
/// When one is wanted, and there is none here that it could be like.
fn terminal(wanted: bool, stdin_is_terminal: bool) -> Result<Option<Terminal>, Failure> {
    if !wanted {
        return Ok(None);
    }
    if !stdin_is_terminal {
        return Err(Failure::usage(
            "-t needs a terminal, and stdin is none; leave it out, -i alone passes stdin on as it is",
        ));
    }
    Ok(Some(Terminal { term: terminal_name(), size: terminal_size().unwrap_or_default() }))
}

/// As named; else one is made where it is told (-v), and otherwise it is creeld's, since a machine remembers only so many
/// that others chose.
fn exec_id(named: Option<String>) -> Result<Option<String>, Failure> {
    if named.is_some() || !tracing::enabled!(tracing::Level::INFO) {
        return Ok(named);
    }
    let id = MachineId::random().map_err(Failure::internal)?.to_string();
    tracing::info!(exec = %id, "the program's name for `creel kill --exec`");
    Ok(Some(id))
}

/// What goes between the program and this process, beside its output.
struct Passing {
    interactive: bool,
    with_terminal: bool,
}

enum Ended {
    Verdict(Box<Verdict>),
    /// `creel exec … | head`.
    NobodyReads,
}

impl Passing {
    /// Output goes out as it comes. A reader that does not read holds up this program, and no other.
    async fn run(
        &self,
        client: &Client,
        machine: &MachineId,
        exec: NewExec,
        cancel: &CancellationToken,
    ) -> Result<Ended, Failure> {
        let (output, reader) = output();
        let (writer, reading) = if self.interactive || self.with_terminal {
            let (writer, reading) = input();
            if !self.interactive {
                // For its sizes.
                writer.end();
            }
            (Some(writer), Some(reading))
        } else {
            (None, None)
        };
        // Cancelled also by what goes wrong here.
        let stop = cancel.child_token();
        let streams = ExecStreams { input: reading, output };
        let mut run = std::pin::pin!(client.run(machine, exec, streams, &stop));
        let mut show = std::pin::pin!(show(reader, io::stdout(), io::stderr()));
        let mut feed = std::pin::pin!(self.feed(writer.as_ref()));
        let mut resize = std::pin::pin!(self.resize(writer.as_ref()));
        let (mut verdict, mut shown): (Option<Result<Verdict, ApiError>>, bool) = (None, false);
        loop {
            match verdict {
                // What is not shown by now may never be: its reader may have stopped.
                Some(ended) if shown || cancel.is_cancelled() => {
                    let ended = ended.map_err(|error| api_failure(&error))?;
                    return Ok(Ended::Verdict(Box::new(ended)));
                }
                _ => {}
            }
            let failed = tokio::select! {
                ended = &mut run, if verdict.is_none() => {
                    verdict = Some(ended);
                    continue;
                }
                () = cancel.cancelled(), if verdict.is_some() => continue,
                result = &mut show, if !shown => match result {
                    Ok(()) => {
                        shown = true;
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
                    Err(error) => Some(format!("failed to write the program's output: {error}")),
                },
                Err(error) = &mut feed => Some(format!("failed to read stdin: {error}")),
                Err(error) = &mut resize => Some(error.to_string()),
            };
            stop.cancel();
            if verdict.is_none() {
                // Bounded, once it is cancelled.
                let _ = run.await;
            }
            return match failed {
                None => Ok(Ended::NobodyReads),
                Some(text) => Err(Failure::new(Exit::Broken, text)),
            };
        }
    }

    /// Ends with a failure only.
    async fn feed(&self, input: Option<&InputWriter>) -> io::Result<()> {
        if let Some(input) = input.filter(|_| self.interactive) {
            feed(io::stdin(), input).await?;
        }
        std::future::pending().await
    }

    /// Ends with a failure only.
    async fn resize(&self, input: Option<&InputWriter>) -> io::Result<()> {
        if let Some(input) = input.filter(|_| self.with_terminal) {
            let mut resized = signal(SignalKind::window_change())?;
            while resized.recv().await.is_some() {
                if let Some(size) = terminal_size() {
                    input.resize(size);
                }
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_made_only_like_one_that_is_here() {
        assert_eq!(terminal(false, false).unwrap(), None);
        let refused = terminal(true, false).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.to_string().contains("-i alone"), "{refused}");
        assert!(terminal(true, true).unwrap().is_some());
    }
}
