//! From a request to a program that runs.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use creel_proto::agent::{ExecStart, ExecTerminal};

use super::feed::Sink;
use super::pump::Source;
use crate::files::FilesError;
use crate::guest::Guest;
use crate::output::Stream;
use crate::spawn::{Process, Program, SpawnError, spawn, spawn_on_terminal};
use crate::terminal::{Terminal, term};
use crate::user::{Accounts, Identity, UserError};

/// Where programs are when a request brings no PATH: upstream's guest PATH.
const DEFAULT_PATH: &str = "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:\
                            /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Environment(#[from] InvalidEntry),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("failed to open a terminal: {0}")]
    Terminal(#[source] io::Error),
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// A program and the ends of its streams.
#[derive(Debug)]
pub(super) struct Started {
    pub process: Process,
    pub input: Option<Sink>,
    pub output: Vec<(Stream, Source)>,
    pub terminal: Option<Arc<Terminal>>,
}

/// Starts what `request` asks for. Must be called on the runtime's thread.
pub(super) fn start(guest: &Guest, request: &ExecStart) -> Result<Started, StartError> {
    let identity = Accounts::read()?.resolve(&request.user)?;
    let argv = match &request.files {
        // This agent's own program, as the same user and with the same streams.
        Some(files) => &crate::files::program(files)?,
        None => &request.argv,
    };
    let env = environment(&identity, &entries(request))?;
    let directory = if request.cwd.is_empty() { "/" } else { &request.cwd };
    let program = Program {
        argv,
        env: &env,
        directory: Path::new(directory),
        identity: Some(&identity),
        cgroup: guest.cgroups.make(),
    };
    match &request.terminal {
        Some(size) => start_on_terminal(guest, program, &identity, size),
        None => {
            let running = spawn(&guest.reaper, program, request.input)?;
            Ok(Started {
                process: running.process,
                input: running.stdin.map(Sink::Pipe),
                output: vec![
                    (Stream::Stdout, Source::Pipe(running.stdout)),
                    (Stream::Stderr, Source::Pipe(running.stderr)),
                ],
                terminal: None,
            })
        }
    }
}

fn start_on_terminal(
    guest: &Guest,
    program: Program<'_>,
    identity: &Identity,
    size: &ExecTerminal,
) -> Result<Started, StartError> {
    let (terminal, programs) = Terminal::open(identity.uid).map_err(StartError::Terminal)?;
    terminal.resize(size.rows, size.cols);
    let process = spawn_on_terminal(&guest.reaper, program, programs)?;
    let terminal = Arc::new(terminal);
    Ok(Started {
        process,
        input: Some(Sink::Terminal(Arc::clone(&terminal))),
        output: vec![(Stream::Stdout, Source::Terminal(Arc::clone(&terminal)))],
        terminal: Some(terminal),
    })
}

/// The request's own, and what its terminal is called.
fn entries(request: &ExecStart) -> Vec<String> {
    let mut entries = request.env.clone();
    if let Some(terminal) = &request.terminal {
        let entry = format!("TERM={}", term(&terminal.term));
        // One that the request does not name is only a guess.
        let place = if terminal.term.is_empty() { 0 } else { entries.len() };
        entries.insert(place, entry);
    }
    entries
}

/// What is wrong with an environment. The entry is not quoted: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an environment entry is not of the form NAME=value")]
pub struct InvalidEntry;

/// The seeds, overridden by the request's own entries, of which the last of a name wins.
pub fn environment(identity: &Identity, request: &[String]) -> Result<Vec<(String, String)>, InvalidEntry> {
    let runtime_directory = format!("/run/user/{}", identity.uid);
    let runtime_directory = Path::new(&runtime_directory).is_dir().then_some(runtime_directory);
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
            _ => return Err(InvalidEntry),
        };
    }
    Ok(env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
