//! The task that owns one workflow.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use super::entry::{Entry, Made, Order};
use super::key::Key;
use super::progress::{Progress, State};
use super::registry::Shared;
use crate::engine::{Plan, Secret};
use crate::error::with_causes;
use crate::machines::ListedRuntime;
use crate::runtime::{Outcome, SetupError, Verdict};
use crate::spans;
use crate::state::log::{Limits, Mask};
use crate::state::records::{Record, RecordState, RecordWriter};
use crate::workflow::{Job, Session, WorkflowEvent};

/// A runtime ends setups and steps at their deadline itself; one that does not within this time is told to.
const LATE: Duration = Duration::from_secs(15);

/// What the task works with.
#[derive(Debug)]
pub(super) struct Owner {
    pub shared: Arc<Shared>,
    pub entry: Arc<Entry>,
    pub inbox: mpsc::UnboundedReceiver<Order>,
}

/// Why a workflow does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Destroyed,
    Draining,
    Late,
    Cancelled,
}

impl Reason {
    fn verdict(self) -> Verdict {
        let (outcome, detail) = match self {
            Self::Destroyed => (Outcome::Cancelled, Some("destroyed before it had ended")),
            Self::Draining => (Outcome::Cancelled, Some("creeld was shut down")),
            Self::Late => (Outcome::TimedOut, None),
            Self::Cancelled => (Outcome::Cancelled, None),
        };
        Verdict { detail: detail.map(str::to_owned), ..Verdict::of(outcome) }
    }
}

impl Owner {
    /// Lives as long as the workflow.
    pub(super) async fn own(mut self, plan: Plan) {
        let Entry { key, machine_id, .. } = &*self.entry;
        let span = info_span!(
            "workflow",
            uid = key.creator_uid,
            tenant = %spans::one(&key.name.tenant),
            workflow = %key.name.workflow_id,
            machine = %machine_id
        );
        async {
            match self.begin(&plan).await {
                Ok(writer) => self.live(plan, writer).await,
                Err(why) => {
                    warn!(%why, "the workflow can't be recorded");
                    self.entry.made.send_replace(Made::Failed(why));
                }
            }
        }
        .instrument(span)
        .await;
    }

    /// Its record and its log, before anything else of it is.
    async fn begin(&self, plan: &Plan) -> Result<Arc<RecordWriter>, String> {
        let Key { name, creator_uid } = self.entry.key.clone();
        let id = self.entry.machine_id.clone();
        let mut record = Record::new(id, name.workflow_id, name.tenant, creator_uid, plan);
        // The same after a restart.
        record.created_at = self.entry.created_at.try_into().unwrap_or(record.created_at);
        let limits = Limits::of_step(self.shared.settings().step_log_bytes);
        let records = self.shared.records.clone();
        let begun = tokio::task::spawn_blocking(move || records.begin(record, limits, Mask::none())).await;
        let begun = begun.map_err(|error| error.to_string())?;
        let writer = begun.map_err(|error| with_causes(&error))?;
        *self.entry.writer() = Some(Arc::clone(&writer));
        self.entry.made.send_replace(Made::Yes);
        info!(name = %self.entry.name, image = %self.entry.image, "a workflow is planned");
        Ok(writer)
    }

    async fn live(&mut self, plan: Plan, writer: Arc<RecordWriter>) {
        let mut session = None;
        match self.first_order().await {
            Err(reason) => self.stop(reason),
            Ok(()) => session = Some(self.work(plan, &writer).await),
        }
        self.shared.slots.withdraw(self.entry.serial);
        info!(verdict = %self.verdict(), "the workflow has stopped");
        let has_machine = session.as_ref().is_some_and(|session| session.machine().is_some());
        if has_machine || self.entry.cancel.is_cancelled() {
            let stopped = self.entry.progress.borrow().clone();
            self.record(&writer, &stopped).await;
            self.over().await;
        }
        let unfreed = match &mut session {
            Some(session) => session.tear_down().await.teardown_error.clone(),
            None => {
                if let Err(error) = writer.log().seal() {
                    warn!(error = %with_causes(&error), "failed to end the log");
                }
                None
            }
        };
        let at = SystemTime::now();
        let mut ended = self.entry.progress.borrow().clone();
        ended.end(at, None);
        self.record(&writer, &ended).await;
        // It is a record like others from here on: old ones go when there are too many. What is read of it goes on.
        writer.log().forget_secrets();
        let kept = self.entry.writer().take();
        drop((session, kept, writer));
        self.shared.slots.leave(self.entry.serial);
        self.shared.machines.metrics().workflow_ended(&self.verdict().outcome);
        self.entry.advance(|progress| progress.end(at, unfreed));
        info!(verdict = %self.verdict(), "the workflow has ended");
        self.shared.prune();
    }

