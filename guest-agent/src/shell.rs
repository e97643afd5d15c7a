//! The debug shell: a login shell of the workflow user on a terminal, over a connection of its own.
//!
//! The host listens on a vsock port and names it; the agent dials it and serves the shell there, until one of them ends.
//! What the shell shows is read only as fast as the host takes it, and what is typed is taken only as fast as programs
//! read it: neither holds up the other, nor the machine's execs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use creel_proto::agent::{ExecExit, OpenDebugShell, PtyData};
use creel_proto::names::ids;
use creel_proto::{Envelope, FrameCodec, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::connect::{self, Connection, dial};
use crate::exec::environment;
use crate::exit::{not_started, verdict, version_1};
use crate::family::Family;
use crate::guest::Guest;
use crate::log;
use crate::oom::OomKills;
use crate::output::OutputForm;
use crate::reaper::Exited;
use crate::spawn::{Program, spawn_on_terminal};
use crate::terminal::{Terminal, term};
use crate::user::{Accounts, Identity};

/// Upstream's. A terminal gives a page at most at a time.
const CHUNK_BYTES: usize = 32 << 10;

/// Messages that wait for programs to read them.
const TYPED_AHEAD: usize = 32;

/// How long nothing may come of the terminal of a shell that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the host may take to read the end and to close the connection.
const GOODBYE: Duration = Duration::from_secs(5);

/// Between SIGHUP and SIGKILL, when the host has gone.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// signal(7).
const HUP: u32 = 1;

type Reader = FramedRead<connect::Reader, FrameCodec>;
type Writer = FramedWrite<connect::Writer, FrameCodec>;

/// Serves one shell to its end. Where the host can't be dialled there is an answer for its other connection.
pub async fn serve(guest: &Guest, request: OpenDebugShell, form: OutputForm) -> Option<ExecExit> {
    let endpoint = guest.host.at_port(request.vsock_port);
    let Connection { reader, writer } = match dial(&endpoint).await {
        Ok(connection) => connection,
        Err(error) => return Some(not_started(&format!("failed to dial the host at {endpoint:?}: {error}"))),
    };
    let (mut reader, mut writer) =
        (FramedRead::new(reader, FrameCodec), FramedWrite::new(writer, FrameCodec));
    let oom_kills = OomKills::now();
    let exit = match start(guest, &request) {
        Ok((terminal, family)) => {
            let end = converse(&terminal, &family, &mut reader, &mut writer).await;
            // It is of no more use to anybody: what still holds it loses it now.
            drop(terminal);
            match end {
                Some(end) => verdict(end, false, || oom_kills.grew()),
                None => {
                    hang_up(&family).await;
                    return None;
                }
            }
        }
        Err(error) => not_started(&error),
    };
    let exit = match form {
        OutputForm::Raw => exit,
        OutputForm::Text => version_1(exit),
    };
    let goodbye = async {
        // A host that has gone knows what it wants to know.
        let _ = writer.send(Envelope::new(ids::PTY, exit)).await;
        // One that has read it closes the connection. Closed here, under what is typed meanwhile, it might break before
        // the end has been read.
        while let Some(Ok(_)) = reader.next().await {}
    };
    let _ = timeout(GOODBYE, goodbye).await;
    None
}

fn start(guest: &Guest, request: &OpenDebugShell) -> Result<(Terminal, Family), String> {
    let identity =
        Accounts::read().and_then(|accounts| accounts.resolve("")).map_err(|error| error.to_string())?;
    let (terminal, programs) =
        Terminal::open(identity.uid).map_err(|error| format!("failed to open a terminal: {error}"))?;
    terminal.resize(request.rows, request.cols);
    let argv = [identity.shell.clone(), "-l".to_owned()];
    let term = format!("TERM={}", term(&request.term));
    let env = environment(&identity, &[term]).map_err(|error| error.to_string())?;
    let directory = directory(&identity);
    let program = Program {
        argv: &argv,
        env: &env,
        directory: &directory,
        identity: Some(&identity),
        cgroup: guest.cgroups.make(),
    };
    let process = spawn_on_terminal(&guest.reaper, program, programs).map_err(|error| error.to_string())?;
    let family = process.family();
    let left = family.clone();
    tokio::spawn(async move { left.bury().await });
    Ok((terminal, family))
}

/// Where the workflow's files are, if they are.
fn directory(identity: &Identity) -> PathBuf {
    let home = Path::new(&identity.home);
    let repository = home.join("repo");
    if repository.is_dir() { repository } else { home.to_owned() }
}

/// Carries bytes both ways until the shell ends, which is returned, or the host goes.
async fn converse(
    terminal: &Terminal,
    family: &Family,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Option<Exited> {
    let (queue, mut typed) = mpsc::channel(TYPED_AHEAD);
    // Read ahead of the terminal, so that the host's going is seen while programs do not read.
    let receive = async {
        while let Some(Ok(message)) = reader.next().await {
            match message.payload {
                Payload::PtyData(PtyData { data }) => {
                    // The other end is below.
                    let _ = queue.send(data).await;
                }
                Payload::PtyResize(size) => terminal.resize(size.rows, size.cols),
                other => log::warn(format_args!("ignored `{}` on a debug shell's connection", other.name())),
            }
        }
    };
    let type_in = async {
        while let Some(data) = typed.recv().await {
            // A terminal that was closed says so at its other side too.
            let _ = terminal.write(&data).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        end = show(terminal, family, writer) => end,
        () = receive => None,
        never = type_in => match never {},
    }
}

/// Sends what the terminal shows, to its end, and returns the shell's own; `None` when the host has gone.
async fn show(terminal: &Terminal, family: &Family, writer: &mut Writer) -> Option<Exited> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut ended = false;
    loop {
        let length = tokio::select! {
            biased;
            length = terminal.read(&mut chunk) => length,
            _ = family.end(), if !ended => {
                ended = true;
                continue;
            }
            // The kernel has hung up on all that shared the terminal with its session's leader (tty(4)), so there is
            // little left to say.
            () = sleep(LAST_WORDS), if ended => None,
        };
        let Some(length) = length else { break };
        let data = Bytes::copy_from_slice(&chunk[..length]);
        writer.send(Envelope::new(ids::PTY, PtyData { data })).await.ok()?;
    }
    // Nobody holds the terminal any more, and yet the shell may live.
    family.end().await
}

async fn hang_up(family: &Family) {
    family.signal_group(HUP);
    sleep(HANG_UP_GRACE).await;
    family.kill();
}
