//! Dials the host, and dials again whenever the session is over.

use std::fs;
use std::time::Duration;

use creel_proto::agent::Hello;
use creel_proto::names::{PROTOCOL_VERSION, extensions};
use tokio::time::sleep;

use crate::connect::{Endpoint, dial};
use crate::reaper::Reaper;
use crate::session::{self, SessionEnd};
use crate::{VERSION, log, nix};

/// Between attempts at first: the host may be a moment behind a machine that boots fast.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Between attempts later, and after each session (upstream's).
const PAUSE: Duration = Duration::from_secs(1);

/// Serves the host until it asks for power off. That is then still to be done.
pub async fn serve(endpoint: &Endpoint, reaper: &Reaper) {
    let hello = hello(reaper).await;
    let mut pause = FIRST_PAUSE;
    let mut complained = false;
    loop {
        match dial(endpoint).await {
            Ok(connection) => {
                complained = false;
                pause = PAUSE;
                match session::run(connection, hello.clone(), reaper).await {
                    Ok(SessionEnd::PowerOff) => return,
                    Ok(SessionEnd::Closed) => log::warn(format_args!("the host closed the session")),
                    Err(error) => log::warn(format_args!("the session ended: {error}")),
                }
            }
            Err(error) if !complained => {
                complained = true;
                log::warn(format_args!(
                    "failed to dial the host at {endpoint:?}, will go on trying: {error}"
                ));
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = PAUSE.min(pause * 2);
    }
}

async fn hello(reaper: &Reaper) -> Hello {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: VERSION.to_owned(),
        boot_id: boot_id.trim().to_owned(),
        nix_version: nix::version(reaper).await.unwrap_or_default(),
        extensions: vec![extensions::OUTPUT_1.to_owned(), extensions::SOURCE_1.to_owned()],
    }
}