    /// Waits until somebody wants its machine.
    async fn first_order(&mut self) -> Result<(), Reason> {
        tokio::select! {
            biased;
            reason = reason(&self.shared, &self.entry) => Err(reason),
            // The entry has a sender.
            Some(_) = self.inbox.recv() => Ok(()),
        }
    }

    /// From the setup until it has stopped.
    async fn work(&mut self, plan: Plan, writer: &Arc<RecordWriter>) -> Session {
        let runtime = ListedRuntime::new(self.shared.machines.clone(), self.entry.key.creator_uid);
        let job = Job {
            id: self.entry.machine_id.clone(),
            // The caller's, so that logs, lists and the guest name it as he does. What must be unique has the machine's.
            workflow_id: self.entry.key.name.workflow_id.clone(),
            tenant: self.entry.key.name.tenant.clone(),
            image: self.entry.image.clone(),
            plan,
            source: None,
            deadline: Some(self.entry.deadline),
        };
        let (events, said) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut session = Session::new(Arc::new(runtime), job, writer.log().clone(), events, stop.clone());
        let result = self.set_up(&mut session, said, &stop).await;
        let ready = result.is_ok();
        self.entry.advance(|progress| progress.set_up(result));
        if ready {
            self.steps(&mut session, writer, &stop).await;
        }
        session
    }

    async fn set_up(
        &self,
        session: &mut Session,
        mut said: mpsc::UnboundedReceiver<WorkflowEvent>,
        stop: &CancellationToken,
    ) -> Result<(), SetupError> {
        let say = |event| {
            if let WorkflowEvent::Setup(event) = event {
                self.entry.say(event);
            }
        };
        let listen = async {
            while let Some(event) = said.recv().await {
                say(event);
            }
            pending().await
        };
        let result = tokio::select! {
            result = session.setup() => result,
            never = self.interrupt(stop) => never,
            never = listen => never,
        };
        while let Ok(event) = said.try_recv() {
            say(event);
        }
        result
    }

    /// One step after the other, as they are asked for.
    async fn steps(&mut self, session: &mut Session, writer: &Arc<RecordWriter>, stop: &CancellationToken) {
        while self.entry.progress.borrow().state() == State::Running {
            let order = tokio::select! {
                biased;
                reason = reason(&self.shared, &self.entry) => return self.stop(reason),
                order = self.inbox.recv() => order,
            };
            let running = self.entry.progress.borrow().running();
            let (Some(Order::Step(secrets)), Some(index)) = (order, running) else { continue };
            let verdict = self.step(session, writer, index, secrets, stop).await;
            // Written down before anybody is told: who was told may ask again after a restart.
            let mut after = self.entry.progress.borrow().clone();
            after.step_ended(verdict.clone());
            self.record(writer, &after).await;
            self.entry.advance(|progress| progress.step_ended(verdict));
        }
    }

    async fn step(
        &self,
        session: &mut Session,
        writer: &Arc<RecordWriter>,
        index: usize,
        secrets: Vec<(String, Secret)>,
        stop: &CancellationToken,
    ) -> Verdict {
        if let Err(error) = known_from_now_on(session, writer, secrets).await {
            // A step whose secrets can't be masked does not run.
            return Verdict::of(Outcome::internal(error));
        }
        let stepped = tokio::select! {
            stepped = session.step(index) => stepped,
            never = self.interrupt(stop) => never,
        };
        match stepped {
            Ok(report) => report.verdict,
            Err(order) => Verdict::of(Outcome::internal(order)),
        }
    }

