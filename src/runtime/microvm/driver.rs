//! The task that owns one machine.
//!
//! Requests, QMP events, the keeper's records and the agent's messages come to it; it alone changes
//! the machine's state, and others watch. `evidence` is its judgement of how a machine ended.
//!
//! ```text
//!   booting ──agent connected, Hello, Init──▶ ready ──destroy, evidence, handle dropped──▶ ending ──▶ gone
//!      └────────────────evidence, deadline, cancel─────────────────────────────────────────▲
//! ```
//!
//! *ending* always runs to its end: it asks the guest (when there is time), then QEMU, then the
//! keeper, each within a bound, and drops the leases last.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::evidence::{Evidence, Finding, ProcessEnd, SETTLE, Sign};
use super::greeting::Greeting;
use super::keeper::{Ending, Keeper, KeeperEnd, KeeperEvent};
use super::launch::QEMU;
use super::leases::Leases;
use super::qemu::{Event, Events, Qmp};
use super::work::WorkTable;
use crate::agent::{MAX_DETAIL_CHARS, Session, SessionEvent, SessionEvents};
use crate::host::Exit;
use crate::runtime::{DestroyMode, ExecRequest, Outcome, OutputChunk, Verdict};
use crate::text::one_line;

/// How much of the console a verdict carries.
pub(super) const CONSOLE_TAIL_BYTES: usize = 8192;

/// The bound of each of ending's ways that do not involve the guest.
const END_STEP: Duration = Duration::from_secs(3);

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Request {
    Exec {
        request: ExecRequest,
        output: mpsc::Sender<OutputChunk>,
        reply: oneshot::Sender<Verdict>,
    },
    /// Ends an exec's wait with this outcome; the program itself ends with its machine.
    Abandon {
        id: String,
        outcome: Outcome,
    },
    Destroy {
        mode: DestroyMode,
        reply: Reply,
    },
}

/// Answers a request to destroy: with what could not be freed.
type Reply = oneshot::Sender<Result<(), String>>;

/// What a watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// QEMU runs; the agent has not connected.
    Booting,
    /// The agent has connected and not yet agreed.
    Greeting,
    Ready,
    /// How it ended (cancelled: it was destroyed), its console's last bytes, and what could not be freed.
    Gone {
        outcome: Outcome,
        console_tail: Vec<u8>,
        freed: Result<(), String>,
    },
}

/// A machine's parts, as setup hands them over.
#[derive(Debug)]
pub(super) struct Parts {
    pub keeper: Keeper,
    pub keeper_events: mpsc::Receiver<KeeperEvent>,
    pub qmp: Qmp,
    pub qmp_events: Events,
    pub greetings: mpsc::Receiver<Greeting>,
    pub requests: mpsc::Receiver<Request>,
    pub state: watch::Sender<State>,
    pub shutdown_timeout: Duration,
    /// Freed last.
    pub leases: Leases,
}

/// The task's own view of its machine.
#[derive(Debug)]
pub(super) struct Driver {
    parts: Parts,
    session: Option<(Session, SessionEvents)>,
    work: WorkTable,
    evidence: Evidence,
    /// When the first sign of an end came.
    unsettled_since: Option<Instant>,
    keeper_gone: bool,
    qmp_open: bool,
    greeting_open: bool,
}

/// What one turn of the loop got.
enum Input {
    Request(Option<Request>),
    Keeper(Option<KeeperEvent>),
    Qmp(Option<Event>),
    Greeting(Option<Greeting>),
    Session(SessionEvent),
    /// Time passed that somebody waited for.
    Tick,
}

