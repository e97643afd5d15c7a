//! What is seen of machines: inspections, numbers, events.

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::machine_event::What;

use super::machine::{machine_id, state};
use super::setup::phase;
use super::{Malformed, from_epoch_us, microseconds, required, since_epoch_us};
use crate::machines::{
    ConsoleChunk, Followed, Happening, Inspection, Lifetime, MachineEvent, MachineStats, PhaseRecord,
};
use crate::runtime::{HostProcess, MachineDetails, MachineLimits, MachineLoad};

impl From<Inspection> for wire::InspectResponse {
    fn from(inspection: Inspection) -> Self {
        let (lifetime, max_age) = match inspection.lifetime {
            Lifetime::Attached => (wire::Lifetime::Attached, None),
            Lifetime::Detached { max_age } => (wire::Lifetime::Detached, max_age),
        };
        let details = inspection.details;
        let path = |path: Option<std::path::PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
        let (qemu_path, qemu_version) = details.qemu.unzip();
        let setup = inspection.setup.into_iter().map(|record| wire::SetupPhase {
            phase: wire::Phase::from(record.phase).into(),
            started_at_us: since_epoch_us(record.started_at),
            took_us: record.took.map(microseconds),
        });
        Self {
            machine: Some(inspection.summary.into()),
            lifetime: lifetime.into(),
            max_age_us: max_age.map(microseconds),
            setup: setup.collect(),
            notices: inspection.notices,
            directory: path(details.directory),
            image_directory: path(details.image_directory),
            image_digest: details.image_digest,
            qemu_path: path(qemu_path),
            qemu_version,
            namespaces: details.namespaces,
            limits: details.limits.map(Into::into),
            processes: details.processes.into_iter().map(Into::into).collect(),
            console_tail: inspection.console_tail.map(Into::into),
        }
    }
}

impl TryFrom<wire::InspectResponse> for Inspection {
    type Error = Malformed;

    fn try_from(inspection: wire::InspectResponse) -> Result<Self, Malformed> {
        let lifetime = match inspection.lifetime() {
            wire::Lifetime::Attached => Lifetime::Attached,
            wire::Lifetime::Detached | wire::Lifetime::Unspecified => {
                Lifetime::Detached { max_age: inspection.max_age_us.map(Duration::from_micros) }
            }
        };
        let setup = inspection.setup.into_iter().map(|record| {
            Ok(PhaseRecord {
                phase: phase(record.phase)?,
                started_at: from_epoch_us(record.started_at_us),
                took: record.took_us.map(Duration::from_micros),
            })
        });
        let qemu = inspection.qemu_path.map(Into::into);
        Ok(Self {
            summary: required(inspection.machine, "machine")?.try_into()?,
            lifetime,
            setup: setup.collect::<Result<_, Malformed>>()?,
            notices: inspection.notices,
            details: MachineDetails {
                directory: inspection.directory.map(Into::into),
                image_directory: inspection.image_directory.map(Into::into),
                image_digest: inspection.image_digest,
                qemu: qemu.zip(inspection.qemu_version),
                namespaces: inspection.namespaces,
                limits: inspection.limits.map(TryInto::try_into).transpose()?,
                processes: inspection.processes.into_iter().map(Into::into).collect(),
            },
            console_tail: inspection.console_tail.map(Into::into),
        })
    }
}

impl From<MachineLimits> for wire::CgroupLimits {
    fn from(limits: MachineLimits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
            cpu_quota_us: limits.cpu_quota.map(microseconds),
            cpu_period_us: microseconds(limits.cpu_period),
            cpu_weight: limits.cpu_weight.into(),
            io_weight: limits.io_weight.into(),
        }
    }
}

impl TryFrom<wire::CgroupLimits> for MachineLimits {
    type Error = Malformed;

    fn try_from(limits: wire::CgroupLimits) -> Result<Self, Malformed> {
        let weight = |value: u32, field: &str| {
            u16::try_from(value).map_err(|_| Malformed(format!("`{field}` is {value}, which is no weight")))
        };
        Ok(Self {
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
            cpu_quota: limits.cpu_quota_us.map(Duration::from_micros),
            cpu_period: Duration::from_micros(limits.cpu_period_us),
            cpu_weight: weight(limits.cpu_weight, "limits.cpu_weight")?,
            io_weight: weight(limits.io_weight, "limits.io_weight")?,
        })
    }
}

impl From<HostProcess> for wire::HostProcess {
    fn from(process: HostProcess) -> Self {
        let HostProcess { pid, name, threads, resident_bytes } = process;
        Self { pid, name, threads, resident_bytes }
    }
}

impl From<wire::HostProcess> for HostProcess {
    fn from(process: wire::HostProcess) -> Self {
        let wire::HostProcess { pid, name, threads, resident_bytes } = process;
        Self { pid, name, threads, resident_bytes }
    }
}