    /// Ends what the session does once there is a reason to; never returns.
    async fn interrupt<T>(&self, stop: &CancellationToken) -> T {
        tokio::select! {
            () = self.entry.destroy.cancelled() => {}
            () = self.entry.cancel.cancelled() => {}
            () = sleep_until(self.entry.deadline + LATE) => warn!("the runtime does not keep the deadline"),
        }
        stop.cancel();
        pending().await
    }

    /// Waits until nothing of it shall be left.
    async fn over(&self) {
        tokio::select! {
            () = self.entry.destroy.cancelled() => {}
            () = self.shared.draining.cancelled() => {}
            () = sleep_until(self.entry.deadline) => {}
        }
    }

    fn stop(&self, reason: Reason) {
        self.entry.advance(|progress| progress.stop(reason.verdict()));
    }

    fn verdict(&self) -> Verdict {
        let verdict = self.entry.progress.borrow().verdict().cloned();
        verdict.unwrap_or_else(|| Reason::Cancelled.verdict())
    }

    /// Writes down how far it has come.
    async fn record(&self, writer: &Arc<RecordWriter>, progress: &Progress) {
        let verdicts: Vec<_> = progress.steps().iter().map(|step| step.verdict.clone()).collect();
        let (verdict, ended_at) = (progress.verdict().cloned(), progress.ended_at());
        let writer = Arc::clone(writer);
        let writing = move || {
            writer.update(|record| {
                for (step, verdict) in record.steps.iter_mut().zip(verdicts) {
                    step.verdict = verdict;
                }
                record.verdict = verdict;
                if let Some(at) = ended_at {
                    record.state = RecordState::Ended;
                    record.ended_at = at.try_into().ok();
                }
            })
        };
        let written = tokio::task::spawn_blocking(writing).await;
        let written = written.map_err(|error| error.to_string());
        if let Err(why) = written.and_then(|written| written.map_err(|error| with_causes(&error))) {
            warn!(%why, "the record is not up to date");
        }
    }
}

impl Drop for Owner {
    /// The task ends in an orderly way by [`Owner::live`], and then only the last line has something to do; the rest is
    /// for one that panics.
    fn drop(&mut self) {
        let lost =
            || Verdict::of(Outcome::internal("the task that owned the workflow ended without a verdict"));
        self.entry.made.send_if_modified(|made| {
            let never = *made == Made::NotYet;
            if never {
                *made = Made::Failed("the task that owned it ended".to_owned());
            }
            never
        });
        // What a task that panicked has left open; followers wait for its end.
        let left = self.entry.writer().take();
        if let Some(Err(error)) = left.as_ref().map(|writer| writer.log().seal()) {
            warn!(error = %with_causes(&error), "failed to end the log");
        }
        drop(left);
        self.entry.advance(|progress| {
            progress.stop(lost());
            progress.end(SystemTime::now(), None);
        });
        self.shared.slots.leave(self.entry.serial);
        self.shared.ended(&self.entry);
    }
}

/// Waits for a reason not to go on. The first of several is the one that leaves least.
async fn reason(shared: &Shared, entry: &Entry) -> Reason {
    tokio::select! {
        biased;
        () = entry.destroy.cancelled() => Reason::Destroyed,
        () = shared.draining.cancelled() => Reason::Draining,
        () = sleep_until(entry.deadline) => Reason::Late,
        () = entry.cancel.cancelled() => Reason::Cancelled,
    }
}

/// Masks first, off the executor: that takes a while for large ones.
async fn known_from_now_on(
    session: &mut Session,
    writer: &Arc<RecordWriter>,
    secrets: Vec<(String, Secret)>,
) -> Result<(), String> {
    if secrets.is_empty() {
        return Ok(());
    }
    let log = writer.log().clone();
    let masking = move || {
        let masked = log.mask_also(secrets.iter().map(|(_, secret)| secret.expose().as_bytes()));
        masked.map(|()| secrets)
    };
    let masked = tokio::task::spawn_blocking(masking).await.map_err(|error| error.to_string())?;
    let secrets = masked.map_err(|error| with_causes(&error))?;
    session.add_secrets(&secrets).map_err(|error| with_causes(&error))
}