/// Why the machine goes.
enum Reason {
    Asked(DestroyMode, Option<Reply>),
    Ended(Outcome),
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            session: None,
            work: WorkTable::default(),
            evidence: Evidence::default(),
            unsettled_since: None,
            keeper_gone: false,
            qmp_open: true,
            greeting_open: true,
        }
    }

    /// Runs until the machine is gone and all its leases are freed.
    pub(super) async fn run(mut self) {
        let reason = loop {
            let input = self.next_input().await;
            if let Some(reason) = self.take(input) {
                break reason;
            }
            self.work.end_overdue(session(&self.session));
            if let Some(outcome) = self.judge() {
                break Reason::Ended(outcome);
            }
        };
        self.end(reason).await;
    }

    async fn next_input(&mut self) -> Input {
        const FAR: Duration = Duration::from_secs(24 * 3600);
        let settle = self.unsettled_since.map(|since| since + SETTLE);
        let wake = self.work.next_deadline().into_iter().chain(settle).min();
        let wake = wake.unwrap_or_else(|| Instant::now() + FAR);
        let parts = &mut self.parts;
        tokio::select! {
            request = parts.requests.recv() => Input::Request(request),
            event = parts.keeper_events.recv(), if !self.keeper_gone => Input::Keeper(event),
            event = parts.qmp_events.next(), if self.qmp_open => Input::Qmp(event),
            greeting = parts.greetings.recv(), if self.greeting_open => Input::Greeting(greeting),
            event = next_session_event(&mut self.session) => Input::Session(event),
            () = sleep_until(wake) => Input::Tick,
        }
    }

    /// Takes one input in; a request may be the reason to end.
    fn take(&mut self, input: Input) -> Option<Reason> {
        match input {
            Input::Request(Some(Request::Exec { request, output, reply })) => {
                self.work.begin(session(&self.session), request, output, reply);
            }
            Input::Request(Some(Request::Abandon { id, outcome })) => {
                self.work.abandon(session(&self.session), &id, outcome);
            }
            Input::Request(Some(Request::Destroy { mode, reply })) => {
                return Some(Reason::Asked(mode, Some(reply)));
            }
            // Every handle was dropped: nobody can use the machine any more.
            Input::Request(None) => return Some(Reason::Asked(DestroyMode::Kill, None)),
            Input::Keeper(event) => {
                self.keeper_gone = !matches!(event, Some(KeeperEvent::ProcessEnded(_)));
                let unwatched = || Sign::KeeperGone { how: "its watch ended".into() };
                self.evidence.add(event.map_or_else(unwatched, sign_of_keeper));
            }
            Input::Qmp(Some(event)) => {
                debug!(?event, "QMP event");
                self.evidence.extend(sign_of(event));
            }
            Input::Qmp(None) => {
                self.qmp_open = false;
                self.evidence.add(Sign::QmpClosed);
            }
            Input::Greeting(Some(Greeting::Connected)) => {
                self.parts.state.send_replace(State::Greeting);
            }
            Input::Greeting(Some(Greeting::Done(Ok(connected)))) => {
                debug!("agent is ready");
                self.session = Some(connected);
                self.parts.state.send_replace(State::Ready);
            }
            Input::Greeting(Some(Greeting::Done(Err(error)))) => {
                let detail = one_line(&error.to_string(), MAX_DETAIL_CHARS);
                self.evidence.add(Sign::AgentClosed { detail });
            }
            Input::Greeting(None) => self.greeting_open = false,
            Input::Session(SessionEvent::WorkEnded { id, end }) => self.work.ended(&id, end),
            Input::Session(SessionEvent::PoweroffAcknowledged) | Input::Tick => {}
            Input::Session(SessionEvent::Closed { detail }) => {
                self.session = None;
                self.evidence.add(Sign::AgentClosed { detail });
            }
        }
        None
    }

    /// How the machine ended, once that is proven or has been waited for long enough.
    fn judge(&mut self) -> Option<Outcome> {
        match self.evidence.finding() {
            Finding::Alive => None,
            Finding::Ended(outcome) => Some(outcome),
            Finding::Unsettled => {
                let since = *self.unsettled_since.get_or_insert_with(Instant::now);
                (since.elapsed() >= SETTLE).then(|| self.evidence.settled())
            }
        }
    }

    async fn end(mut self, reason: Reason) {
        let (outcome, mode, reply) = match reason {
            Reason::Asked(mode, reply) => {
                info!(?mode, "machine is told to end");
                (Outcome::Cancelled, mode, reply)
            }
            Reason::Ended(outcome) => {
                info!(%outcome, "machine has ended");
                (outcome, DestroyMode::Kill, None)
            }
        };
        let early_tail = self.parts.keeper.console_tail(CONSOLE_TAIL_BYTES);
        // Nobody waits for a teardown to learn what is known already.
        self.work.end_all(&outcome, &early_tail);
        let mut replies: Vec<_> = reply.into_iter().collect();
        if mode == DestroyMode::Graceful {
            replies.extend(self.power_off().await);
        }
        let mut failures = self.end_processes().await;
        // Whatever the guest said last is on the console only now.
        let console_tail = Some(self.parts.keeper.console_tail(CONSOLE_TAIL_BYTES))
            .filter(|last| !last.is_empty())
            .unwrap_or(early_tail);
        let Parts { keeper, leases, state, mut requests, .. } = self.parts;
        drop(keeper);
        failures.extend(leases.free());
        let result = if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) };
        if let Err(error) = &result {
            warn!(%error, "failed to free all of the machine");
        }
        state.send_replace(State::Gone { outcome: outcome.clone(), console_tail, freed: result.clone() });
        for reply in replies {
            let _ = reply.send(result.clone());
        }
        // Requests that came while it ended.
        requests.close();
        while let Ok(request) = requests.try_recv() {
            match request {
                Request::Exec { reply, .. } => drop(reply.send(Verdict::of(outcome.clone()))),
                Request::Destroy { reply, .. } => drop(reply.send(result.clone())),
                Request::Abandon { .. } => {}
            }
        }
    }

    /// Ends whatever still runs, and says what would not.
    async fn end_processes(&mut self) -> Vec<String> {
        if self.keeper_gone {
            return Vec::new();
        }
        // Bounded by itself.
        match self.parts.keeper.kill().await {
            None => vec!["the machine's keeper did not end in time".to_owned()],
            Some(KeeperEnd { done: Some(done), .. }) if !done.left_behind.is_empty() => {
                vec![format!("processes did not die: {}", done.left_behind.join(", "))]
            }
            Some(_) => Vec::new(),
        }
    }

    /// Asks the guest, then QEMU; each has a bounded time to end everything. Somebody who can't wait for that cuts it
    /// short, and is returned to be answered.
    async fn power_off(&mut self) -> Option<Reply> {
        let asked = session(&self.session).is_some_and(|session| session.power_off().is_ok());
        if asked {
            let hurried = self.keeper_ends(self.parts.shutdown_timeout).await;
            if hurried.is_some() || self.keeper_gone {
                return hurried;
            }
        }
        debug!("the guest did not power off");
        // QEMU answers or closes; either way the keeper says whether it ended.
        let _ = self.parts.qmp.execute("quit", None, END_STEP).await;
        self.keeper_ends(END_STEP).await
    }

    /// Waits until the keeper is gone, for `bound` at most, or until somebody wants the machine killed.
    async fn keeper_ends(&mut self, bound: Duration) -> Option<Reply> {
        let until = Instant::now() + bound;
        let mut handles = true;
        while !self.keeper_gone {
            tokio::select! {
                event = self.parts.keeper_events.recv() => {
                    self.keeper_gone = !matches!(event, Some(KeeperEvent::ProcessEnded(_)));
                }
                request = self.parts.requests.recv(), if handles => match request {
                    Some(Request::Destroy { mode: DestroyMode::Kill, reply }) => return Some(reply),
                    // Who asks again learns the rest from the state: its reply is dropped.
                    Some(Request::Destroy { mode: DestroyMode::Graceful, .. } | Request::Abandon { .. }) => {}
                    Some(Request::Exec { reply, .. }) => {
                        let _ = reply.send(Verdict::of(Outcome::Cancelled));
                    }
                    None => handles = false,
                },
                () = sleep_until(until) => return None,
            }
        }
        None
    }
}

