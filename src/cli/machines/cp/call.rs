//! How something is done in a machine.

use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, Client};
use crate::runtime::{ExecStreams, MachineId, Verdict, Work};

/// A machine to work in.
pub(super) trait Call {
    /// Does it on these streams, until it has ended or `cancel` ends it.
    fn run(
        &self,
        work: Work,
        streams: ExecStreams,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Verdict, ApiError>>;
}

/// One that a daemon or an embedded run has.
#[derive(Debug)]
pub(super) struct Served {
    pub client: Client,
    pub machine: MachineId,
}

impl Call for Served {
    async fn run(
        &self,
        work: Work,
        streams: ExecStreams,
        cancel: &CancellationToken,
    ) -> Result<Verdict, ApiError> {
        self.client.run(&self.machine, work.into(), streams, cancel).await
    }
}
