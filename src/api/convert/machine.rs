//! Machines as they are listed.

use creel_proto::v1 as wire;

use super::{Malformed, from_epoch_us, since_epoch_us};
use crate::machines::{State, Summary};
use crate::runtime::{MachineFacts, MachineId};

impl From<State> for wire::MachineState {
    fn from(state: State) -> Self {
        match state {
            State::SettingUp => Self::SettingUp,
            State::Ready => Self::Ready,
            State::Ending => Self::Ending,
            State::Ended => Self::Ended,
        }
    }
}

pub(super) fn state(number: i32) -> Result<State, Malformed> {
    match wire::MachineState::try_from(number) {
        Ok(wire::MachineState::SettingUp) => Ok(State::SettingUp),
        Ok(wire::MachineState::Ready) => Ok(State::Ready),
        Ok(wire::MachineState::Ending) => Ok(State::Ending),
        Ok(wire::MachineState::Ended) => Ok(State::Ended),
        Ok(wire::MachineState::Unspecified) | Err(_) => Err(Malformed::unknown("state", number)),
    }
}

impl From<Summary> for wire::Machine {
    fn from(summary: Summary) -> Self {
        let facts = summary.facts;
        Self {
            id: summary.id.to_string(),
            state: wire::MachineState::from(summary.state).into(),
            image: summary.image,
            workflow_id: summary.workflow_id,
            creator_uid: summary.creator_uid,
            created_at_us: since_epoch_us(summary.created_at),
            memory_mib: facts.memory_mib,
            vcpus: facts.vcpus,
            accel: facts.accel,
            transport: facts.transport,
            cid: facts.cid,
            keeper_pid: facts.keeper_pid,
            cgroup: facts.cgroup.map(|path| path.to_string_lossy().into_owned()),
            execs: summary.execs,
            usage: summary.usage.map(Into::into),
            verdict: summary.verdict.map(Into::into),
            ended_at_us: summary.ended_at.map(since_epoch_us),
            memory_limit_mib: facts.memory_limit_mib,
        }
    }
}

impl TryFrom<wire::Machine> for Summary {
    type Error = Malformed;

    fn try_from(machine: wire::Machine) -> Result<Self, Malformed> {
        Ok(Self {
            id: machine_id(&machine.id)?,
            state: state(machine.state)?,
            facts: MachineFacts {
                image: machine.image.clone(),
                memory_mib: machine.memory_mib,
                vcpus: machine.vcpus,
                accel: machine.accel,
                transport: machine.transport,
                cid: machine.cid,
                keeper_pid: machine.keeper_pid,
                cgroup: machine.cgroup.map(Into::into),
                memory_limit_mib: machine.memory_limit_mib,
            },
            image: machine.image,
            workflow_id: machine.workflow_id,
            creator_uid: machine.creator_uid,
            created_at: from_epoch_us(machine.created_at_us),
            execs: machine.execs,
            usage: machine.usage.map(Into::into),
            verdict: machine.verdict.map(TryInto::try_into).transpose()?,
            ended_at: machine.ended_at_us.map(from_epoch_us),
        })
    }
}

/// A machine's id, as somebody wrote it.
pub(in crate::api) fn machine_id(text: &str) -> Result<MachineId, Malformed> {
    MachineId::parse(text).ok_or_else(|| {
        let shown = crate::text::one_line(text, 40);
        Malformed(format!("`{shown}` is not a machine's id: those have ten lower-case letters and digits"))
    })
}
