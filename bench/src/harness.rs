//! Runs rows: one after the other, and within each ours and the peer in turn, so that what else the host does meets both.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::args::Args;
use crate::figures::{median, shown};
use crate::host::Host;
use crate::page;
use crate::programs::{Programs, installed};
use crate::report::{self, Ending, Measured, Runs};
use crate::row::{Failed, Row, Trying as _};
use crate::rows;
use crate::table;
use crate::world::World;

/// What takes longer hangs: the slowest run is a GiB, or 32 machines.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// Does what the command line says. Failure is the exit code of a run in which a row failed; one that did not meet its
/// goal, or had no peer, is a result.
///
/// # Errors
/// When nothing could be measured.
pub fn main(args: &Args) -> Result<ExitCode, Failed> {
    if args.list {
        print!("{}", table::list(rows::all().iter().map(|row| row.about())));
        return Ok(ExitCode::SUCCESS);
    }
    if args.write_docs {
        let (host, measured) = report::read(&args.output)?;
        page::write(&args.docs, &host, &measured)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = chosen(rows::all(), &args.rows)?;
    let programs = Programs::find(args)?;
    // The main thread starts every process: a process that is tied to its parent is tied to that thread (prctl(2)).
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .trying("start a runtime")?;
    let measured = runtime.block_on(interruptible(args, programs, rows))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&measured).trying("write a report")?);
    } else {
        print!("{}", table::render(&measured));
    }
    let failed = measured.iter().any(|row| row.failed.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(rows: Vec<Box<dyn Row>>, names: &[String]) -> Result<Vec<Box<dyn Row>>, Failed> {
    let known: Vec<_> = rows.iter().map(|row| row.about().name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Failed::new(format!("there is no row `{unknown}`; there are {}", known.join(", "))));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    Ok(rows.into_iter().filter(|row| wanted(row.about().name)).collect())
}

/// Whatever ends it, what was started ends with it: all of it belongs to values of these futures.
async fn interruptible(
    args: &Args,
    programs: Programs,
    rows: Vec<Box<dyn Row>>,
) -> Result<Vec<Measured>, Failed> {
    let mut terminate = signal(SignalKind::terminate()).trying("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).trying("listen for signals")?;
    tokio::select! {
        measured = measure_all(args, programs, rows) => measured,
        _ = interrupt.recv() => Err(Failed::new("interrupted; what was started has been ended")),
        _ = terminate.recv() => Err(Failed::new("told to end; what was started has been ended")),
    }
}

async fn measure_all(
    args: &Args,
    programs: Programs,
    rows: Vec<Box<dyn Row>>,
) -> Result<Vec<Measured>, Failed> {
    let runs = args.runs.get();
    let mut host = Host { runs, ..Host::look() };
    host.creel = first_line(&programs.creel, "version");
    host.qemu =
        installed("qemu-system-x86_64", &[]).map(|qemu| first_line(&qemu, "--version")).unwrap_or_default();
    let mut world = World::new(programs, args.quick)?;
    let mut measured = Vec::new();
    for mut row in rows {
        measured.push(measure(&mut *row, &mut world, runs, args.quick).await);
        host.docker = world.docker_version().unwrap_or_default().to_owned();
        host.measured_at = jiff::Timestamp::now().to_string();
        // What is measured is kept, whatever ends the rest.
        report::write(&args.output, &host, &measured)?;
    }
    Ok(measured)
}

fn first_line(program: &std::path::Path, argument: &str) -> String {
    let output = std::process::Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One row, whatever becomes of it.
pub async fn measure(row: &mut dyn Row, world: &mut World, runs: u32, quick: bool) -> Measured {
    let about = row.about();
    eprintln!("{}: {}", about.name, about.ours);
    let (mut figures, mut ending) = (Runs::default(), Ending::default());
    if let Err(why) = take_turns(row, world, runs, &mut figures, &mut ending).await {
        eprintln!("{}: FAILED: {why}", about.name);
        ending.failed = Some(why);
    }
    if let Err(why) = row.clean_up().await {
        eprintln!("{}: failed to clean up: {why}", about.name);
        ending.failed.get_or_insert(why);
    }
    Measured::new(about, figures, ending, quick)
}

async fn take_turns(
    row: &mut dyn Row,
    world: &mut World,
    runs: u32,
    figures: &mut Runs,
    ending: &mut Ending,
) -> Result<(), Failed> {
    let about = row.about();
    bounded("preparing", row.prepare(world)).await?;
    let mut has_peer = about.peer.is_some();
    if has_peer && let Err(why) = bounded("preparing the peer", row.prepare_peer(world)).await {
        eprintln!("{}: peer missing: {why}", about.name);
        ending.peer_missing = Some(why);
        has_peer = false;
    }
    // Caches are filled, programs loaded; what is measured is how it goes on.
    bounded("the first run", row.ours()).await?;
    for run in 0..=runs {
        if run > 0 {
            figures.ours.push(bounded("a run", row.ours()).await?);
        }
        if !has_peer {
            continue;
        }
        match bounded("a run of the peer", row.peer()).await {
            Ok(figure) if run > 0 => figures.peer.push(figure),
            Ok(_) => {}
            // Ours is worth something without it.
            Err(why) => {
                eprintln!("{}: the peer failed: {why}", about.name);
                figures.peer.clear();
                ending.peer_missing = Some(why);
                has_peer = false;
            }
        }
    }
    let side = |figures: &[f64]| median(figures).map_or_else(|| "-".to_owned(), shown);
    eprintln!("{}: {} against {} {}", about.name, side(&figures.ours), side(&figures.peer), about.unit);
    Ok(())
}

async fn bounded<T>(what: &str, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    match timeout(LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(Failed::new(format!("{what} took more than {LIMIT:?}"))),
    }
}

#[cfg(test)]
mod tests;
