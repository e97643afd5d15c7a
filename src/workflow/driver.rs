//! One workflow from setup to teardown.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument, warn};

use super::event::{WorkflowEvent, WorkflowEvents};
use super::recorder::Recorder;
use super::report::{Ending, Report, StepReport};
use crate::engine::{Action, Plan, Step, StepKind, WORK_DIR, WORKFLOW_USER};
use crate::runtime::{
    DestroyMode, ExecRequest, Machine, OUTPUT_QUEUE_CHUNKS, Outcome, Phase, Runtime, SetupEvent, SetupEvents,
    SetupRequest, Tenant, Verdict, Work,
};
use crate::state::log::{Control, LogError, LogStore, SETUP_STEP, StepStatus, Stream as LogStream};

/// What to run.
#[derive(Debug)]
pub struct Job {
    /// Unique on this host.
    pub workflow_id: String,
    pub tenant: Tenant,
    pub plan: Plan,
    /// The image's name.
    pub image: String,
    pub source: Option<File>,
    /// Covers setup and every step.
    pub deadline: Option<Instant>,
}

/// Runs a job to its end. The machine is destroyed in every case, also after `cancel`; the log is
/// sealed when this returns.
#[instrument(skip_all, fields(workflow = %job.workflow_id))]
pub async fn run(
    runtime: &dyn Runtime,
    job: Job,
    log: &LogStore,
    events: WorkflowEvents,
    cancel: CancellationToken,
) -> Report {
    let driver = Driver { runtime, log, events, cancel, started: Instant::now() };
    let report = driver.run(job).await;
    if let Err(error) = log.seal() {
        warn!(%error, "failed to end the log");
    }
    report
}

struct Driver<'a> {
    runtime: &'a dyn Runtime,
    log: &'a LogStore,
    events: WorkflowEvents,
    cancel: CancellationToken,
    started: Instant,
}

