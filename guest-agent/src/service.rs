//! The agent as a service: something else has booted the machine and looks after it.

use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::connect::{Endpoint, EndpointError};
use crate::poweroff;
use crate::reaper::Reaper;
use crate::serve::serve;
use crate::sys;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("failed to hide this process's memory from others: {0}")]
    HideMemory(#[source] io::Error),
    #[error("failed to start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("failed to watch for exits of children: {0}")]
    Reaper(#[source] io::Error),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// Serves until power off. With an endpoint of its own the agent is a plain process on somebody's
/// machine, which it then leaves running.
pub fn run(connect: Option<Endpoint>) -> Result<(), ServiceError> {
    let (endpoint, owns_machine) = match connect {
        Some(endpoint) => (endpoint, false),
        None => (Endpoint::of_this_machine()?, true),
    };
    // Also where programs run as the same user as the agent: none of them is to find the machine key (crate::resume).
    sys::hide_memory().map_err(ServiceError::HideMemory)?;
    runtime().map_err(ServiceError::Runtime)?.block_on(async {
        let reaper = Reaper::start().map_err(ServiceError::Reaper)?;
        serve(&endpoint, &reaper).await;
        if owns_machine {
            poweroff::by_the_image(&reaper).await;
        }
        Ok(())
    })
}

/// One thread: the reaper's rules rest on it, and a guest has few processors.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
}
