//! creeld while it serves, and how it ends: what it does on each signal, and what it says of itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::failure::Failure;
use super::life::Origin;
use super::logging::{self, Log};
use super::manager::{Manager, start_watchdog};
use super::runtime::DaemonRuntime;
use super::service::Service;
use super::signals::{Asked, Signals};
use super::status::Status;
use crate::config::{Config, Places};

/// What draining may take beside the guests' own shutdown: processes to kill, leases to free.
const DRAIN_MARGIN: Duration = Duration::from_secs(20);

/// The one that decides. The service works in a task of its own.
pub(super) struct Daemon {
    origin: Origin,
    /// The one in force.
    config: Config,
    /// `None` where this process has no log of its own.
    log: Option<Log>,
    runtime: Arc<DaemonRuntime>,
    service: Arc<dyn Service>,
    manager: Manager,
    /// How many mistakes the last one had that was not taken.
    bad_config: Option<usize>,
}

type Serving = JoinHandle<io::Result<()>>;

impl Daemon {
    pub(super) fn new(
        origin: Origin,
        config: Config,
        log: Option<Log>,
        runtime: Arc<DaemonRuntime>,
        service: Arc<dyn Service>,
    ) -> Self {
        Self { origin, config, log, runtime, service, manager: Manager::default(), bad_config: None }
    }

    /// Until a signal or the service itself ends it. `serving` is the service's task, which `stop` asks to end.
    ///
    /// # Errors
    /// When the service ends unasked, or does not end when asked.
    pub(super) async fn serve(
        mut self,
        mut serving: Serving,
        stop: CancellationToken,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let (mut counts, mut readiness) = (self.service.counts(), self.runtime.readiness());
        self.manager.ready(&self.status(false).line());
        if let Some(limit) = start_watchdog() {
            info!(?limit, "the service manager watches for signs of life");
        }
        info!("creeld is ready");
        loop {
            tokio::select! {
                ended = &mut serving => {
                    // Not asked for: even a clean end is none.
                    joined(ended)?;
                    return Err(Failure::Serve(io::ErrorKind::UnexpectedEof.into()));
                }
                asked = signals.next() => match asked {
                    Asked::Reload => self.reload(),
                    Asked::Stop(name) => {
                        info!(signal = name, "creeld stops: no new machines, ending those there are");
                        stop.cancel();
                        return self.drain(serving, signals).await;
                    }
                },
                Ok(()) = counts.changed() => self.manager.status(&self.status(false).line()),
                Ok(()) = readiness.changed() => self.manager.status(&self.status(false).line()),
            }
        }
    }

    /// Waits until the service has ended, but not longer than its machines may take.
    async fn drain(mut self, mut serving: Serving, signals: &mut Signals) -> Result<(), Failure> {
        let at_most = Duration::from(self.config.machine.shutdown_timeout) + DRAIN_MARGIN;
        self.manager.stopping(&self.status(true).line(), at_most);
        let mut counts = self.service.counts();
        let too_late = tokio::time::sleep(at_most);
        tokio::pin!(too_late);
        loop {
            tokio::select! {
                ended = &mut serving => return joined(ended),
                () = &mut too_late => return Err(Failure::Drain(at_most, counts.borrow().living())),
                Ok(()) = counts.changed() => self.manager.status(&self.status(true).line()),
                _ = signals.next() => {
                    info!(machines = counts.borrow().living(), "creeld is stopping already, in {at_most:?} at most");
                }
            }
        }
    }

    fn reload(&mut self) {
        info!("reading the configuration again");
        self.manager.reloading();
        match self.origin.load() {
            Ok(mut config) => {
                for key in needs_restart(&self.config, &config) {
                    warn!("`{key}` has changed, which takes effect when creeld is restarted");
                }
                // Locked by this process, and full of what it has: another creeld may hold the new ones.
                let Places { state, run, images, .. } = self.config.places.clone();
                config.places = Places { state, run, images, ..config.places };
                if let Some(log) = &self.log {
                    log.reload(&config);
                }
                self.runtime.reload(&config);
                self.service.reload(&config);
                (self.config, self.bad_config) = (config, None);
                info!("the new configuration is in force for new machines");
            }
            Err(error) => {
                let mut problems = 0;
                logging::each_problem(&error, |problem| {
                    problems += 1;
                    error!("{problem}");
                });
                error!("the new configuration is not taken; the old one stays in force");
                self.bad_config = Some(problems);
            }
        }
        self.manager.ready(&self.status(false).line());
    }

    fn status(&self, stopping: bool) -> Status {
        Status {
            machines: self.service.counts().borrow().living(),
            readiness: self.runtime.readiness().borrow().clone(),
            bad_config: self.bad_config,
            stopping,
        }
    }
}

fn joined(ended: Result<io::Result<()>, JoinError>) -> Result<(), Failure> {
    ended.map_err(Failure::Panic)?.map_err(Failure::Serve)
}

/// Keys that new machines can't differ in from those there are.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changes = [
        ("daemon.socket", old.daemon.socket != new.daemon.socket),
        ("daemon.log_format", old.daemon.log_format != new.daemon.log_format),
        ("daemon.metrics", old.daemon.metrics != new.daemon.metrics),
        ("machine.transport", old.machine.transport != new.machine.transport),
        ("vsock_ports", old.vsock_ports != new.vsock_ports),
        ("state.dir", old.places.state != new.places.state),
        ("run.dir", old.places.run != new.places.run),
        ("images.dir", old.places.images != new.places.images),
    ];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests;
