//! creeld from its sockets to its end.
//!
//! ```text
//!            sockets, locks          READY            SIGTERM, SIGINT         no machine left, or too late
//!  (nothing) ──────────────▶ building ─────▶ serving ────────────────▶ draining ──────────────────────────▶ (exit)
//!                                             │   ▲
//!                                             └───┘ SIGHUP: new configuration, for new machines
//! ```

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::failure::Failure;
use super::left::LeftRecords;
use super::lock::{Lock, LockError};
use super::logging::Log;
use super::runtime::DaemonRuntime;
use super::scrape::{self, Scrape};
use super::serving::Daemon;
use super::signals::Signals;
use super::sockets::Sockets;
use super::{ports, service};
use crate::assembly::Assembly;
use crate::config::{Config, ConfigError, Environment};
use crate::host::activation::Inherited;
use crate::runtime::Runtime;
use crate::state::machines::MachineRecords;

/// Where the configuration comes from, each time it is read.
#[derive(Debug)]
pub(super) struct Origin {
    pub environment: Environment,
    /// As named on the command line.
    pub file: Option<PathBuf>,
}

impl Origin {
    /// # Errors
    /// All mistakes at once.
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.environment, self.file.as_deref())
    }

    /// The file that is read: the one that was named, or the user's own if it is there.
    pub(super) fn found(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| self.environment.config_file().filter(|own| own.exists()))
    }
}

/// Lives until a signal ends it.
///
/// # Errors
/// When it can't begin, or ends otherwise than asked.
pub(super) async fn live(
    origin: Origin,
    config: Config,
    inherited: Vec<Inherited>,
    log: Log,
) -> Result<(), Failure> {
    // Before anything that would have to be undone.
    let mut signals = Signals::install().map_err(Failure::Start)?;
    let file = origin.file.clone().or_else(|| origin.environment.config_file()).unwrap_or_default();
    info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), config = %file.display(), "creeld starts");
    let _locks = lock_directories(&config)?;
    let Sockets { control, vsock } = Sockets::open(&config, inherited)?;
    let (listener, _own_socket) = control.split();
    let scrape = Scrape::open(&config.daemon.metrics)?;

    let vsocks = ports::vsocks(&config, vsock).map_err(Failure::Start)?;
    // Before anything is served: what is found in it is of the creelds before this one.
    let records =
        MachineRecords::make(&config.places.state).map_err(io::Error::other).map_err(Failure::Start)?;
    let left = LeftRecords::find(&records).map_err(io::Error::other).map_err(Failure::Start)?;
    let runtime = DaemonRuntime::start(&config, Arc::clone(&vsocks), left);
    let service =
        service::build(&config, Arc::clone(&runtime) as Arc<dyn Runtime>, records).map_err(Failure::Start)?;
    scrape::read_on_scrape(&service.metrics(), &config, vsocks);
    let _metrics_socket = scrape::start(scrape, service.metrics()).map_err(Failure::Start)?;
    info!(
        transport = %Assembly::new(config.clone()).daemon_transport(),
        cgroups = %config.cgroups.mode,
        cgroup_root = %config.cgroups.root.display(),
        run_dir = %config.places.run.display(),
        state_dir = %config.places.state.display(),
        "machines' means"
    );
    listener.set_nonblocking(true).map_err(Failure::Start)?;
    let listener = UnixListener::from_std(listener).map_err(Failure::Start)?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (service, stop) = (Arc::clone(&service), stop.clone());
        async move { service.serve(listener, stop).await }
    });
    Daemon::new(origin, config, Some(log), runtime, service).serve(serving, stop, &mut signals).await
}

/// One daemon for one state directory and one runtime directory, however its sockets came: a second one would end the
/// machines that it finds.
fn lock_directories(config: &Config) -> Result<[Lock; 2], Failure> {
    Ok([lock(&config.places.state)?, lock(&config.places.run)?])
}

fn lock(directory: &Path) -> Result<Lock, Failure> {
    let path = directory.join("creeld.lock");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(|source| LockError::Io { path: path.clone(), source })?;
    Ok(Lock::acquire(&path, directory)?)
}
