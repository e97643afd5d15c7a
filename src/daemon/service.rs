//! The seam between the process and what it serves.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::api::{RolePolicy, Server};
use crate::assembly::Assembly;
use crate::config::Config;
use crate::image::ImageStore;
use crate::machines::{Counts, Machines};
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::state::machines::MachineRecords;
use crate::workflows::{Bounds, Settings, SlotCounts, Workflows};

/// What creeld serves. The process knows no more of it than this.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// For the status line. Must not be closed while the service lives.
    fn counts(&self) -> watch::Receiver<Counts>;

    /// What it counts and measures.
    fn metrics(&self) -> Metrics;

    /// Takes a new configuration, for what is made from now on. Must not block.
    fn reload(&self, config: &Config);

    /// Serves until `stop` is triggered; then admits nothing more, ends every machine, and returns once none is left and
    /// open requests are answered. creeld bounds the wait.
    ///
    /// # Errors
    /// When it can't go on.
    async fn serve(&self, listener: UnixListener, stop: CancellationToken) -> io::Result<()>;
}

/// What ending machines may take beside the guests' own shutdown. The process waits a little longer than this.
const END_MARGIN: Duration = Duration::from_secs(10);

/// What this creeld serves, on machines of `runtime`.
///
/// # Errors
/// When groups can't be looked up, or the cache can't be made.
pub(super) fn build(
    config: &Config,
    runtime: Arc<dyn Runtime>,
    records: MachineRecords,
) -> io::Result<Arc<dyn Service>> {
    let assembly = Assembly::new(config.clone());
    let scratch = assembly.scratch().map_err(io::Error::other)?.to_owned();
    let roles = RolePolicy::of_this_host().map_err(io::Error::other)?;
    let machines = Machines::recorded(runtime, max_machines(config), records);
    let images = assembly.images().clone();
    let records = assembly.records();
    let workflows =
        Workflows::new(machines.clone(), images.clone(), records, settings(config), Bounds::default());
    let counted = workflows.clone();
    machines.metrics().on_scrape(move |metrics| {
        let SlotCounts { held, waiting, slots } = counted.slots();
        metrics.set_slots(slots, held, waiting);
    });
    let end_within = Mutex::new(end_within(config));
    Ok(Arc::new(Control { machines, workflows, images, scratch, roles, end_within }))
}

fn settings(config: &Config) -> Settings {
    Settings {
        slots: config.scheduler.slots(),
        workflow_timeout: config.engine.workflow_timeout.into(),
        default_image: config.images.default.clone(),
        step_log_bytes: config.logs.max_step.bytes(),
    }
}

fn max_machines(config: &Config) -> usize {
    usize::try_from(config.daemon.max_machines).unwrap_or(usize::MAX)
}

fn end_within(config: &Config) -> Duration {
    Duration::from(config.machine.shutdown_timeout) + END_MARGIN
}

/// The control API.
struct Control {
    machines: Machines,
    workflows: Workflows,
    images: ImageStore,
    scratch: PathBuf,
    roles: RolePolicy,
    end_within: Mutex<Duration>,
}

#[async_trait]
impl Service for Control {
    fn counts(&self) -> watch::Receiver<Counts> {
        self.machines.counts()
    }

    fn metrics(&self) -> Metrics {
        self.machines.metrics().clone()
    }

    // The runtime has taken it already.
    fn reload(&self, config: &Config) {
        self.machines.set_max_machines(max_machines(config));
        self.workflows.reload(settings(config));
        *self.end_within.lock().unwrap_or_else(PoisonError::into_inner) = end_within(config);
    }

    async fn serve(&self, listener: UnixListener, stop: CancellationToken) -> io::Result<()> {
        let server = Server {
            machines: self.machines.clone(),
            workflows: Some(self.workflows.clone()),
            images: self.images.clone(),
            scratch: self.scratch.clone(),
            roles: self.roles.clone(),
        };
        let close = CancellationToken::new();
        let serving = server.serve(listener, close.clone());
        let end = async {
            stop.cancelled().await;
            self.machines.drain();
            self.workflows.drain();
            // Their callers still hear how they ended: the connections close last.
            let end_within = *self.end_within.lock().unwrap_or_else(PoisonError::into_inner);
            let (machines, ()) = tokio::join!(self.machines.end_all(end_within), async {
                match self.workflows.end_all(end_within).await {
                    0 => {}
                    workflows => error!(workflows, "workflows did not end in time"),
                }
            });
            for machine in machines {
                error!(%machine, "a machine did not end in time");
            }
            close.cancel();
        };
        let (served, ()) = tokio::join!(serving, end);
        served.map_err(io::Error::other)
    }
}
