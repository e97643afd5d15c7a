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

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::evidence::{Evidence, Finding, ProcessEnd, SETTLE, Sign};
use super::greeting::Greeting;
use super::keeper::{Keeper, KeeperEnd, KeeperEvent};
use super::launch::QEMU;
use super::leases::Leases;
use super::qemu::{Event, Events, Qmp};
use crate::agent::{Session, SessionEvent, SessionEvents};
use crate::host::Exit;
use crate::runtime::{DestroyMode, ExecRequest, Outcome, OutputChunk, Usage, Verdict};

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
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// What a watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// QEMU runs; the agent has not connected.
    Booting,
    /// The agent has connected and not yet agreed.
    Greeting,
    Ready,
    /// How it ended (cancelled: it was destroyed), and its console's last bytes.
    Gone {
        outcome: Outcome,
        console_tail: Vec<u8>,
    },
}

/// A piece of work that somebody waits for.
#[derive(Debug)]
struct Pending {
    reply: oneshot::Sender<Verdict>,
    started: Instant,
    deadline: Option<Instant>,
}

/// Everything that the task owns.
#[derive(Debug)]
pub(super) struct Driver {
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
    Asked(DestroyMode, Option<oneshot::Sender<Result<(), String>>>),
    Ended(Outcome),
}

impl Driver {
    /// Runs until the machine is gone and all its leases are freed.
    pub(super) async fn run(mut self) {
        let mut session: Option<(Session, SessionEvents)> = None;
        let mut pending: HashMap<String, Pending> = HashMap::new();
        let mut evidence = Evidence::default();
        let mut unsettled_since: Option<Instant> = None;
        let mut keeper_gone = false;
        let mut qmp_open = true;
        let mut greeting_open = true;

        let reason = loop {
            let wake = next_wake(&pending, unsettled_since);
            let input = tokio::select! {
                request = self.requests.recv() => Input::Request(request),
                event = self.keeper_events.recv(), if !keeper_gone => Input::Keeper(event),
                event = self.qmp_events.next(), if qmp_open => Input::Qmp(event),
                greeting = self.greetings.recv(), if greeting_open => Input::Greeting(greeting),
                event = next_session_event(&mut session) => Input::Session(event),
                () = sleep_until(wake) => Input::Tick,
            };
            match input {
                Input::Request(Some(Request::Exec { request, output, reply })) => {
                    begin(session.as_ref(), request, output, reply, &mut pending);
                }
                Input::Request(Some(Request::Abandon { id, outcome })) => {
                    if let Some(work) = pending.remove(&id) {
                        answer(work, outcome, None);
                    }
                }
                Input::Request(Some(Request::Destroy { mode, reply })) => {
                    break Reason::Asked(mode, Some(reply));
                }
                // Every handle was dropped: nobody can use the machine any more.
                Input::Request(None) => break Reason::Asked(DestroyMode::Kill, None),
                Input::Keeper(Some(event)) => {
                    keeper_gone = matches!(event, KeeperEvent::Gone(_));
                    evidence.add(sign_of_keeper(event));
                }
                Input::Keeper(None) => {
                    keeper_gone = true;
                    evidence.add(Sign::KeeperGone { how: "its watch ended".into() });
                }
                Input::Qmp(Some(event)) => {
                    debug!(?event, "QMP event");
                    if let Some(sign) = sign_of(event) {
                        evidence.add(sign);
                    }
                }
                Input::Qmp(None) => {
                    qmp_open = false;
                    evidence.add(Sign::QmpClosed);
                }
                Input::Greeting(Some(Greeting::Connected)) => {
                    self.state.send_replace(State::Greeting);
                }
                Input::Greeting(Some(Greeting::Done(Ok(connected)))) => {
                    info!(agent = %connected.0.hello().agent_version, "agent is ready");
                    session = Some(connected);
                    self.state.send_replace(State::Ready);
                }
                Input::Greeting(Some(Greeting::Done(Err(error)))) => {
                    evidence.add(Sign::AgentClosed { detail: error.to_string() });
                }
                Input::Greeting(None) => greeting_open = false,
                Input::Session(SessionEvent::WorkEnded { id, end }) => {
                    if let Some(work) = pending.remove(&id) {
                        let verdict = Verdict {
                            outcome: end.outcome,
                            detail: end.detail,
                            usage: end.usage,
                            console_tail: None,
                        };
                        let _ = work.reply.send(verdict);
                    }
                }
                Input::Session(SessionEvent::PoweroffAcknowledged) => {}
                Input::Session(SessionEvent::Closed { detail }) => {
                    session = None;
                    evidence.add(Sign::AgentClosed { detail });
                }
                Input::Tick => {}
            }
            end_overdue(&mut pending);
            match evidence.finding() {
                Finding::Alive => {}
                Finding::Ended(outcome) => break Reason::Ended(outcome),
                Finding::Unsettled => {
                    let since = *unsettled_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= SETTLE {
                        break Reason::Ended(evidence.settled());
                    }
                }
            }
        };
        self.end(reason, session, pending, keeper_gone).await;
    }

