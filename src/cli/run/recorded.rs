//! Remembering runs: each has a record and a log in its user's state directory. Where that can't be written, the run goes on
//! with a log without a name, and says so.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::cli::context::Context;
use crate::cli::failure::{Failure, with_causes};
use crate::cli::render::Screen;
use crate::runtime::{MachineId, Outcome, SetupFailure, Verdict};
use crate::state::log::{Limits, LogStore, Mask};
use crate::state::records::{Record, RecordState, RecordWriter};
use crate::workflow::{Ending, Job, Report, WorkflowEvent};

/// Where a run's log goes, and what becomes of the run.
#[derive(Debug)]
pub(super) enum Book {
    Recorded { run: MachineId, writer: Arc<RecordWriter>, screen: Arc<Screen> },
    Unrecorded(LogStore),
}

impl Book {
    /// Begins a record, before anything else of the run is there.
    ///
    /// # Errors
    /// When there can be no log at all.
    pub(super) async fn open(
        context: &Context,
        screen: &Arc<Screen>,
        job: &Job,
        mask: &Mask,
    ) -> Result<Self, Failure> {
        let limits = Limits::of_step(context.max_step_log_bytes());
        let uid = rustix::process::getuid().as_raw();
        let mut record =
            Record::new(job.id.clone(), job.workflow_id.clone(), job.tenant.clone(), uid, &job.plan);
        record.image.clone_from(&job.image);
        let (records, of_record) = (context.records(), mask.clone());
        let begun = tokio::task::spawn_blocking(move || records.begin(record, limits, of_record));
        match begun.await.map_err(Failure::internal)? {
            Ok(writer) => Ok(Self::Recorded { run: job.id.clone(), writer, screen: Arc::clone(screen) }),
            Err(error) => {
                screen.note(format!("note: {}; the run goes on, and is not remembered", with_causes(&error)));
                let log = LogStore::anonymous(context.scratch()?, limits, mask.clone());
                Ok(Self::Unrecorded(log.map_err(Failure::host)?))
            }
        }
    }

    pub(super) fn log(&self) -> &LogStore {
        match self {
            Self::Recorded { writer, .. } => writer.log(),
            Self::Unrecorded(log) => log,
        }
    }

    /// What it is remembered as.
    pub(super) fn run(&self) -> Option<&MachineId> {
        match self {
            Self::Recorded { run, .. } => Some(run),
            Self::Unrecorded(_) => None,
        }
    }

    /// Writes down what is told until there is no more, and passes it on at once: nobody waits for the disk.
    pub(super) async fn keep(
        &self,
        mut events: mpsc::UnboundedReceiver<WorkflowEvent>,
        shown: mpsc::UnboundedSender<WorkflowEvent>,
    ) {
        while let Some(event) = events.recv().await {
            let kept = event.clone();
            let _ = shown.send(event);
            match kept {
                // Most often it is named like its run, and there is nothing to write.
                WorkflowEvent::SetupEnded { machine: Some(machine), .. } if self.run() != Some(&machine) => {
                    self.update(|record| record.machine = Some(machine)).await;
                }
                WorkflowEvent::StepEnded { index, verdict } => {
                    let set = move |record: &mut Record| {
                        if let Some(step) = record.steps.get_mut(index) {
                            step.verdict = Some(verdict);
                        }
                    };
                    self.update(set).await;
                }
                _ => {}
            }
        }
    }

    /// Writes down how it ended; the run is over with that. Whether it is remembered.
    pub(super) async fn close(self, report: &Report) -> bool {
        let (setup_error, verdict) = match &report.ending {
            Ending::Success => (None, Some(Verdict::of(Outcome::Exited { code: 0 }))),
            Ending::StepFailed => (None, report.failed_step().map(|step| step.verdict.clone())),
            Ending::SetupFailed(error) => {
                let verdict = match &error.failure {
                    SetupFailure::Ended(outcome) => Some(Verdict::of(outcome.clone())),
                    SetupFailure::BadInput(_) | SetupFailure::HostCannot(_) => None,
                };
                (Some(error.to_string()), verdict)
            }
        };
        let end = move |record: &mut Record| {
            record.state = RecordState::Ended;
            record.ended_at = Some(Timestamp::now());
            (record.setup_error, record.verdict) = (setup_error, verdict);
        };
        self.update(end).await;
        self.run().is_some()
    }

    async fn update(&self, change: impl FnOnce(&mut Record) + Send + 'static) {
        let Self::Recorded { writer, screen, .. } = self else { return };
        let of_task = Arc::clone(writer);
        let updated = tokio::task::spawn_blocking(move || of_task.update(change)).await;
        match updated {
            Ok(Ok(())) => {}
            Ok(Err(error)) => screen.note(format!("note: {}", with_causes(&error))),
            Err(error) => tracing::warn!(%error, "failed to write a record"),
        }
    }
}

/// Removes what is beyond the bounds, beside everything else.
pub(super) fn prune(context: &Context) {
    let records = context.records();
    tokio::task::spawn_blocking(move || match records.prune() {
        Ok(pruned) => {
            for error in pruned.failed {
                tracing::warn!(error = with_causes(&error), "failed to remove an old run");
            }
        }
        // That the directory is not as it should be is told by the run that is not remembered.
        Err(error) => tracing::info!(error = with_causes(&error), "failed to look for old runs"),
    });
}
