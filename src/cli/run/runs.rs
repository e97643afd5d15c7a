//! Runs jobs side by side and shows them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::recorded::{self, Book};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::render::{Screen, Style, WorkflowRenderer, summary};
use crate::engine::Secret;
use crate::exit::Exit;
use crate::runtime::Runtime;
use crate::state::log::Mask;
use crate::workflow::{Job, Report, Session};

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
    /// How long the machine of a workflow that has failed stays.
    pub keep_failed: Option<Duration>,
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
        recorded::prune(self.context);
        let slots = Semaphore::new(self.context.slots());
        let running = jobs.into_iter().map(|job| async {
            // The semaphore is never closed; without a slot there would be no run.
            let _slot = slots.acquire().await.map_err(Failure::internal)?;
            self.one(job, &mask).await
        });
        let results = join_all(running).await;
        let mut exits = Vec::new();
        for result in results {
            match result {
                Ok((report, recorded)) => {
                    exits.push(Exit::from(&report));
                    if self.screen.style() == Style::Text {
                        self.screen.note(summary::text(&report, self.screen.palette));
                        self.screen.note(summary::way_in(&report, recorded));
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

    /// The report, and whether the run is remembered.
    async fn one(&self, job: Job, mask: &Mask) -> Result<(Report, bool), Failure> {
        let book = Book::open(self.context, self.screen, &job, mask).await?;
        let log = book.log().clone();
        let (events, kept_events) = mpsc::unbounded_channel();
        let (shown_events, event_queue) = mpsc::unbounded_channel();
        let names = job.plan.steps.iter().map(|step| step.name.clone()).collect();
        let workflow = job.plan.name.clone();
        let run = book.run().cloned();
        let mut renderer =
            WorkflowRenderer::new(Arc::clone(self.screen), workflow, self.labelled, names).recorded_as(run);
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
        let mut session =
            Session::new(Arc::clone(&self.runtime), job, log.clone(), events, self.cancel.clone());
        session.add_secrets(self.secrets).map_err(|error| Failure::usage(error.to_string()))?;
        if let Some(limit) = self.keep_failed {
            session = session.keeping_failed(limit);
        }
        // The events end with the session.
        let (report, ()) = tokio::join!(crate::workflow::run(session), book.keep(kept_events, shown_events));
        self.end_showing(showing, &report).await;
        let report = summary::masked(report, mask);
        let recorded = book.close(&report).await;
        recorded::prune(self.context);
        if self.screen.style() == Style::Json {
            let line = format!("{}\n", summary::json(&report)).into_bytes();
            tokio::select! {
                _ = self.screen.output(line) => {}
                () = self.interrupted(&report) => {}
            }
        }
        Ok((report, recorded))
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
