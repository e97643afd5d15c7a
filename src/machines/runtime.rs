//! The registry as a runtime: what a workflow of this process makes is listed like any other machine.

use std::fmt;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::error::{CreateError, DestroyError};
use super::exec_ids::NamedBy;
use super::registry::{Creation, Lifetime, Machines};
use crate::runtime::{
    DestroyMode, ExecRequest, ExecStreams, Machine, MachineFacts, MachineId, MachineUsage, Outcome, Phase,
    Runtime, RuntimeInfo, RuntimeStatus, SetupError, SetupEvents, SetupFailure, SetupRequest, Shell,
    ShellError, ShellRequest, SignalError, Verdict,
};

/// Makes machines in a registry, for one user.
#[derive(Debug, Clone)]
pub struct ListedRuntime {
    machines: Machines,
    creator_uid: u32,
}

impl ListedRuntime {
    pub fn new(machines: Machines, creator_uid: u32) -> Self {
        Self { machines, creator_uid }
    }
}

#[async_trait]
impl Runtime for ListedRuntime {
    async fn info(&self) -> RuntimeInfo {
        self.machines.runtime().info().await
    }

    fn status(&self) -> RuntimeStatus {
        self.machines.runtime().status()
    }

    async fn setup(
        &self,
        request: SetupRequest,
        events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError> {
        // Its owner is the value that is returned, not the call's token.
        let lifetime = Lifetime::Detached { max_age: None };
        let creation = Creation { request, creator_uid: self.creator_uid, lifetime, fingerprint: None };
        match self.machines.create(creation, events, cancel).await {
            Ok(created) => {
                let (machines, id) = (self.machines.clone(), created.id);
                Ok(Box::new(ListedMachine { machines, id, facts: created.facts }))
            }
            Err(CreateError::Setup(error)) => Err(error),
            Err(error @ (CreateError::Full { .. } | CreateError::Draining | CreateError::OfARun)) => {
                Err(SetupError::new(Phase::Prepare, SetupFailure::HostCannot(error.to_string())))
            }
            Err(error @ CreateError::Exists(_)) => {
                Err(SetupError::new(Phase::Prepare, SetupFailure::Ended(Outcome::internal(error))))
            }
        }
    }
}

/// A machine of the registry, owned by this value.
struct ListedMachine {
    machines: Machines,
    id: MachineId,
    facts: MachineFacts,
}

impl fmt::Debug for ListedMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedMachine").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for ListedMachine {
    fn drop(&mut self) {
        self.machines.order_end(&self.id, DestroyMode::Kill);
    }
}

#[async_trait]
impl Machine for ListedMachine {
    fn id(&self) -> &MachineId {
        &self.id
    }

    fn facts(&self) -> MachineFacts {
        self.facts.clone()
    }

    fn usage(&self) -> Option<MachineUsage> {
        self.machines.get(&self.id)?.usage
    }

    async fn ended(&self) -> Verdict {
        let ended = self.machines.ended(&self.id).await;
        let forgotten = || Verdict::of(Outcome::internal("the machine's end is not remembered any more"));
        ended.and_then(|summary| summary.verdict).unwrap_or_else(forgotten)
    }

    async fn exec(&self, request: ExecRequest, streams: ExecStreams, cancel: CancellationToken) -> Verdict {
        match self.machines.exec(&self.id, request, NamedBy::Caller, streams, cancel).await {
            Ok(verdict) => verdict,
            Err(error) => Verdict::of(Outcome::internal(error)),
        }
    }

    async fn signal(&self, exec_id: &str, signal: i32) -> Result<(), SignalError> {
        use crate::machines::SignalError as Refused;
        self.machines.signal(&self.id, exec_id, signal).await.map_err(|error| match error {
            Refused::Machine { why, .. } => why,
            Refused::Unknown(_) | Refused::Ended(_) => SignalError::Ended,
            Refused::SettingUp(_) => SignalError::Unreachable(error.to_string()),
        })
    }

    async fn shell(&self, request: ShellRequest) -> Result<Shell, ShellError> {
        use crate::machines::ShellError as Refused;
        self.machines.shell(&self.id, request).await.map_err(|error| match error {
            Refused::Machine { why, .. } => why,
            Refused::Unknown(_) | Refused::Ended(_) => ShellError::Ended,
            Refused::SettingUp(_) => ShellError::Unreachable(error.to_string()),
        })
    }

    async fn destroy(&self, mode: DestroyMode) -> Result<(), String> {
        match self.machines.destroy(&self.id, mode).await {
            // One that ended so long ago that it is forgotten holds nothing.
            Ok(_) | Err(DestroyError::Unknown(_)) => Ok(()),
            Err(DestroyError::NotFreed { what, .. } | DestroyError::NotEnded { what, .. }) => Err(what),
        }
    }
}
