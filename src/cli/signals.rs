//! SIGINT, SIGTERM and SIGHUP cancel the run; teardown still happens.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::Failure;

/// Cancels `token` at the first signal. Further ones are taken and ignored: what is left to do is
/// bounded in time, and an end in the midst of it is what would leave something behind.
///
/// # Errors
/// When the handlers can't be installed.
pub(in crate::cli) fn cancel_on_signals(token: CancellationToken) -> Result<(), Failure> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(Failure::internal)?;
        let token = token.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                token.cancel();
            }
        });
    }
    Ok(())
}