impl Driver<'_> {
    async fn run(&self, job: Job) -> Report {
        let mut report = Report {
            workflow: job.plan.name.clone(),
            phases: Vec::new(),
            setup: Duration::ZERO,
            steps: Vec::new(),
            planned_steps: job.plan.steps.len(),
            teardown: Duration::ZERO,
            teardown_error: None,
            total: Duration::ZERO,
            ending: Ending::Success,
        };
        let request = SetupRequest {
            tenant: job.tenant,
            workflow_id: job.workflow_id.clone(),
            image: job.image,
            work_dir: WORK_DIR.to_owned(),
            source: job.source,
            labels: BTreeMap::from([("sh.tangled.pipeline/workflow_id".to_owned(), job.workflow_id.clone())]),
            architecture: None,
            memory_mib: None,
            vcpus: None,
            batch: Vec::new(),
            deadline: job.deadline,
        };
        let setup = self.setup(request, &mut report.phases).await;
        report.setup = self.started.elapsed();
        match setup {
            Err(error) => report.ending = Ending::SetupFailed(error),
            Ok(machine) => {
                for step in job.plan.steps {
                    let step = self.step(&*machine, &job.workflow_id, step, job.deadline).await;
                    let failed = !step.verdict.outcome.is_success();
                    report.steps.push(step);
                    if failed {
                        report.ending = Ending::StepFailed;
                        break;
                    }
                }
                self.tear_down(&*machine, &mut report).await;
            }
        }
        report.total = self.started.elapsed();
        report
    }

    async fn setup(
        &self,
        request: SetupRequest,
        phases: &mut Vec<(Phase, Duration)>,
    ) -> Result<Box<dyn Machine>, crate::runtime::SetupError> {
        self.control(SETUP_STEP, StepStatus::Start, StepKind::System, "machine setup", "");
        let (setup_events, mut queue) = SetupEvents::new();
        let setup = self.runtime.setup(request, setup_events, self.cancel.clone());
        let listen = async {
            while let Some(event) = queue.recv().await {
                if let SetupEvent::Finished(phase, took) = event {
                    phases.push((phase, took));
                }
                let _ = self.events.send(WorkflowEvent::Setup(event));
            }
        };
        // The setup's sender goes with it, so both end.
        let (result, ()) = tokio::join!(setup, listen);
        let said = result.as_ref().err().map(ToString::to_string).unwrap_or_else(|| "ok".to_owned());
        self.control(SETUP_STEP, StepStatus::End, StepKind::System, "machine setup", &said);
        let _ = self.events.send(WorkflowEvent::SetupEnded { took: self.started.elapsed() });
        result
    }

    async fn step(
        &self,
        machine: &dyn Machine,
        workflow_id: &str,
        step: Step,
        deadline: Option<Instant>,
    ) -> StepReport {
        let Step { index, name, kind, command, action } = step;
        info!(step = index, %name, "step starts");
        let started = WorkflowEvent::StepStarted { index, name: name.clone(), kind };
        let _ = self.events.send(started);
        let log_index = i32::try_from(index).unwrap_or(i32::MAX);
        self.control(log_index, StepStatus::Start, kind, &command, "");
        let work = match action {
            Action::UnpackSource { destination } => {
                Work::UnpackSource { destination, user: WORKFLOW_USER.to_owned() }
            }
            Action::Exec(exec) => {
                Work::Program { argv: exec.argv, env: exec.env.into_vec(), cwd: exec.cwd, user: exec.user }
            }
        };
        let request = ExecRequest { id: format!("{workflow_id}-{index}"), work, deadline };
        let verdict = self.exec(machine, request, log_index).await;
        self.control(log_index, StepStatus::End, kind, &command, &verdict.to_string());
        info!(step = index, verdict = %verdict, "step ended");
        let _ = self.events.send(WorkflowEvent::StepEnded { index, verdict: verdict.clone() });
        StepReport { index, name, kind, verdict }
    }

    async fn exec(&self, machine: &dyn Machine, request: ExecRequest, step: i32) -> Verdict {
        let (stdout, stderr) =
            (self.log.appender(step, LogStream::Stdout), self.log.appender(step, LogStream::Stderr));
        let (output, queue) = mpsc::channel(OUTPUT_QUEUE_CHUNKS);
        let cancel = self.cancel.child_token();
        let exec = machine.exec(request, output, cancel.clone());
        let record = async {
            let recorded = Recorder::new(stdout, stderr).record(queue).await;
            if recorded.is_err() {
                // A step whose output can't be kept does not go on.
                cancel.cancel();
            }
            recorded
        };
        let (mut verdict, recorded) = tokio::join!(exec, record);
        if let Err(error) = recorded {
            verdict.outcome = match error {
                LogError::DiskFull { .. } => Outcome::HostDiskFull { detail: error.to_string() },
                other => Outcome::internal(other),
            };
        }
        verdict
    }

    async fn tear_down(&self, machine: &dyn Machine, report: &mut Report) {
        let _ = self.events.send(WorkflowEvent::TeardownStarted);
        let started = Instant::now();
        // Whoever waits for a verdict that interrupts does not wait for the guest as well.
        let hurried = match report.failed_step().map(|step| &step.verdict.outcome) {
            None | Some(Outcome::Exited { .. } | Outcome::Signalled { .. }) => false,
            Some(_) => true,
        };
        let mode =
            if hurried || self.cancel.is_cancelled() { DestroyMode::Kill } else { DestroyMode::Graceful };
        // Who loses patience while the guest powers off gets it killed.
        let destroyed = tokio::select! {
            destroyed = machine.destroy(mode) => destroyed,
            () = self.cancel.cancelled(), if mode == DestroyMode::Graceful => machine.destroy(DestroyMode::Kill).await,
        };
        if let Err(error) = destroyed {
            warn!(%error, machine = %machine.id(), "failed to free all that the machine held");
            report.teardown_error = Some(error);
        }
        report.teardown = started.elapsed();
    }

    fn control(&self, step: i32, status: StepStatus, kind: StepKind, command: &str, said: &str) {
        let control = Control {
            step_status: status,
            step_kind: kind.as_str().to_owned(),
            step_command: command.to_owned(),
            content: said.to_owned(),
        };
        if let Err(error) = self.log.control(step, &control) {
            warn!(%error, "failed to log a step's status");
        }
    }
}
