//! What a service manager is told (sd_notify(3)). Without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

/// systemd, if `NOTIFY_SOCKET` names it.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// Said last; repeating it would only wake systemd.
    status: String,
}

impl Manager {
    /// Starts or reload are done.
    pub(super) fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.status);
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins, which ends with the next [`Self::ready`]. `Type=notify-reload` needs the time.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "failed to read the monotonic clock"),
        }
    }

    /// One line, shown by `systemctl status`.
    pub(super) fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            send(&[NotifyState::Status(status)]);
        }
    }

    /// The end begins and takes as long as `at_most`, whatever `TimeoutStopSec=` says.
    pub(super) fn stopping(&mut self, status: &str, at_most: Duration) {
        let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        status.clone_into(&mut self.status);
        send(&[NotifyState::Stopping, NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(micros)]);
    }
}

/// Shows systemd that we live, twice as often as it asks for. A task beside all others, on the same threads: where those
/// are stuck, it is too.
pub(super) fn start_watchdog() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())?;
    let mut ticks = tokio::time::interval(limit / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::spawn(async move {
        loop {
            ticks.tick().await;
            send(&[NotifyState::Watchdog]);
        }
    });
    Some(limit)
}

fn send(states: &[NotifyState<'_>]) {
    debug!(?states, "telling the service manager");
    if let Err(error) = sd_notify::notify(states) {
        // It is no reason to end: the manager itself decides what follows from our silence.
        warn!(%error, "failed to tell the service manager");
    }
}
