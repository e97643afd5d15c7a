//! Looking at machines and at the host: calls that change nothing.

use std::time::{Duration, SystemTime};

use creel_proto::v1 as wire;
use tonic::Streaming;

use super::Client;
use crate::api::convert::{from_epoch_us, microseconds};
use crate::api::error::ApiError;
use crate::machines::{ConsoleChunk, Followed, Inspection, MachineStats};
use crate::runtime::MachineId;

/// An image that workflows can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    pub name: String,
    /// `x86_64`; empty for one that is broken.
    pub arch: String,
    pub memory_mib: u32,
    pub vcpus: u32,
    pub size_bytes: u64,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// What a daemon is, what it runs on, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    pub version: String,
    pub started_at: SystemTime,
    /// `kvm` or `tcg`; `None` while that is found out, and where no machine can be run.
    pub accel: Option<String>,
    /// `kernel` or `hybrid`.
    pub transport: Option<String>,
    /// Why no machine can be run.
    pub problem: Option<String>,
    /// Those that live.
    pub machines: u32,
    /// `None`: as many as a `creel run` makes.
    pub max_machines: Option<u32>,
    pub slots_held: u32,
    pub slots_waiting: u32,
    pub slots: u32,
}

impl Client {
    /// All that is known of one machine, with the last `console_bytes` of its console.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when it is not known.
    pub async fn inspect(
        &self,
        machine: &MachineId,
        console_bytes: Option<u32>,
    ) -> Result<Inspection, ApiError> {
        let request = wire::InspectRequest { machine_id: machine.to_string(), console_bytes };
        Ok(self.machines.clone().inspect(request).await?.into_inner().try_into()?)
    }

    /// What machines take of the host: `machines`, or all that live where there are none; once, or each `interval`.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when one is not known.
    pub async fn stats(
        &self,
        machines: &[MachineId],
        interval: Option<Duration>,
    ) -> Result<StatsStream, ApiError> {
        let machine_ids = machines.iter().map(ToString::to_string).collect();
        let request = wire::StatsRequest { machine_ids, interval_us: interval.map(microseconds) };
        Ok(StatsStream(self.machines.clone().stats(request).await?.into_inner()))
    }

    /// A machine's console: what there is, or with `follow` until the machine's end.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when it is not known, [`ApiError::NotNow`] while it is set up and not to be followed.
    pub async fn console(&self, machine: &MachineId, follow: bool) -> Result<ConsoleStream, ApiError> {
        let request = wire::ConsoleRequest { machine_id: machine.to_string(), follow };
        Ok(ConsoleStream(self.machines.clone().console(request).await?.into_inner()))
    }

    /// What happens to machines: what is kept, from number `since` on, and with `follow` what is to come.
    ///
    /// # Errors
    /// [`ApiError::BadInput`] when no event has had that number.
    pub async fn events(&self, follow: bool, since: Option<u64>) -> Result<EventStream, ApiError> {
        let request = wire::EventsRequest { follow, since };
        Ok(EventStream(self.machines.clone().events(request).await?.into_inner()))
    }

    /// The images that workflows can name, broken ones too.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn list_images(&self) -> Result<Vec<ListedImage>, ApiError> {
        let listed = self.images.clone().list(wire::ListImagesRequest {}).await?.into_inner();
        let images = listed.images.into_iter().map(|image| {
            let wire::Image { name, arch, memory_mib, vcpus, size_bytes, problem } = image;
            let problem = Some(problem).filter(|problem| !problem.is_empty());
            ListedImage { name, arch, memory_mib, vcpus, size_bytes, problem }
        });
        Ok(images.collect())
    }

    /// What this daemon is.
    ///
    /// # Errors
    /// When one may not ask, or the connection is lost.
    pub async fn host(&self) -> Result<HostInfo, ApiError> {
        let info = self.host.clone().info(wire::HostInfoRequest {}).await?.into_inner();
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(HostInfo {
            version: info.version,
            started_at: from_epoch_us(info.started_at_us),
            accel: said(info.accel),
            transport: said(info.transport),
            problem: said(info.problem),
            machines: info.machines,
            max_machines: Some(info.max_machines).filter(|max| *max > 0),
            slots_held: info.slots_held,
            slots_waiting: info.slots_waiting,
            slots: info.slots,
        })
    }
}

/// Numbers as they come.
#[derive(Debug)]
pub struct StatsStream(Streaming<wire::StatsResponse>);

impl StatsStream {
    /// The next ones, and when they were read; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<Option<(SystemTime, Vec<MachineStats>)>, ApiError> {
        let Some(message) = self.0.message().await? else { return Ok(None) };
        let machines = message.machines.into_iter().map(|stats| Ok(stats.try_into()?));
        Ok(Some((from_epoch_us(message.at_us), machines.collect::<Result<_, ApiError>>()?)))
    }
}

/// A console's bytes as they come.
#[derive(Debug)]
pub struct ConsoleStream(Streaming<wire::ConsoleChunk>);

impl ConsoleStream {
    /// The next ones; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// When the console can't be read, or the connection is lost.
    pub async fn next(&mut self) -> Result<Option<ConsoleChunk>, ApiError> {
        Ok(self.0.message().await?.map(Into::into))
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct EventStream(Streaming<wire::EventsResponse>);

impl EventStream {
    /// The next one; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Followed>, ApiError> {
        loop {
            let Some(message) = self.0.message().await? else { return Ok(None) };
            return Ok(Some(match message.event {
                // Something that only a later version knows to happen.
                Some(wire::events_response::Event::Machine(wire::MachineEvent { what: None, .. })) => {
                    continue;
                }
                Some(wire::events_response::Event::Machine(event)) => {
                    Followed::Event(std::sync::Arc::new(event.try_into()?))
                }
                Some(wire::events_response::Event::Missed(count)) => Followed::Missed(count),
                // Of a later version.
                None => continue,
            }));
        }
    }
}
