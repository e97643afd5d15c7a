//! Life as PID 1 after the boot, and its end.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::system::RebootCommand;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::boot::{BootError, Booted, boot};
use crate::connect::{Endpoint, EndpointError};
use crate::reaper::Reaper;
use crate::serve::serve;
use crate::service::runtime;
use crate::{log, sys};

/// How long programs may take to end after SIGTERM, and to be gone after SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
const KILL_GRACE: Duration = Duration::from_secs(1);

/// How long volumes may take to be written back.
const SYNC_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum Pid1Error {
    #[error("failed to boot: {0}")]
    Boot(#[from] BootError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("failed to hide this process's memory from others: {0}")]
    HideMemory(#[source] io::Error),
    #[error("failed to start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("failed to watch for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Boots and serves until power off, and powers off. A failure resets the machine.
pub fn run() -> ExitCode {
    // A panicking PID 1 panics the kernel, which resets the machine only if told so.
    std::panic::set_hook(Box::new(|panic| reset(&panic.to_string())));
    match boot_and_serve() {
        Ok(()) => end(RebootCommand::PowerOff),
        Err(error) => reset(&error.to_string()),
    }
    // Only where this was PID 1 of something that is no machine.
    ExitCode::FAILURE
}

fn boot_and_serve() -> Result<(), Pid1Error> {
    let booted = boot()?;
    let endpoint = Endpoint::of_this_machine()?;
    sys::hide_memory().map_err(Pid1Error::HideMemory)?;
    runtime().map_err(Pid1Error::Runtime)?.block_on(async {
        let reaper = Reaper::start().map_err(Pid1Error::Signals)?;
        let told_to_end = told_to_end().map_err(Pid1Error::Signals)?;
        tokio::select! {
            () = serve(&endpoint, &reaper) => {}
            () = told_to_end => {}
        }
        wind_down(&booted, &reaper).await;
        Ok(())
    })
}

/// Waits for a signal that means power off. Ctrl-Alt-Del becomes SIGINT.
fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    // A kernel without a keyboard refuses, and can't be told to by one either.
    let _ = rustix::system::reboot(RebootCommand::CadOff);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut power = signal(SignalKind::from_raw(Signal::POWER.as_raw()))?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = power.recv() => {}
        }
    })
}

/// Ends all programs and leaves the volumes clean. Each step is bounded: the machine goes off in any case.
async fn wind_down(booted: &Booted, reaper: &Reaper) {
    for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, KILL_GRACE)] {
        sys::signal_all_others(signal);
        if timeout(grace, reaper.no_children()).await.is_ok() {
            break;
        }
    }
    let volumes = booted.volumes.clone();
    let detach = spawn_blocking(move || detach(&volumes));
    if timeout(SYNC_LIMIT, detach).await.is_err() {
        log::error(format_args!("volumes could not be written back within {} s", SYNC_LIMIT.as_secs()));
    }
}

fn detach(volumes: &[PathBuf]) {
    rustix::fs::sync();
    for volume in volumes.iter().rev() {
        if rustix::mount::unmount(volume, UnmountFlags::empty()).is_err()
            && let Err(errno) = rustix::mount::mount_remount(volume, MountFlags::RDONLY, "")
        {
            log::warn(format_args!("failed to leave volume `{}` clean: {errno}", volume.display()));
        }
    }
}

fn reset(reason: &str) {
    log::error(format_args!("{reason}; resetting the machine"));
    end(RebootCommand::Restart);
}

fn end(how: RebootCommand) {
    if let Err(errno) = rustix::system::reboot(how) {
        log::error(format_args!("the kernel refused to end the machine: {errno}"));
    }
}
