//! One workflow from setup to teardown: the steps of its plan in order, within its deadline, in a machine that it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument, warn};

use super::event::{LetGo, WorkflowEvent, WorkflowEvents};
use super::recorder::Recorder;
use super::report::{Ending, Report, StepReport};
use crate::engine::{Action, Plan, Secret, Step, StepKind, WORK_DIR, WORKFLOW_USER};
use crate::runtime::streams::output;
use crate::runtime::{
    DestroyMode, ExecRequest, ExecStreams, Machine, MachineId, Outcome, Runtime, SetupError, SetupEvent,
    SetupEvents, SetupRequest, Tenant, Verdict, Work,
};
use crate::spans;
use crate::state::log::{
    Control, LogError, LogStore, MaskError, SETUP_STEP, StepStatus, Stream as LogStream,
};

/// What to run.
#[derive(Debug)]
pub struct Job {
    /// Of the run and of its machine.
    pub id: MachineId,
    /// Unique on this host; names the work in labels and in the guest.
    pub workflow_id: String,
    pub tenant: Tenant,
    pub plan: Plan,
    /// The image's name.
    pub image: String,
    pub source: Option<File>,
    /// Covers setup and every step.
    pub deadline: Option<Instant>,
}

/// A step that is not the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepOrder {
    #[error("the workflow has no step {index}: it has {count}, counted from 0")]
    Unknown { index: usize, count: usize },
    #[error("step {index} is not the next one: that is step {next}")]
    NotNext { index: usize, next: usize },
    #[error("step {index} does not run, since step {failed} has failed ({outcome})")]
    AfterFailure { index: usize, failed: usize, outcome: Outcome },
    #[error("step {index} can't run: the workflow has no machine")]
    NoMachine { index: usize },
}

/// A workflow under way. One caller drives it; followers of its log and its events watch.
///
/// Dropped before [`Session::tear_down`], its machine is destroyed in the background.
pub struct Session {
    runtime: Arc<dyn Runtime>,
    job: Job,
    secrets: Vec<(String, Secret)>,
    log: LogStore,
    events: WorkflowEvents,
    cancel: CancellationToken,
    started: Instant,
    machine: Option<Box<dyn Machine>>,
    keep_failed: Option<Duration>,
    report: Report,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("workflow", &self.job.workflow_id).finish_non_exhaustive()
    }
}

