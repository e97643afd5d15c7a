//! What can end a setup from outside: its deadline, or somebody who no longer wants it.

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::runtime::Outcome;

/// A deadline and a cancel, to be waited for together.
#[derive(Debug, Clone)]
pub(super) struct Interrupt {
    pub deadline: Option<Instant>,
    pub cancel: CancellationToken,
}

impl Interrupt {
    /// Waits for whichever comes first, and names it.
    pub(super) async fn raised(&self) -> Outcome {
        let out_of_time = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = out_of_time => Outcome::TimedOut,
            () = self.cancel.cancelled() => Outcome::Cancelled,
        }
    }
}
