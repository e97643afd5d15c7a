//! `creel cp` from its arguments to its exit code.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use creel_tree::{Destination, DestinationError, Source};
use indicatif::BinaryBytes;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::call::{Call, Served};
use super::fetch::{self, fetch};
use super::place::{Route, Side};
use super::send::{self, send};
use super::told::Told;
use crate::cli::args::CpArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::machines::connect::find;
use crate::cli::signals::cancel_on_signals;
use crate::engine::WORKFLOW_USER;
use crate::exit::Exit;
use crate::runtime::{Outcome, Verdict, Work};

/// How the agent's own program ends: something was left out (`creel.files.1`).
const LEFT_OUT: i32 = 1;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub archive_bytes: u64,
    /// Where this side has seen the files, and all of them.
    pub tally: Option<Tally>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
}

/// Whether the machine has done its part to the end.
pub(super) fn is_whole(verdict: &Verdict) -> bool {
    matches!(verdict.outcome, Outcome::Exited { code: 0 | LEFT_OUT })
}

pub(in crate::cli) async fn cp(context: &Context, arguments: CpArgs) -> Result<Exit, Failure> {
    let cancel = CancellationToken::new();
    cancel_on_signals(cancel.clone())?;
    let route = Route::parse(&arguments.source, &arguments.destination, arguments.follow_link)?;
    let json = arguments.json.json;
    let (machine, job) = prepare(route, arguments.user, arguments.follow_link, json)?;
    let client = tokio::select! {
        client = find(context, &arguments.socket, &machine) => client?,
        () = cancel.cancelled() => return Err(Failure::new(Exit::Cancelled, "cancelled; nothing was copied")),
    };
    let began = Instant::now();
    let told = Arc::new(Told::new(machine.as_str()));
    let place = arguments.destination.to_string_lossy().into_owned();
    let copied = job.run(&Served { client, machine }, &told, &cancel).await;
    told.end();
    let (verdict, copied) = copied?;
    let exit = judge(&verdict, copied, &told, &cancel, &place)?;
    if json {
        let tally = copied.tally;
        println!(
            "{:#}",
            json!({
                "source": arguments.source.to_string_lossy(),
                "destination": place,
                "archive_bytes": copied.archive_bytes,
                "files": tally.map(|tally| tally.files),
                "directories": tally.map(|tally| tally.directories),
                "bytes": tally.map(|tally| tally.bytes),
                "complaints": told.complaints(),
                "seconds": began.elapsed().as_secs_f64(),
            })
        );
    } else if io::stderr().is_terminal() {
        eprintln!("{}", summary(copied, began.elapsed()));
    }
    Ok(exit)
}

fn summary(copied: Copied, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match copied.tally {
        Some(Tally { files, bytes, .. }) => {
            let s = if files == 1 { "" } else { "s" };
            format!("copied {files} file{s}, {} in {seconds:.1}s", BinaryBytes(bytes))
        }
        None => format!("copied an archive of {} in {seconds:.1}s", BinaryBytes(copied.archive_bytes)),
    }
}

/// A copy of which this side is ready.
#[derive(Debug)]
pub(super) enum Job {
    Fetch(Work, fetch::Into),
    Send(Work, send::From),
}

impl Job {
    pub(super) async fn run(
        self,
        call: &impl Call,
        told: &Arc<Told>,
        cancel: &CancellationToken,
    ) -> Result<(Verdict, Copied), Failure> {
        match self {
            Self::Fetch(work, into) => fetch(call, work, into, told, cancel).await,
            Self::Send(work, from) => send(call, work, from, told, cancel).await,
        }
    }
}

/// Opens what is here, before anybody is asked for the rest.
pub(super) fn prepare(
    route: Route,
    user: Option<String>,
    follow_link: bool,
    json: bool,
) -> Result<(crate::runtime::MachineId, Job), Failure> {
    let user = user.unwrap_or_else(|| WORKFLOW_USER.to_owned());
    Ok(match route {
        Route::Fetch { machine, path, into } => {
            let into = match into {
                Side::Here(here) => {
                    let into = destination(&here)?;
                    // The machine may be hostile: it does not choose what is written here.
                    fetch::Into::Tree(match top_of(&path) {
                        Some(name) => into.with_only_top(name),
                        None => into,
                    })
                }
                Side::Archive if json => {
                    return Err(Failure::usage(
                        "--json and the archive can't both go to stdout; leave --json off",
                    ));
                }
                Side::Archive if io::stdout().is_terminal() => {
                    return Err(Failure::usage(
                        "an archive is nothing for a terminal; send stdout to a file or a pipe",
                    ));
                }
                Side::Archive => fetch::Into::Stdout,
            };
            (machine, Job::Fetch(Work::ReadFiles { path, user }, into))
        }
        Route::Send { from, machine, path } => {
            let (from, directory) = match from {
                Side::Here(path) => {
                    let source = Source::open(&path, follow_link);
                    (send::From::Tree(source.map_err(|error| Failure::usage(error.to_string()))?), false)
                }
                Side::Archive if io::stdin().is_terminal() => {
                    return Err(Failure::usage(
                        "there is no archive on stdin, which is a terminal; pipe one in, such as `tar c .`",
                    ));
                }
                // It may have any number of top entries, so they go into a directory.
                Side::Archive => (send::From::Stdin, true),
            };
            (machine, Job::Send(Work::WriteFiles { destination: path, directory, user }, from))
        }
    })
}

/// What the archive of a machine's path has to have at its top; `None` where the path ends in no name.
fn top_of(path: &str) -> Option<&OsStr> {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    (!matches!(last, "" | "." | "..")).then(|| OsStr::new(last))
}

fn destination(path: &Path) -> Result<Destination, Failure> {
    Destination::resolve(path).map_err(|error| match error {
        DestinationError::Open { .. } => Failure::host(error),
        error => Failure::usage(error.to_string()),
    })
}

/// What the command ends with, of a copy that has ended.
pub(super) fn judge(
    verdict: &Verdict,
    copied: Copied,
    told: &Told,
    cancel: &CancellationToken,
    place: &str,
) -> Result<Exit, Failure> {
    let bytes = BinaryBytes(copied.archive_bytes);
    let left = format!(
        "what was copied until then ({bytes} of archive) is left at `{place}`, but not the file that was under way"
    );
    match verdict.outcome {
        Outcome::Exited { code: 0 } if told.complaints() == 0 => Ok(Exit::Success),
        Outcome::Exited { code: 0 | LEFT_OUT } if verdict.detail.is_none() => {
            eprintln!("creel: not all was copied; see above");
            Ok(Exit::Failed)
        }
        // Its complaints were shown.
        Outcome::Exited { .. } if verdict.detail.is_none() && told.complaints() > 0 => {
            Err(Failure::new(Exit::Failed, format!("the copy has failed; {left}")))
        }
        Outcome::Exited { .. } => Err(Failure::new(Exit::Failed, format!("the copy has failed: {verdict}"))),
        Outcome::Cancelled if cancel.is_cancelled() => {
            Err(Failure::new(Exit::Cancelled, format!("cancelled; {left}")))
        }
        _ => Err(Failure::new((&verdict.outcome).into(), format!("{verdict}; {left}"))),
    }
}
