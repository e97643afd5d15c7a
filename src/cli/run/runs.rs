//! Runs jobs side by side and shows them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{Screen, Style, WorkflowRenderer, summary};
use crate::engine::Secret;
use crate::runtime::Runtime;
use crate::state::log::{Limits, LogStore, Mask};
use crate::workflow::{Job, Report};

/// How long a renderer may go on after a run that was told to end.
const LAST_OUTPUT: Duration = Duration::from_millis(300);

/// What all runs share.
pub(super) struct Runs<'a> {
    pub context: &'a Context,
    pub screen: &'a Arc<Screen>,
    pub secrets: &'a [(String, Secret)],
    pub runtime: Arc<dyn Runtime>,
    pub cancel: CancellationToken,
    /// Several workflows: each line says whose it is.
    pub labelled: bool,
}

impl Runs<'_> {
    /// Runs all jobs, each to its own end whatever becomes of the others.
    ///
    /// # Errors
    /// When none could begin.
    pub(super) async fn all(&self, jobs: Vec<Job>) -> Result<Exit, Failure> {
        let secrets: Vec<&[u8]> = self.secrets.iter().map(|(_, secret)| secret.expose().as_bytes()).collect();
        let mask = Mask::new(&secrets).map_err(|error| Failure::usage(error.to_string()))?;
        if mask.ignored() > 0 {
            self.screen.note("note: secrets of fewer than 3 bytes can't be masked in the output");
        }
        // Until there is a scheduler with budgets: one machine a CPU.
        let at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let slots = Semaphore::new(at_once);
        let running = jobs.into_iter().map(|job| async {
            // The semaphore is never closed; without a slot there would be no run.
            let _slot = slots.acquire().await.map_err(Failure::internal)?;
            self.one(job, &mask).await
        });
        let results = join_all(running).await;
        let mut exits = Vec::new();
        for result in results {
            match result {
                Ok(report) => {
                    exits.push(Exit::from(&report));
                    if self.screen.style() == Style::Text {
                        self.screen.note(summary::text(&report, self.screen.palette));
                    }
                }
                Err(failure) => {
                    exits.push(failure.exit);
                    self.screen.note(format!("creel: {failure}"));
                }
            }
        }
        Ok(Exit::worst(exits))
    }

    async fn one(&self, job: Job, mask: &Mask) -> Result<Report, Failure> {
        let limits = Limits::of_step(self.context.max_step_log_bytes());
        let log =
            LogStore::anonymous(self.context.scratch()?, limits, mask.clone()).map_err(Failure::host)?;
        let (events, event_queue) = mpsc::unbounded_channel();
        let names = job.plan.steps.iter().map(|step| step.name.clone()).collect();
        let workflow = job.plan.name.clone();
        let mut renderer = WorkflowRenderer::new(Arc::clone(self.screen), workflow, self.labelled, names);
        let follower = log.follow(0);
        let cancel = self.cancel.clone();
        // A task of its own: a reader that does not read holds up nothing but itself.
        let showing = tokio::spawn(async move {
            let shown = renderer.show(event_queue, follower).await;
            if shown.is_err() {
                // Nobody can see the output any more (a closed pipe, a full disk behind it).
                cancel.cancel();
            }
            shown
        });
        let report = crate::workflow::run(&*self.runtime, job, &log, events, self.cancel.clone()).await;
        self.end_showing(showing, &report).await;
        let report = summary::masked(report, mask);
        if self.screen.style() == Style::Json {
            let line = format!("{}\n", summary::json(&report)).into_bytes();
            tokio::select! {
                _ = self.screen.output(line) => {}
                () = self.interrupted(&report) => {}
            }
        }
        Ok(report)
    }

    /// Waits until all output is shown: for as long as the reader takes, unless somebody wants the run to end.
    async fn end_showing(&self, showing: tokio::task::JoinHandle<std::io::Result<()>>, report: &Report) {
        let abort = showing.abort_handle();
        tokio::select! {
            shown = showing => {
                if let Ok(Err(error)) = shown {
                    self.screen.note(format!("failed to show the output: {error}"));
                }
            }
            () = self.interrupted(report) => abort.abort(),
        }
    }

    async fn interrupted(&self, report: &Report) {
        if Exit::from(report) != Exit::TimedOut {
            self.cancel.cancelled().await;
        }
        sleep(LAST_OUTPUT).await;
    }
}
