//! Why creeld ends, and with which code: those of `creel`.

use std::io;

use super::lock::LockError;
use super::sockets::SocketError;
use crate::exit::Exit;
use crate::host::activation::ActivationError;

/// What ends creeld other than a signal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Activation(#[from] ActivationError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("failed to start creeld")]
    Start(#[source] io::Error),
    #[error("the API ended by itself")]
    Serve(#[source] io::Error),
    #[error("the API's task panicked")]
    Panic(#[source] tokio::task::JoinError),
    #[error("machines did not end within {0:?}: {1} left; stop creel-machines.service to end them")]
    Drain(std::time::Duration, usize),
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Activation(_) | Self::Lock(_) | Self::Socket(_) => Exit::HostCannot,
            Self::Start(_) | Self::Serve(_) | Self::Panic(_) | Self::Drain(..) => Exit::Broken,
        }
    }
}
