//! Setup: a `Create` call, followed until the machine is ready.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::machine::RemoteMachine;
use crate::api::{ApiError, Client, Creating, NewMachine, Progress};
use crate::engine::WORK_DIR;
use crate::machines::Lifetime;
use crate::runtime::{
    DestroyMode, Machine, MachineId, Mode, Outcome, Phase, Runtime, RuntimeInfo, SetupError, SetupEvent,
    SetupEvents, SetupFailure, SetupRequest,
};

/// creeld keeps the deadlines too, and knows more of what it ended; its answer gets this much time to arrive.
pub(super) const ANSWER_BOUND: Duration = Duration::from_millis(500);

/// The contract's bound of `Destroy`, and some.
pub(super) const DESTROY_BOUND: Duration = Duration::from_secs(75);

/// Of one connection. Each has up to three calls: the one that holds it, an exec, and its destroy; creeld takes 32 of a
/// connection, and one that had to wait for those that hold machines would wait for ever.
const MACHINES_PER_CONNECTION: usize = 10;

/// Provides the machines of a daemon.
#[derive(Debug)]
pub struct RemoteRuntime {
    client: Client,
    /// As many as there ever were machines for; at least one.
    connections: Mutex<Vec<(Client, Arc<Semaphore>)>>,
}

/// A machine's share of a connection.
#[derive(Debug)]
pub(super) struct Share {
    pub client: Client,
    _place: OwnedSemaphorePermit,
}

/// How far a setup has come.
#[derive(Debug, Clone)]
struct Reached {
    phase: Phase,
    id: Option<MachineId>,
}

impl RemoteRuntime {
    pub fn new(client: Client) -> Self {
        Self { client, connections: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn share(&self) -> Result<Share, ApiError> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for (client, places) in &*connections {
            if let Ok(place) = Arc::clone(places).try_acquire_owned() {
                return Ok(Share { client: client.clone(), _place: place });
            }
        }
        let client = if connections.is_empty() { self.client.clone() } else { self.client.another() };
        let places = Arc::new(Semaphore::new(MACHINES_PER_CONNECTION));
        let place = Arc::clone(&places).try_acquire_owned();
        let place = place.map_err(|error| ApiError::Internal(error.to_string()))?;
        connections.push((client.clone(), places));
        Ok(Share { client, _place: place })
    }

    async fn create(
        &self,
        request: SetupRequest,
        events: &SetupEvents,
        reached: &watch::Sender<Reached>,
    ) -> Result<RemoteMachine, ApiError> {
        let machine = NewMachine {
            image: request.image,
            lifetime: Lifetime::Attached,
            memory_mib: request.memory_mib,
            vcpus: request.vcpus,
            memory_limit_mib: request.memory_limit_mib,
            setup_timeout: request
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now())),
            workflow_id: Some(request.workflow_id),
        };
        let share = self.share()?;
        let mut creating: Creating = share.client.create(machine, request.source).await?;
        loop {
            match creating.next().await? {
                Some(Progress::Accepted(id)) => {
                    reached.send_modify(|reached| reached.id = Some(id));
                }
                Some(Progress::Setup(event)) => {
                    if let SetupEvent::Started(phase) = event {
                        reached.send_modify(|reached| reached.phase = phase);
                    }
                    events.send(event);
                }
                Some(Progress::Ready(machine)) => {
                    return Ok(RemoteMachine::new(share, machine, creating));
                }
                Some(Progress::Ended(_)) | None => {
                    return Err(ApiError::Internal("creeld ended a setup without saying how".into()));
                }
            }
        }
    }
}

#[async_trait]
impl Runtime for RemoteRuntime {
    async fn info(&self) -> RuntimeInfo {
        // Asks for what everything else needs too: a connection, and the right to use it.
        let usable = self.client.list(false).await.map(drop).map_err(|error| error.to_string());
        RuntimeInfo { name: "creeld", mode: Mode::Exec, source_disk: true, usable }
    }

    /// The machine's id is the daemon's choice. So is its tenant: who connects.
    async fn setup(
        &self,
        request: SetupRequest,
        events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError> {
        let unsupported = |what: &str| {
            let text = format!("{what} can't be chosen for a machine of creeld; leave it to the image");
            Err(SetupError::new(Phase::Prepare, SetupFailure::BadInput(text)))
        };
        if request.architecture.is_some() {
            return unsupported("the architecture");
        }
        if request.work_dir != WORK_DIR {
            return unsupported("the directory of the work");
        }
        let deadline = request.deadline.map(|deadline| deadline + ANSWER_BOUND);
        let too_late = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let reached = watch::Sender::new(Reached { phase: Phase::Prepare, id: None });
        let mut create = std::pin::pin!(self.create(request, &events, &reached));
        let interrupted = tokio::select! {
            biased;
            () = cancel.cancelled() => Outcome::Cancelled,
            () = too_late => Outcome::TimedOut,
            created = &mut create => {
                return match created {
                    Ok(machine) => Ok(Box::new(machine)),
                    Err(error) => Err(setup_error(reached.borrow().phase, error)),
                };
            }
        };
        // Ending the call cancels the setup, but that it has ended is known only by asking; which takes the machine's
        // name. None comes before the source is there, and then there is no machine.
        let mut named = reached.subscribe();
        tokio::select! {
            _ = timeout(ANSWER_BOUND, named.wait_for(|reached| reached.id.is_some())) => {}
            _ = &mut create => {}
        }
        let Reached { phase, id } = reached.borrow().clone();
        if let Some(id) = id {
            let _ = timeout(DESTROY_BOUND, self.client.destroy(&id, DestroyMode::Kill)).await;
        }
        Err(SetupError::new(phase, SetupFailure::Ended(interrupted)))
    }
}

fn setup_error(phase: Phase, error: ApiError) -> SetupError {
    let failure = match error {
        ApiError::Setup(error) => return error,
        ApiError::BadInput(text) => SetupFailure::BadInput(text),
        ApiError::Denied(_) | ApiError::Full(_) | ApiError::ShuttingDown(_) => {
            SetupFailure::HostCannot(error.to_string())
        }
        other => SetupFailure::Ended(Outcome::internal(other)),
    };
    SetupError::new(phase, failure)
}