impl From<MachineStats> for wire::MachineStats {
    fn from(stats: MachineStats) -> Self {
        let load = stats.load.unwrap_or_default();
        Self {
            machine_id: stats.id.to_string(),
            state: wire::MachineState::from(stats.state).into(),
            execs: stats.execs,
            memory_limit_mib: stats.memory_limit_mib,
            memory_bytes: load.memory_bytes,
            cpu_us: load.cpu.map(microseconds),
            pids: load.pids,
            read_bytes: load.read_bytes,
            written_bytes: load.written_bytes,
            cpu_pressure_us: load.cpu_pressure.map(microseconds),
            memory_pressure_us: load.memory_pressure.map(microseconds),
            io_pressure_us: load.io_pressure.map(microseconds),
        }
    }
}

impl TryFrom<wire::MachineStats> for MachineStats {
    type Error = Malformed;

    fn try_from(stats: wire::MachineStats) -> Result<Self, Malformed> {
        let load = MachineLoad {
            memory_bytes: stats.memory_bytes,
            cpu: stats.cpu_us.map(Duration::from_micros),
            pids: stats.pids,
            read_bytes: stats.read_bytes,
            written_bytes: stats.written_bytes,
            cpu_pressure: stats.cpu_pressure_us.map(Duration::from_micros),
            memory_pressure: stats.memory_pressure_us.map(Duration::from_micros),
            io_pressure: stats.io_pressure_us.map(Duration::from_micros),
        };
        Ok(Self {
            id: machine_id(&stats.machine_id)?,
            state: state(stats.state)?,
            execs: stats.execs,
            memory_limit_mib: stats.memory_limit_mib,
            // Nothing counted is the same as no count.
            load: Some(load).filter(|load| *load != MachineLoad::default()),
        })
    }
}

impl From<ConsoleChunk> for wire::ConsoleChunk {
    fn from(chunk: ConsoleChunk) -> Self {
        Self { offset: chunk.offset, data: chunk.bytes }
    }
}

impl From<wire::ConsoleChunk> for ConsoleChunk {
    fn from(chunk: wire::ConsoleChunk) -> Self {
        Self { offset: chunk.offset, bytes: chunk.data }
    }
}

impl From<Followed> for wire::EventsResponse {
    fn from(followed: Followed) -> Self {
        let event = match followed {
            Followed::Event(event) => {
                wire::events_response::Event::Machine(MachineEvent::clone(&event).into())
            }
            Followed::Missed(count) => wire::events_response::Event::Missed(count),
        };
        Self { event: Some(event) }
    }
}

impl From<MachineEvent> for wire::MachineEvent {
    fn from(event: MachineEvent) -> Self {
        let what = match event.what {
            Happening::Created { image } => What::Created(wire::MachineCreated { image }),
            Happening::Ready => What::Ready(wire::Empty {}),
            Happening::ExecStarted { exec_id } => What::ExecStarted(wire::MachineExecStarted { exec_id }),
            Happening::ExecEnded { exec_id, verdict } => {
                What::ExecEnded(wire::MachineExecEnded { exec_id, verdict: Some(verdict.into()) })
            }
            Happening::Ending => What::Ending(wire::Empty {}),
            Happening::Ended { verdict } => What::Ended(verdict.into()),
            Happening::SetupFailed { why } => What::SetupFailed(why),
        };
        Self {
            sequence: event.sequence,
            at_us: since_epoch_us(event.at),
            machine_id: event.machine.to_string(),
            workflow_id: event.workflow_id,
            creator_uid: event.creator_uid,
            what: Some(what),
        }
    }
}

impl TryFrom<wire::MachineEvent> for MachineEvent {
    type Error = Malformed;

    fn try_from(event: wire::MachineEvent) -> Result<Self, Malformed> {
        let what = match required(event.what, "what")? {
            What::Created(wire::MachineCreated { image }) => Happening::Created { image },
            What::Ready(_) => Happening::Ready,
            What::ExecStarted(wire::MachineExecStarted { exec_id }) => Happening::ExecStarted { exec_id },
            What::ExecEnded(wire::MachineExecEnded { exec_id, verdict }) => Happening::ExecEnded {
                exec_id,
                verdict: required(verdict, "exec_ended.verdict")?.try_into()?,
            },
            What::Ending(_) => Happening::Ending,
            What::Ended(verdict) => Happening::Ended { verdict: verdict.try_into()? },
            What::SetupFailed(why) => Happening::SetupFailed { why },
        };
        Ok(Self {
            sequence: event.sequence,
            at: from_epoch_us(event.at_us),
            machine: machine_id(&event.machine_id)?,
            workflow_id: event.workflow_id,
            creator_uid: event.creator_uid,
            what,
        })
    }
}
