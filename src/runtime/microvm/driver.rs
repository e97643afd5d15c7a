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

use super::evidence::{Evidence, Finding, Sign};
use super::greeting::Greeting;
use super::keeper::{Keeper, KeeperEnd, KeeperEvent};
use super::leases::Leases;
use super::qemu::{Event, Events, Qmp};
use super::request::{Reply, Request, ShellAsked};
use super::signs::{sign_of, sign_of_keeper};
use super::work::WorkTable;
use crate::agent::{Greeted, Loss, MAX_DETAIL_CHARS, Session, SessionEvent, SessionEvents};
use crate::failpoint;
use crate::runtime::{DestroyMode, MachineUsage, Outcome, ShellError, ShellRequest, SignalError, Verdict};
use crate::text::one_line;

/// How much of the console a verdict carries.
pub(super) const CONSOLE_TAIL_BYTES: usize = 8192;

/// The bound of each of ending's ways that do not involve the guest.
const END_STEP: Duration = Duration::from_secs(3);

/// Why there is no shell at the moment.
const AWAY: &str = "the guest's agent is away, and may be back in a few seconds; try again";

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
        usage: Option<Box<MachineUsage>>,
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
    away: Option<Away>,
    work: WorkTable,
    evidence: Evidence,
    /// Told when the guest refuses a shell. One is asked for at a time.
    opening_shell: Option<oneshot::Sender<String>>,
    /// When the first sign of an end came.
    unsettled_since: Option<Instant>,
    keeper_gone: bool,
    qmp_open: bool,
    greeting_open: bool,
}

/// The agent's connection has ended, and it may come back.
#[derive(Debug)]
struct Away {
    /// When it is lost.
    until: Instant,
    /// How the connection ended.
    detail: String,
}

