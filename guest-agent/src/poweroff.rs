//! Powering off a machine that somebody else booted: first as its image would, then by force.

use std::path::Path;
use std::time::Duration;

use rustix::system::RebootCommand;
use tokio::time::sleep;

use crate::log;
use crate::reaper::{Outcome, Reaper};
use crate::spawn::{Program, spawn};

/// In the order tried (upstream's).
const COMMANDS: [&[&str]; 3] =
    [&["/run/current-system/sw/bin/systemctl", "poweroff"], &["/sbin/poweroff"], &["/usr/sbin/poweroff"]];

const COMMAND_LIMIT: Duration = Duration::from_secs(5);

/// How long an init that has accepted the request may take to end everything.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(8);

/// Returns only when even the kernel refuses.
pub async fn by_the_image(reaper: &Reaper) {
    for command in COMMANDS {
        if Path::new(command[0]).exists() && accepted(reaper, command).await {
            sleep(SHUTDOWN_LIMIT).await;
            break;
        }
    }
    rustix::fs::sync();
    if let Err(errno) = rustix::system::reboot(RebootCommand::PowerOff) {
        log::error(format_args!("failed to power off: {errno}"));
    }
}

async fn accepted(reaper: &Reaper, command: &[&str]) -> bool {
    let argv: Vec<String> = command.iter().map(ToString::to_string).collect();
    let program = Program { argv: &argv, env: &[], directory: Path::new("/"), identity: None, cgroup: None };
    match spawn(reaper, program, false) {
        Ok(running) => {
            // Its pipes stay open until it has ended: what it says is of no interest, but may not kill it.
            let (end, _) = running.process.wait(Some(COMMAND_LIMIT)).await;
            end.outcome == Outcome::Code(0)
        }
        Err(error) => {
            log::warn(format_args!("{error}"));
            false
        }
    }
}
