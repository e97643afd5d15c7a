//! What a host with `creel.exec.2` may do to an exec: attach to it, give it credit and input. It is held to the contract here:
//! an offset that can't be right ends the session, since nothing that follows could be.

use std::sync::Arc;

use creel_proto::agent::{ExecInput, ExecWindow};

use super::lane::lane;
use super::state::{Exec, Outlet};
use crate::input::InputError;
use crate::outbox::Outbox;
use crate::output::Stream;
use crate::ring::OffsetError;

/// How the host broke the contract with an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    #[error("{stream:?} is acknowledged wrongly: {source}")]
    Acknowledged { stream: Stream, source: OffsetError },
    #[error(
        "{stream:?} may be sent up to {limit}, which lies before {acknowledged}, up to where it is acknowledged"
    )]
    LimitBehind { stream: Stream, limit: u64, acknowledged: u64 },
    #[error("an offset of {stream:?} goes back from {from} to {to}")]
    WentBack { stream: Stream, from: u64, to: u64 },
    #[error("ExecStart has no window")]
    NoWindow,
    #[error(transparent)]
    Input(#[from] InputError),
}

impl Exec {
    /// Sends from `window` on to `outbox`: all that it was ever told is told anew.
    ///
    /// # Errors
    /// When the window is of no use. It is attached to nothing new then.
    pub fn attach(self: &Arc<Self>, window: &ExecWindow, outbox: &Outbox) -> Result<(), Breach> {
        let mut state = self.state();
        for (stream, acknowledged, limit) in offsets(window) {
            check_limit(stream, acknowledged, limit)?;
            let ring = &mut state.lanes[lane(stream)].ring;
            let breach = |source| Breach::Acknowledged { stream, source };
            ring.rewind(acknowledged, &self.buffers).map_err(breach)?;
        }
        for (stream, _, limit) in offsets(window) {
            let lane = &mut state.lanes[lane(stream)];
            lane.limit = limit;
            lane.end_told = false;
        }
        state.exit_told = false;
        state.state_due = true;
        // Between two connections it is detached: this one may have heard of it already.
        if !matches!(state.outlet, Outlet::Session { .. }) {
            state.outlet = Outlet::Session { outbox: outbox.clone(), said: false };
        }
        self.announce(&mut state);
        self.say_room();
        Ok(())
    }

    /// What is acknowledged, and how far to send now. One that is not attached does not hear it.
    ///
    /// # Errors
    /// When one of the offsets is wrong.
    pub fn window(self: &Arc<Self>, window: &ExecWindow) -> Result<(), Breach> {
        let mut state = self.state();
        if !matches!(state.outlet, Outlet::Session { .. }) {
            return Ok(());
        }
        for (stream, acknowledged, limit) in offsets(window) {
            check_limit(stream, acknowledged, limit)?;
            let lane = &mut state.lanes[lane(stream)];
            let went_back = |from, to| Err(Breach::WentBack { stream, from, to });
            if limit < lane.limit {
                return went_back(lane.limit, limit);
            }
            if acknowledged < lane.ring.acknowledged() {
                return went_back(lane.ring.acknowledged(), acknowledged);
            }
            let breach = |source| Breach::Acknowledged { stream, source };
            lane.acknowledge(acknowledged, &self.buffers).map_err(breach)?;
            lane.limit = limit;
        }
        self.announce(&mut state);
        self.say_room();
        Ok(())
    }

    /// Input from the host. One that is not attached does not hear it.
    ///
    /// # Errors
    /// When it breaks the contract.
    pub fn input(&self, input: ExecInput) -> Result<(), Breach> {
        let mut state = self.state();
        if !matches!(state.outlet, Outlet::Session { .. }) {
            return Ok(());
        }
        state.input.take(input.offset, input.data, input.end)?;
        self.typed.notify_one();
        Ok(())
    }
}

fn offsets(window: &ExecWindow) -> [(Stream, u64, u64); 2] {
    [
        (Stream::Stdout, window.stdout_acknowledged, window.stdout_limit),
        (Stream::Stderr, window.stderr_acknowledged, window.stderr_limit),
    ]
}

fn check_limit(stream: Stream, acknowledged: u64, limit: u64) -> Result<(), Breach> {
    match limit < acknowledged {
        true => Err(Breach::LimitBehind { stream, limit, acknowledged }),
        false => Ok(()),
    }
}