fn session(connected: &Option<(Session, SessionEvents)>) -> Option<&Session> {
    connected.as_ref().map(|(session, _)| session)
}

/// What a keeper's event says of the machine.
pub(super) fn sign_of_keeper(event: KeeperEvent) -> Sign {
    match event {
        KeeperEvent::ProcessEnded(record) if record.name == QEMU => Sign::QemuEnded(record.end.into()),
        KeeperEvent::ProcessEnded(record) => Sign::HelperEnded { name: record.name, end: record.end.into() },
        KeeperEvent::Gone(end) => {
            let failed = end.done.and_then(|done| match done.ending {
                Ending::StartFailed { process, error } => Some(format!("{process} did not start: {error}")),
                _ => None,
            });
            let how = match end.exit {
                Some(Exit::Code(code)) => format!("exit status {code}"),
                Some(Exit::Signal(signal)) => format!("signal {signal}"),
                None => "unknown".to_owned(),
            };
            let said = end.message.trim();
            let how = if said.is_empty() { how } else { format!("{how}: {said}") };
            Sign::KeeperGone { how: failed.unwrap_or(how) }
        }
    }
}

fn sign_of(event: Event) -> Option<Sign> {
    match event {
        Event::Shutdown { guest, reason } => Some(Sign::Shutdown { guest, reason }),
        Event::GuestPanicked { .. } => Some(Sign::GuestPanicked),
        Event::BlockIoError { device, no_space, reason, .. } => {
            Some(Sign::DiskError { device, no_space, reason })
        }
        _ => None,
    }
}

async fn next_session_event(session: &mut Option<(Session, SessionEvents)>) -> SessionEvent {
    match session {
        Some((_, events)) => events
            .recv()
            .await
            .unwrap_or_else(|| SessionEvent::Closed { detail: "the session ended".to_owned() }),
        None => std::future::pending().await,
    }
}

impl From<creel_keeper::ProcessEnd> for ProcessEnd {
    fn from(end: creel_keeper::ProcessEnd) -> Self {
        match end {
            creel_keeper::ProcessEnd::Exited { code } => Self::Exited(code),
            creel_keeper::ProcessEnd::Signalled { signal, .. } => Self::Signalled(signal),
            creel_keeper::ProcessEnd::FailedToStart { error, .. } => Self::FailedToStart(error),
        }
    }
}