impl Session {
    /// `cancel` ends whatever goes on: the setup, a step, the wait for a guest to power off.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        job: Job,
        log: LogStore,
        events: WorkflowEvents,
        cancel: CancellationToken,
    ) -> Self {
        let report = Report {
            id: job.id.clone(),
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
        let (secrets, started, machine) = (Vec::new(), Instant::now(), None);
        let keep_failed = None;
        Self { runtime, job, secrets, log, events, cancel, started, machine, keep_failed, report }
    }

    /// After a failed step, [`Self::keep_failed`] keeps the machine for so long.
    #[must_use]
    pub fn keeping_failed(self, limit: Duration) -> Self {
        Self { keep_failed: Some(limit), ..self }
    }

    /// Secrets for the environment of the steps that come; a later one of the same name wins. They are masked in all
    /// that is logged from now on.
    ///
    /// # Errors
    /// When the mask can't be made.
    pub fn add_secrets(&mut self, secrets: &[(String, Secret)]) -> Result<(), MaskError> {
        self.log.mask_also(secrets.iter().map(|(_, secret)| secret.expose().as_bytes()))?;
        for (name, secret) in secrets {
            self.secrets.retain(|(known, _)| known != name);
            self.secrets.push((name.clone(), secret.clone()));
        }
        Ok(())
    }

    /// What has come of it until now.
    pub fn report(&self) -> &Report {
        &self.report
    }

    pub fn plan(&self) -> &Plan {
        &self.job.plan
    }

    /// The machine, from the end of setup until teardown.
    pub fn machine(&self) -> Option<&dyn Machine> {
        self.machine.as_deref()
    }

    /// Makes the machine. Called once.
    ///
    /// # Errors
    /// Then there is none; the report says the same.
    #[instrument(skip_all, fields({ spans::WORKFLOW } = %self.job.workflow_id, { spans::TENANT } = %spans::one(&self.job.tenant), { spans::MACHINE } = %self.job.id))]
    pub async fn setup(&mut self) -> Result<(), SetupError> {
        let request = SetupRequest {
            id: self.job.id.clone(),
            tenant: self.job.tenant.clone(),
            workflow_id: self.job.workflow_id.clone(),
            image: self.job.image.clone(),
            work_dir: WORK_DIR.to_owned(),
            source: self.job.source.take(),
            labels: BTreeMap::from([(
                "sh.tangled.pipeline/workflow_id".to_owned(),
                self.job.workflow_id.clone(),
            )]),
            architecture: None,
            memory_mib: None,
            vcpus: None,
            memory_limit_mib: None,
            batch: Vec::new(),
            deadline: self.job.deadline,
            ledger: None,
        };
        self.control(SETUP_STEP, StepStatus::Start, StepKind::System, "machine setup", "");
        let (setup_events, mut queue) = SetupEvents::new();
        let setup = self.runtime.setup(request, setup_events, self.cancel.clone());
        let (events, phases) = (&self.events, &mut self.report.phases);
        let listen = async {
            while let Some(event) = queue.recv().await {
                if let SetupEvent::Finished(phase, took) = event {
                    phases.push((phase, took));
                }
                let _ = events.send(WorkflowEvent::Setup(event));
            }
        };
        // The setup's sender goes with it, so both end.
        let (result, ()) = tokio::join!(setup, listen);
        let said = result.as_ref().err().map(ToString::to_string).unwrap_or_else(|| "ok".to_owned());
        self.control(SETUP_STEP, StepStatus::End, StepKind::System, "machine setup", &said);
        self.report.setup = self.started.elapsed();
        let machine = result.as_ref().ok().map(|machine| machine.id().clone());
        let _ = self.events.send(WorkflowEvent::SetupEnded { took: self.report.setup, machine });
        match result {
            Ok(machine) => {
                self.machine = Some(machine);
                Ok(())
            }
            Err(error) => {
                self.report.ending = Ending::SetupFailed(error.clone());
                Err(error)
            }
        }
    }

    /// Runs the next step, which must be `index`. A step that fails is a verdict, and no step follows it.
    ///
    /// # Errors
    /// When it is not the next one.
    #[instrument(skip_all, fields({ spans::WORKFLOW } = %self.job.workflow_id, { spans::TENANT } = %spans::one(&self.job.tenant), { spans::MACHINE } = %self.job.id, { spans::STEP } = index))]
    pub async fn step(&mut self, index: usize) -> Result<StepReport, StepOrder> {
        self.check_order(index)?;
        let Some(machine) = self.machine.take() else {
            return Err(StepOrder::NoMachine { index });
        };
        let report = self.run_step(&*machine, self.job.plan.steps[index].clone()).await;
        self.machine = Some(machine);
        if !report.verdict.outcome.is_success() {
            self.report.ending = Ending::StepFailed;
        }
        self.report.steps.push(report.clone());
        Ok(report)
    }

    fn check_order(&self, index: usize) -> Result<(), StepOrder> {
        let (next, count) = (self.report.steps.len(), self.job.plan.steps.len());
        if index >= count {
            return Err(StepOrder::Unknown { index, count });
        }
        if let Some(failed) = self.report.failed_step() {
            let outcome = failed.verdict.outcome.clone();
            return Err(StepOrder::AfterFailure { index, failed: failed.index, outcome });
        }
        if index != next {
            return Err(StepOrder::NotNext { index, next });
        }
        Ok(())
    }

    async fn run_step(&self, machine: &dyn Machine, step: Step) -> StepReport {
        let Step { index, name, kind, command, action } = step;
        info!(%name, "step starts");
        let started = WorkflowEvent::StepStarted { index, name: name.clone(), kind };
        let _ = self.events.send(started);
        let log_index = i32::try_from(index).unwrap_or(i32::MAX);
        self.control(log_index, StepStatus::Start, kind, &command, "");
        let work = match action {
            Action::UnpackSource { destination } => {
                Some(Work::UnpackSource { destination, user: WORKFLOW_USER.to_owned() })
            }
            Action::Exec(exec) => {
                let env = exec.environment_with(&self.secrets).into_vec();
                let user = exec.user.unwrap_or_else(|| WORKFLOW_USER.to_owned());
                Some(Work::Program { argv: exec.argv, env, cwd: exec.cwd, user, terminal: None })
            }
            // `Plan::runnable` keeps such plans away from here.
            Action::ActivateConfig { .. } => None,
        };
        let id = format!("{}-{index}", self.job.workflow_id);
        let verdict = match work {
            Some(work) => {
                let request = ExecRequest { id, work, deadline: self.job.deadline };
                self.exec(machine, request, log_index).await
            }
            None => Verdict::of(Outcome::internal("NixOS configuration is not supported yet")),
        };
        self.control(log_index, StepStatus::End, kind, &command, &verdict.to_string());
        info!(verdict = %verdict, "step ended");
        let _ = self.events.send(WorkflowEvent::StepEnded { index, verdict: verdict.clone() });
        StepReport { index, name, kind, verdict }
    }

    async fn exec(&self, machine: &dyn Machine, request: ExecRequest, step: i32) -> Verdict {
        let (stdout, stderr) =
            (self.log.appender(step, LogStream::Stdout), self.log.appender(step, LogStream::Stderr));
        let (output, reader) = output();
        let cancel = self.cancel.child_token();
        let exec = machine.exec(request, ExecStreams { input: None, output }, cancel.clone());
        let record = async {
            let recorded = Recorder::new(stdout, stderr).record(reader).await;
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

    /// Waits as long as a machine whose step has failed is to be kept: until the time is over, the workflow is cancelled or
    /// the machine ends. The workflow's deadline is none of this wait's. Returns at once where there is nothing to keep.
    pub async fn keep_failed(&self) {
        let (Some(limit), Some(machine)) = (self.keep_failed, &self.machine) else { return };
        if self.report.failed_step().is_none() || self.cancel.is_cancelled() {
            return;
        }
        let mut ended = machine.ended();
        // The step may have failed since its machine did.
        if ended.as_mut().now_or_never().is_some() {
            return;
        }
        let (machine, log_end) = (machine.id().clone(), self.log.next_sequence());
        let _ = self.events.send(WorkflowEvent::Kept { machine, limit, log_end });
        let why = tokio::select! {
            biased;
            verdict = ended => LetGo::Ended(verdict.outcome),
            () = self.cancel.cancelled() => LetGo::Cancelled,
            () = tokio::time::sleep(limit) => LetGo::TimeLimit,
        };
        let _ = self.events.send(WorkflowEvent::LetGo(why));
    }

    /// Ends the machine, if there is one, and the log. Nothing cancels it, and it is bounded in time.
    #[instrument(skip_all, fields({ spans::WORKFLOW } = %self.job.workflow_id, { spans::TENANT } = %spans::one(&self.job.tenant), { spans::MACHINE } = %self.job.id))]
    pub async fn tear_down(&mut self) -> &Report {
        if let Some(machine) = self.machine.take() {
            let _ = self.events.send(WorkflowEvent::TeardownStarted);
            let started = Instant::now();
            if let Err(error) = self.destroy(&*machine).await {
                warn!(%error, machine = %machine.id(), "failed to free all that the machine held");
                self.report.teardown_error = Some(error);
            }
            self.report.teardown = started.elapsed();
        }
        self.report.total = self.started.elapsed();
        if let Err(error) = self.log.seal() {
            warn!(%error, "failed to end the log");
        }
        &self.report
    }

    async fn destroy(&self, machine: &dyn Machine) -> Result<(), String> {
        // Whoever waits for a verdict that interrupts does not wait for the guest as well.
        let hurried = match self.report.failed_step().map(|step| &step.verdict.outcome) {
            None | Some(Outcome::Exited { .. } | Outcome::Signalled { .. }) => false,
            Some(_) => true,
        };
        if hurried || self.cancel.is_cancelled() {
            return machine.destroy(DestroyMode::Kill).await;
        }
        // Who loses patience while the guest powers off gets it killed.
        tokio::select! {
            destroyed = machine.destroy(DestroyMode::Graceful) => destroyed,
            () = self.cancel.cancelled() => machine.destroy(DestroyMode::Kill).await,
        }
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

/// Drives a session to its end. The machine is destroyed in every case, also after it was cancelled; the log is sealed when
/// this returns.
pub async fn run(mut session: Session) -> Report {
    if session.setup().await.is_ok() {
        for index in 0..session.plan().steps.len() {
            match session.step(index).await {
                Ok(step) if step.verdict.outcome.is_success() => {}
                Ok(_) => break,
                Err(order) => {
                    warn!(error = %order, "a step was out of order");
                    break;
                }
            }
        }
    }
    session.keep_failed().await;
    session.tear_down().await.clone()
}
