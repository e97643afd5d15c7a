//! The calls of `creel.v1.Host`.

use std::time::SystemTime;

use creel_proto::v1 as wire;
use creel_proto::v1::host_server;
use tonic::{Request, Response, Status};

use crate::api::convert::since_epoch_us;
use crate::machines::Machines;
use crate::workflows::{SlotCounts, Workflows};

#[derive(Debug)]
pub(in crate::api) struct HostService {
    machines: Machines,
    workflows: Option<Workflows>,
    started_at: SystemTime,
}

impl HostService {
    /// Of a server that starts now.
    pub(in crate::api) fn new(machines: Machines, workflows: Option<Workflows>) -> Self {
        Self { machines, workflows, started_at: SystemTime::now() }
    }
}

#[tonic::async_trait]
impl host_server::Host for HostService {
    async fn info(
        &self,
        _request: Request<wire::HostInfoRequest>,
    ) -> Result<Response<wire::HostInfoResponse>, Status> {
        let status = self.machines.runtime().status();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let slots = self.workflows.as_ref().map(Workflows::slots);
        let slot = |of: fn(&SlotCounts) -> usize| slots.as_ref().map_or(0, |slots| count(of(slots)));
        let living = self.machines.counts().borrow().living();
        Ok(Response::new(wire::HostInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_us: since_epoch_us(self.started_at),
            accel: status.accel.unwrap_or_default(),
            transport: status.transport.unwrap_or_default(),
            problem: status.problem.unwrap_or_default(),
            machines: count(living),
            max_machines: self.machines.max_machines().map_or(0, count),
            slots_held: slot(|slots| slots.held),
            slots_waiting: slot(|slots| slots.waiting),
            slots: slot(|slots| slots.slots),
        }))
    }
}
