//! The microVM runtime of creeld: put together in the background, put together anew when the configuration is read again.
//!
//! creeld starts and serves whatever this host lacks: an operator wants to hear from the API and the status line what is
//! missing, not from a unit that fails. Until all is found out, a machine's setup waits; when something is missing, it is
//! refused with the reason.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OnceCell, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::left::LeftRecords;
use crate::assembly::Assembly;
use crate::config::Config;
use crate::error::with_causes;
use crate::runtime::microvm::qemu::Accel;
use crate::runtime::microvm::{self, MicroVm, Transport, Vsocks};
use crate::runtime::{
    Machine, Mode, Outcome, Phase, Runtime, RuntimeInfo, RuntimeStatus, SetupError, SetupEvents,
    SetupFailure, SetupRequest,
};

/// Whether machines can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not known yet; a proof of KVM takes up to three seconds.
    Assembling,
    Ready {
        /// `kvm` or `tcg`.
        accel: String,
        transport: Transport,
    },
    /// Why not, and what to do.
    Cannot(String),
}

type Assembled = Result<Arc<MicroVm>, String>;

/// The runtime of the configuration in force.
pub struct DaemonRuntime {
    /// Of every configuration: guests of an older one still dial the same port.
    vsocks: Arc<Vsocks>,
    /// `None` until it is known.
    current: watch::Sender<Option<Assembled>>,
    readiness: watch::Sender<Readiness>,
    assembling: Mutex<Option<AbortHandle>>,
    /// What a creeld before this one has left is ended once, before the first machine.
    clean: OnceCell<()>,
    left: Arc<LeftRecords>,
}

impl fmt::Debug for DaemonRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonRuntime").field("readiness", &*self.readiness.borrow()).finish_non_exhaustive()
    }
}

impl DaemonRuntime {
    /// Returns at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: &Config, vsocks: Arc<Vsocks>, left: LeftRecords) -> Arc<Self> {
        let runtime = Arc::new(Self {
            vsocks,
            current: watch::Sender::new(None),
            readiness: watch::Sender::new(Readiness::Assembling),
            assembling: Mutex::new(None),
            clean: OnceCell::new(),
            left: Arc::new(left),
        });
        runtime.reload(config);
        runtime
    }

    /// Puts the runtime together anew. Machines that there are keep what they have; new ones wait for the new runtime.
    /// Transport and vsock ports stay as they are until creeld starts again.
    pub fn reload(self: &Arc<Self>, config: &Config) {
        let mut assembling = self.assembling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = assembling.take() {
            older.abort();
        }
        self.current.send_replace(None);
        self.readiness.send_replace(Readiness::Assembling);
        let (runtime, config) = (Arc::clone(self), config.clone());
        let task = tokio::spawn(async move { runtime.assemble(config).await });
        *assembling = Some(task.abort_handle());
    }

    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    async fn assemble(&self, config: Config) {
        let allow_tcg = config.machine.allow_tcg;
        let clean = async || {
            end_stale(&config).await?;
            let left = Arc::clone(&self.left);
            let removed = tokio::task::spawn_blocking(move || left.remove_of_the_gone()).await;
            removed.map_err(|error| error.to_string())
        };
        if let Err(why) = self.clean.get_or_try_init(clean).await {
            // New machines beside old ones that nobody owns would be worse than none.
            error!("no machines can be run: {why}; creeld looks again when it is reloaded");
            self.current.send_replace(Some(Err(why.clone())));
            self.readiness.send_replace(Readiness::Cannot(why));
            return;
        }
        let assembled = put_together(config, &self.vsocks).await;
        self.current.send_replace(Some(assembled.clone()));
        let accel = match assembled {
            // Machines wait for the proof by themselves.
            Ok(microvm) => match microvm.can_confine().await {
                Ok(()) => microvm.accelerator().await,
                Err(why) => Err(why),
            },
            Err(why) => Err(why),
        };
        let readiness = match accel {
            Ok(accel) => {
                let accel = match accel {
                    Accel::Kvm => "kvm",
                    Accel::Tcg { .. } => "tcg",
                };
                info!(accel, transport = %self.vsocks.transport(), "machines can be run");
                if allow_tcg && accel == "tcg" {
                    warn!(
                        "guests are emulated (TCG), which QEMU does not promise to isolate: run only what you trust"
                    );
                }
                Readiness::Ready { accel: accel.to_owned(), transport: self.vsocks.transport() }
            }
            Err(why) => {
                error!("no machines can be run: {why}; creeld looks again when it is reloaded");
                Readiness::Cannot(why)
            }
        };
        self.readiness.send_replace(readiness);
    }

    /// The runtime in force, once it is known.
    async fn current(&self) -> Assembled {
        let mut current = self.current.subscribe();
        let known = current.wait_for(Option::is_some).await;
        // The sender lives as long as this value.
        known.ok().and_then(|known| known.clone()).unwrap_or_else(|| Err("creeld is ending".to_owned()))
    }
}

/// Machines outlive creeld, and can't be taken over yet.
async fn end_stale(config: &Config) -> Result<(), String> {
    match microvm::end_stale(&config.cgroups.root, &config.places.run).await {
        Ok(ended) if ended.is_empty() => {}
        Ok(ended) => warn!(
            machines = ended.join(","),
            "ended {} machine{} of a creeld before this one: machines can't be taken over yet",
            ended.len(),
            if ended.len() == 1 { "" } else { "s" }
        ),
        Err(error) => {
            return Err(format!(
                "failed to end the machines of a creeld before this one: {}",
                with_causes(&error)
            ));
        }
    }
    Ok(())
}

async fn put_together(config: Config, vsocks: &Arc<Vsocks>) -> Assembled {
    vsocks.ready().await.map_err(|error| error.to_string())?;
    let settings = Assembly::new(config).daemon().await.map_err(|error| with_causes(&error))?;
    let microvm = MicroVm::with_vsocks(settings, Arc::clone(vsocks)).map_err(|error| with_causes(&error))?;
    Ok(Arc::new(microvm))
}

#[async_trait]
impl Runtime for DaemonRuntime {
    async fn info(&self) -> RuntimeInfo {
        match self.current().await {
            Ok(microvm) => microvm.info().await,
            Err(why) => {
                RuntimeInfo { name: "microvm", mode: Mode::Exec, source_disk: true, usable: Err(why) }
            }
        }
    }

    fn status(&self) -> RuntimeStatus {
        let transport = Some(self.vsocks.transport().to_string());
        match &*self.readiness.borrow() {
            Readiness::Assembling => RuntimeStatus { transport, ..RuntimeStatus::default() },
            Readiness::Ready { accel, .. } => {
                RuntimeStatus { accel: Some(accel.clone()), transport, problem: None }
            }
            Readiness::Cannot(why) => RuntimeStatus { accel: None, transport, problem: Some(why.clone()) },
        }
    }

    async fn setup(
        &self,
        request: SetupRequest,
        events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError> {
        let current = tokio::select! {
            current = self.current() => current.map_err(SetupFailure::HostCannot),
            () = cancel.cancelled() => Err(SetupFailure::Ended(Outcome::Cancelled)),
            () = passed(request.deadline) => Err(SetupFailure::Ended(Outcome::TimedOut)),
        };
        let microvm = current.map_err(|failure| SetupError::new(Phase::Prepare, failure))?;
        microvm.setup(request, events, cancel).await
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
