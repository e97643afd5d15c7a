//! Setups: their progress, and how they fail.

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::{create_event, setup_failure};

use super::{Malformed, microseconds, required};
use crate::runtime::{Phase, SetupError, SetupEvent, SetupFailure};

impl From<Phase> for wire::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Prepare => Self::Prepare,
            Phase::Spawn => Self::Spawn,
            Phase::Boot => Self::Boot,
            Phase::Handshake => Self::Handshake,
        }
    }
}

/// A phase by its number.
pub(super) fn phase(number: i32) -> Result<Phase, Malformed> {
    match wire::Phase::try_from(number) {
        Ok(wire::Phase::Prepare) => Ok(Phase::Prepare),
        Ok(wire::Phase::Spawn) => Ok(Phase::Spawn),
        Ok(wire::Phase::Boot) => Ok(Phase::Boot),
        Ok(wire::Phase::Handshake) => Ok(Phase::Handshake),
        Ok(wire::Phase::Unspecified) | Err(_) => Err(Malformed::unknown("phase", number)),
    }
}

impl From<SetupEvent> for create_event::Event {
    fn from(event: SetupEvent) -> Self {
        let number = |phase| wire::Phase::from(phase).into();
        match event {
            SetupEvent::Started(phase) => Self::PhaseStarted(wire::PhaseStarted { phase: number(phase) }),
            SetupEvent::Finished(phase, took) => {
                Self::PhaseFinished(wire::PhaseFinished { phase: number(phase), took_us: microseconds(took) })
            }
            SetupEvent::Notice(text) => Self::Notice(text),
        }
    }
}

impl TryFrom<wire::PhaseStarted> for SetupEvent {
    type Error = Malformed;

    fn try_from(event: wire::PhaseStarted) -> Result<Self, Malformed> {
        phase(event.phase).map(Self::Started)
    }
}

impl TryFrom<wire::PhaseFinished> for SetupEvent {
    type Error = Malformed;

    fn try_from(event: wire::PhaseFinished) -> Result<Self, Malformed> {
        Ok(Self::Finished(phase(event.phase)?, Duration::from_micros(event.took_us)))
    }
}

impl From<SetupError> for wire::SetupFailure {
    fn from(error: SetupError) -> Self {
        let failure = match error.failure {
            SetupFailure::BadInput(text) => setup_failure::Failure::BadInput(text),
            SetupFailure::HostCannot(text) => setup_failure::Failure::HostCannot(text),
            SetupFailure::Ended(outcome) => setup_failure::Failure::Ended(outcome.into()),
        };
        Self {
            phase: wire::Phase::from(error.phase).into(),
            failure: Some(failure),
            console_tail: error.console_tail.map(Into::into),
            usage: error.usage.map(|usage| (*usage).into()),
        }
    }
}

impl TryFrom<wire::SetupFailure> for SetupError {
    type Error = Malformed;

    fn try_from(message: wire::SetupFailure) -> Result<Self, Malformed> {
        let failure = match required(message.failure, "setup_failure.failure")? {
            setup_failure::Failure::BadInput(text) => SetupFailure::BadInput(text),
            setup_failure::Failure::HostCannot(text) => SetupFailure::HostCannot(text),
            setup_failure::Failure::Ended(outcome) => SetupFailure::Ended(outcome.try_into()?),
        };
        let console_tail = message.console_tail.map(Into::into);
        let usage = message.usage.map(|usage| Box::new(usage.into()));
        Ok(Self { phase: phase(message.phase)?, failure, console_tail, usage })
    }
}