/// What one turn of the loop got.
enum Input {
    Request(Option<Request>),
    Keeper(Option<KeeperEvent>),
    Qmp(Option<Event>),
    Greeting(Option<Greeting>),
    Session(SessionEvent),
    /// The kernel has counted something against the machine's limits.
    Cgroup,
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
            away: None,
            work: WorkTable::default(),
            evidence: Evidence::default(),
            opening_shell: None,
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
            self.work.end_overdue(session(&self.session), || self.parts.leases.usage());
            self.miss_the_agent();
            if let Some(outcome) = self.judge() {
                break Reason::Ended(outcome);
            }
        };
        self.end(reason).await;
    }

    async fn next_input(&mut self) -> Input {
        const FAR: Duration = Duration::from_secs(24 * 3600);
        let settle = self.unsettled_since.map(|since| since + self.evidence.patience());
        let away = self.away.as_ref().map(|away| away.until);
        let wake = self.work.next_deadline().into_iter().chain(settle).chain(away).min();
        let wake = wake.unwrap_or_else(|| Instant::now() + FAR);
        let parts = &mut self.parts;
        tokio::select! {
            request = parts.requests.recv() => Input::Request(request),
            event = parts.keeper_events.recv(), if !self.keeper_gone => Input::Keeper(event),
            event = parts.qmp_events.next(), if self.qmp_open => Input::Qmp(event),
            greeting = parts.greetings.recv(), if self.greeting_open => Input::Greeting(greeting),
            event = next_session_event(&mut self.session) => Input::Session(event),
            () = parts.leases.changed() => Input::Cgroup,
            () = sleep_until(wake) => Input::Tick,
        }
    }

    /// Takes one input in; a request may be the reason to end.
    fn take(&mut self, input: Input) -> Option<Reason> {
        match input {
            Input::Request(Some(Request::Exec { request, streams, reply })) => {
                self.work.begin(session(&self.session), request, streams, reply);
            }
            Input::Request(Some(Request::Abandon { id, outcome })) => {
                self.work.abandon(session(&self.session), &id, outcome, self.parts.leases.usage());
            }
            Input::Request(Some(Request::Signal { id, signal, reply })) => {
                let session = session(&self.session);
                let _ = reply.send(session.map_or(Err(SignalError::Ended), |one| one.signal(&id, signal)));
            }
            Input::Request(Some(Request::OpenShell { port, request, reply })) => {
                let asked = self.open_shell(port, &request);
                let _ = reply.send(asked);
            }
            Input::Request(Some(Request::Destroy { mode, reply })) => {
                return Some(Reason::Asked(mode, Some(reply)));
            }
            // Every handle was dropped: nobody can use the machine any more.
            Input::Request(None) => return Some(Reason::Asked(DestroyMode::Kill, None)),
            Input::Keeper(event) => {
                self.keeper_gone = !matches!(event, Some(KeeperEvent::ProcessEnded(_)));
                let unwatched = || Sign::KeeperGone { how: "its watch ended".into() };
                // What killed QEMU is counted by now, and has to be known when its end is judged.
                self.evidence.extend(self.parts.leases.signs());
                self.evidence.add(event.map_or_else(unwatched, sign_of_keeper));
            }
            Input::Cgroup => self.evidence.extend(self.parts.leases.signs()),
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
            Input::Greeting(Some(Greeting::Done(Ok(greeted)))) => {
                debug!("agent is ready");
                let Greeted { session, events, .. } = *greeted;
                self.session = Some((session, events));
                self.parts.state.send_replace(State::Ready);
            }
            Input::Greeting(Some(Greeting::Resumed(proven))) => {
                let resumed = session(&self.session).is_some_and(|session| session.resume(*proven));
                if resumed {
                    info!(away = self.away.is_some(), "the agent goes on with a new connection");
                    self.away = None;
                }
            }
            Input::Greeting(Some(Greeting::Done(Err(error)))) => {
                let detail = one_line(&error.to_string(), MAX_DETAIL_CHARS);
                self.evidence.add(Sign::AgentClosed { detail });
            }
            Input::Greeting(None) => self.greeting_open = false,
            Input::Session(SessionEvent::WorkEnded { id, end }) => {
                self.work.ended(&id, end, self.parts.leases.usage());
            }
            Input::Session(SessionEvent::ShellRefused { detail }) => {
                if let Some(opening) = self.opening_shell.take() {
                    // Nobody waits any more for one that took too long.
                    let _ = opening.send(detail);
                }
            }
            Input::Session(SessionEvent::PoweroffAcknowledged) | Input::Tick => {}
            Input::Session(SessionEvent::Away { why }) => {
                // Not, if it is back before this was heard.
                if let Some(session) = session(&self.session).filter(|session| session.is_away()) {
                    info!(%why, "the agent is away");
                    let until = Instant::now() + session.patience().resume_within;
                    self.away = Some(Away { until, detail: why.to_string() });
                    // Whether it was asked for a shell is not known, and it will not say.
                    self.opening_shell.take().into_iter().for_each(|opening| {
                        let _ = opening.send(AWAY.to_owned());
                    });
                }
            }
            Input::Session(SessionEvent::Closed { why }) => {
                self.lose_the_agent(one_line(&why.to_string(), MAX_DETAIL_CHARS));
            }
        }
        None
    }

    fn lose_the_agent(&mut self, detail: String) {
        self.session = None;
        self.away = None;
        self.evidence.add(Sign::AgentClosed { detail });
    }

    /// Loses an agent that was away for too long.
    fn miss_the_agent(&mut self) {
        if let Some(away) = self.away.take_if(|away| away.until <= Instant::now()) {
            let detail = format!("{}, and did not come back", away.detail);
            self.lose_the_agent(one_line(&detail, MAX_DETAIL_CHARS));
        }
    }

    fn open_shell(&mut self, port: u32, request: &ShellRequest) -> Result<ShellAsked, ShellError> {
        let session = session(&self.session).ok_or(ShellError::Ended)?;
        if session.is_away() {
            return Err(ShellError::Refused(AWAY.to_owned()));
        }
        session.open_shell(port, request).map_err(|_| ShellError::Ended)?;
        let (opening, refused) = oneshot::channel();
        let extended = session.extended();
        self.opening_shell = Some(opening);
        Ok(ShellAsked { extended, refused })
    }

    /// How the machine ended, once that is proven or has been waited for long enough.
    fn judge(&mut self) -> Option<Outcome> {
        match self.evidence.finding() {
            Finding::Alive => None,
            Finding::Ended(outcome) => Some(outcome),
            Finding::Unsettled => {
                let since = *self.unsettled_since.get_or_insert_with(Instant::now);
                (since.elapsed() >= self.evidence.patience()).then(|| self.evidence.settled())
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
        // Whoever dials from now on finds nobody; the port goes with the leases.
        self.parts.greetings.close();
        let early_tail = self.parts.keeper.console_tail(CONSOLE_TAIL_BYTES);
        // Nobody waits for a teardown to learn what is known already.
        self.work.end_all(&outcome, &early_tail);
        let mut replies: Vec<_> = reply.into_iter().collect();
        if mode == DestroyMode::Graceful {
            replies.extend(self.power_off().await);
        }
        let mut failures = self.end_processes().await;
        failpoint::pass("destroy.processes");
        // Whatever the guest said last is on the console only now.
        let console_tail = Some(self.parts.keeper.console_tail(CONSOLE_TAIL_BYTES))
            .filter(|last| !last.is_empty())
            .unwrap_or(early_tail);
        failures.extend(self.parts.leases.end_cgroup().await);
        let usage = self.parts.leases.usage();
        let Parts { keeper, leases, state, mut requests, .. } = self.parts;
        drop(keeper);
        failures.extend(leases.free().await);
        failpoint::pass("destroy.leases");
        let result = if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) };
        if let Err(error) = &result {
            warn!(%error, "failed to free all of the machine");
        }
        state.send_replace(State::Gone {
            outcome: outcome.clone(),
            console_tail,
            usage,
            freed: result.clone(),
        });
        for reply in replies {
            let _ = reply.send(result.clone());
        }
        // Requests that came while it ended.
        requests.close();
        while let Ok(request) = requests.try_recv() {
            match request {
                Request::Exec { reply, .. } => drop(reply.send(Verdict::of(outcome.clone()))),
                Request::Destroy { reply, .. } => drop(reply.send(result.clone())),
                Request::Abandon { .. } | Request::Signal { .. } | Request::OpenShell { .. } => {}
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
                    Some(
                        Request::Destroy { mode: DestroyMode::Graceful, .. }
                        | Request::Abandon { .. }
                        | Request::Signal { .. }
                        | Request::OpenShell { .. },
                    ) => {}
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

async fn next_session_event(session: &mut Option<(Session, SessionEvents)>) -> SessionEvent {
    match session {
        Some((_, events)) => {
            events.recv().await.unwrap_or_else(|| SessionEvent::Closed { why: Loss::Closed.into() })
        }
        None => std::future::pending().await,
    }
}