    async fn end(
        mut self,
        reason: Reason,
        session: Option<(Session, SessionEvents)>,
        pending: HashMap<String, Pending>,
        mut keeper_gone: bool,
    ) {
        let (outcome, mode, reply) = match reason {
            Reason::Asked(mode, reply) => (Outcome::Cancelled, mode, reply),
            Reason::Ended(outcome) => (outcome, DestroyMode::Kill, None),
        };
        info!(%outcome, ?mode, "machine ends");
        let console_tail = self.keeper.console_tail(CONSOLE_TAIL_BYTES);
        // Nobody waits for a teardown to learn what is known already.
        for (_, work) in pending {
            answer(work, outcome.clone(), Some(console_tail.clone()));
        }
        if mode == DestroyMode::Graceful && !keeper_gone {
            keeper_gone = self.power_off(session).await;
        }
        let mut failures = Vec::new();
        if !keeper_gone {
            // Bounded by itself.
            match self.keeper.kill().await {
                None => failures.push("the machine's keeper did not end in time".to_owned()),
                Some(KeeperEnd { done: Some(done), .. }) if !done.left_behind.is_empty() => {
                    failures.push(format!("processes did not die: {}", done.left_behind.join(", ")));
                }
                Some(_) => {}
            }
        }
        // Whatever the guest said last is on the console only now.
        let console_tail = match self.keeper.console_tail(CONSOLE_TAIL_BYTES) {
            last if last.is_empty() => console_tail,
            last => last,
        };
        let Self { keeper, leases, state, mut requests, .. } = self;
        drop(keeper);
        failures.extend(leases.free());
        let result = if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) };
        if let Err(error) = &result {
            warn!(%error, "failed to free all of the machine");
        }
        state.send_replace(State::Gone { outcome: outcome.clone(), console_tail });
        if let Some(reply) = reply {
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

    /// Asks the guest, then QEMU; true when the keeper is gone by then, and with it everything.
    async fn power_off(&mut self, session: Option<(Session, SessionEvents)>) -> bool {
        let Some((session, _events)) = session else {
            return self.quit().await;
        };
        if session.power_off().is_ok() && self.keeper_ends(self.shutdown_timeout).await {
            return true;
        }
        debug!("the guest did not power off in time");
        self.quit().await
    }

    async fn quit(&mut self) -> bool {
        // QEMU answers or closes; either way the keeper says whether it ended.
        let _ = self.qmp.execute("quit", None, END_STEP).await;
        self.keeper_ends(END_STEP).await
    }

    async fn keeper_ends(&mut self, bound: Duration) -> bool {
        let gone = async {
            loop {
                match self.keeper_events.recv().await {
                    Some(KeeperEvent::ProcessEnded(_)) => {}
                    Some(KeeperEvent::Gone(_)) | None => return,
                }
            }
        };
        timeout(bound, gone).await.is_ok()
    }
}

/// What a keeper's event says of the machine.
pub(super) fn sign_of_keeper(event: KeeperEvent) -> Sign {
    match event {
        KeeperEvent::ProcessEnded(record) if record.name == QEMU => Sign::QemuEnded(record.end.into()),
        KeeperEvent::ProcessEnded(record) => Sign::HelperEnded { name: record.name, end: record.end.into() },
        KeeperEvent::Gone(end) => {
            let how = match end.exit {
                Some(Exit::Code(code)) => format!("exit status {code}"),
                Some(Exit::Signal(signal)) => format!("signal {signal}"),
                None => "unknown".to_owned(),
            };
            let said = end.message.trim();
            Sign::KeeperGone { how: if said.is_empty() { how } else { format!("{how}: {said}") } }
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

fn begin(
    session: Option<&(Session, SessionEvents)>,
    request: ExecRequest,
    output: mpsc::Sender<OutputChunk>,
    reply: oneshot::Sender<Verdict>,
    pending: &mut HashMap<String, Pending>,
) {
    let Some((session, _)) = session else {
        let _ = reply.send(Verdict::of(Outcome::internal("the machine has no agent")));
        return;
    };
    let (id, deadline) = (request.id.clone(), request.deadline);
    match session.begin(request, output) {
        Ok(()) => {
            pending.insert(id, Pending { reply, started: Instant::now(), deadline });
        }
        Err(error) => {
            let _ = reply.send(Verdict::of(Outcome::internal(error)));
        }
    }
}

fn answer(work: Pending, outcome: Outcome, console_tail: Option<Vec<u8>>) {
    let usage = Usage { wall: work.started.elapsed(), ..Usage::default() };
    let _ = work.reply.send(Verdict { outcome, detail: None, usage, console_tail });
}

fn end_overdue(pending: &mut HashMap<String, Pending>) {
    let now = Instant::now();
    let overdue = |work: &mut Pending| work.deadline.is_some_and(|deadline| deadline <= now);
    for (_, work) in pending.extract_if(|_, work| overdue(work)) {
        answer(work, Outcome::TimedOut, None);
    }
}

/// When the loop has to look again though nothing happens.
fn next_wake(pending: &HashMap<String, Pending>, unsettled_since: Option<Instant>) -> Instant {
    const FAR: Duration = Duration::from_secs(24 * 3600);
    let deadlines = pending.values().filter_map(|work| work.deadline);
    let settle = unsettled_since.map(|since| since + SETTLE);
    deadlines.chain(settle).min().unwrap_or_else(|| Instant::now() + FAR)
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
