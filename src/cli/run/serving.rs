//! An embedded run's API: while it lives, `creel ps`, `exec`, `rm` and the like reach its machines from other terminals.
//!
//! Who runs `creel run` alone may use it. The run waits for none of its callers: what is still being answered at its end
//! has a moment, at the time at which the last output goes out as well.

use std::io;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{RolePolicy, Server};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::error::with_causes;
use crate::machines::Machines;
use crate::runtime::MachineId;
use crate::runtime::microvm::directory::{DirectoryError, RunDir, RunSocket};

/// How long the answers that are under way at the run's end may take, such as that of the `creel rm` that ended it.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

/// The server; dropped, it ends at once.
#[derive(Debug)]
pub(super) struct Serving {
    /// `None` once nobody shall find it any more.
    socket: Option<RunSocket>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// Why a run does without. It runs all the same.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Serving {
    /// # Errors
    /// Why this run can't be reached, as a sentence.
    pub(super) fn start(context: &Context, machines: Machines) -> Result<Self, String> {
        let scratch = context.scratch().map_err(|error: Failure| error.to_string())?.to_owned();
        let (socket, listener) = listen(context).map_err(|error| with_causes(&error))?;
        let uid = rustix::process::geteuid().as_raw();
        let roles = RolePolicy { operator_uids: vec![uid], operator_gid: None, spindle_gid: None };
        let server = Server { machines, workflows: None, images: context.images().clone(), scratch, roles };
        let shutdown = CancellationToken::new();
        let serving = server.serve(listener, shutdown.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%error, "this run can't be reached any more");
            }
        });
        Ok(Self { socket: Some(socket), shutdown, task })
    }

    /// Ends it: from now on nobody finds it, and those who are being answered have a moment.
    pub(super) async fn end(mut self) {
        self.socket = None;
        self.shutdown.cancel();
        let _ = timeout(LAST_ANSWERS, &mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.task.abort();
    }
}

fn listen(context: &Context) -> Result<(RunSocket, UnixListener), NotServed> {
    let run_dir = RunDir::open(&context.config().places.run)?;
    // Removes those of killed runs as well.
    run_dir.run_sockets()?;
    let (socket, listener) = run_dir.listen(MachineId::random()?.as_str())?;
    listener.set_nonblocking(true)?;
    Ok((socket, UnixListener::from_std(listener)?))
}
