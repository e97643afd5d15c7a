//! How creeld drains.

use std::ffi::OsString;

use async_trait::async_trait;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::*;
use crate::config::Environment;
use crate::daemon::left::LeftRecords;
use crate::exit::Exit;
use crate::machines::Counts;
use crate::metrics::Metrics;
use crate::runtime::microvm::{Transport, Vsocks};
use crate::state::machines::MachineRecords;

/// Machines that end some time after they are told to.
struct Slow {
    counts: watch::Sender<Counts>,
    takes: Duration,
}

#[async_trait]
impl Service for Slow {
    fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    fn reload(&self, _config: &Config) {}

    async fn serve(&self, _listener: UnixListener, stop: CancellationToken) -> io::Result<()> {
        stop.cancelled().await;
        tokio::time::sleep(self.takes).await;
        self.counts.send_replace(Counts::default());
        Ok(())
    }
}

async fn drained(takes: Duration) -> Result<(), Failure> {
    let home = tempfile::tempdir().unwrap();
    let variables = [(OsString::from("HOME"), home.path().into())];
    let origin = Origin { environment: Environment::of(1, variables), file: None };
    let config = origin.load().unwrap();
    let records = MachineRecords::make(home.path()).unwrap();
    let left = LeftRecords::find(&records).unwrap();
    let runtime = DaemonRuntime::start(&config, Arc::new(Vsocks::new(Transport::Hybrid, 824)), left);
    let service: Arc<dyn Service> =
        Arc::new(Slow { counts: watch::Sender::new(Counts { ready: 3, ..Counts::default() }), takes });
    let listener = UnixListener::bind(home.path().join("socket")).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let serving = tokio::spawn({
        let service = Arc::clone(&service);
        async move { service.serve(listener, stop).await }
    });
    Daemon::new(origin, config, None, runtime, service).drain(serving, &mut Signals::install().unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn machines_get_their_own_time_to_end_and_a_margin() {
    drained(Duration::from_secs(29)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn machines_that_never_end_do_not_keep_creeld_and_are_counted() {
    let failure = drained(Duration::from_secs(3600)).await.unwrap_err();
    assert!(matches!(failure, Failure::Drain(_, 3)), "{failure}");
    assert_eq!(failure.exit(), Exit::Broken);
}
