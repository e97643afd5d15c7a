//! Dials the host, and dials again whenever the session is over.

use std::fs;
use std::time::{Duration, Instant};

use creel_proto::agent::Hello;
use creel_proto::names::{PROTOCOL_VERSION, extensions};
use tokio::time::sleep;

use crate::connect::{Endpoint, dial};
use crate::guest::Guest;
use crate::reaper::Reaper;
use crate::session::{self, SessionEnd};
use crate::{VERSION, log, nix};

/// What this agent can speak.
const EXTENSIONS: [&str; 7] = [
    extensions::OUTPUT_1,
    extensions::SOURCE_1,
    extensions::SIGNAL_1,
    extensions::EXEC_2,
    extensions::RESUME_1,
    extensions::HEARTBEAT_1,
    extensions::FILES_1,
];

/// Between attempts at first: the host may be a moment behind a machine that boots fast, and waits seconds only for one that
/// has lost its connection.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Between attempts later.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// A session that was shorter is followed by a pause too: a host that hangs up at once must not keep the guest busy.
const SHORT_SESSION: Duration = Duration::from_secs(1);

/// Serves the host until it asks for power off. That is then still to be done.
pub async fn serve(endpoint: &Endpoint, reaper: &Reaper) {
    let hello = hello(reaper).await;
    let guest = Guest::new(reaper.clone(), endpoint.clone());
    let mut pause = FIRST_PAUSE;
    let mut complained = false;
    loop {
        match dial(endpoint).await {
            Ok(connection) => {
                complained = false;
                let since = Instant::now();
                let (end, greeted) = session::run(connection, hello.clone(), &guest).await;
                match end {
                    Ok(SessionEnd::PowerOff) => return,
                    Ok(SessionEnd::Closed) => log::warn(format_args!("the host closed the session")),
                    Err(error) => log::warn(format_args!("the session ended: {error}")),
                }
                if greeted {
                    pause = FIRST_PAUSE;
                    if since.elapsed() >= SHORT_SESSION {
                        continue;
                    }
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
        pause = LAST_PAUSE.min(pause * 2);
    }
}

async fn hello(reaper: &Reaper) -> Hello {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: VERSION.to_owned(),
        boot_id: boot_id.trim().to_owned(),
        nix_version: nix::version(reaper).await.unwrap_or_default(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}
