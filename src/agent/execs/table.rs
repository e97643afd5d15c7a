//! Execs by id, and what their guest is to be told next.
//!
//! What waits for the connection are orders and not messages: a message is made of an exec's state when its turn comes.
//! So nothing piles up behind a guest that does not read, a connection that is new begins with what holds then, and
//! what a connection carries beside input never waits for input.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use creel_proto::agent::{ExecCancel, ExecForget, ExecSignal, Ping, PtyResize, SourceUnpack};
use creel_proto::names::ids;
use creel_proto::{Envelope, Payload};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::exec::{Exec, InputFrame};
use super::past::Past;
use crate::agent::credit::{INPUT, OUTPUT, Pool, Window};
use crate::agent::session::CANCEL_GRACE_MS;
use crate::agent::terms::Terms;
use crate::runtime::OutputWriter;
use crate::runtime::exec::guest_timeout_seconds;

/// Messages that wait for the connection as they are; a machine has few.
const MAX_MESSAGES: usize = 64;

/// Work that has started and not ended, without `creel.exec.2`.
#[derive(Debug)]
pub(in crate::agent) struct Running {
    pub output: Arc<OutputWriter>,
    /// Its output is for nobody any more, also what waits for a place in the queue.
    pub given_up: CancellationToken,
    pub started: Instant,
    pub bytes: [u64; 2],
    /// Asked for again on a connection that replaces the one on which it was asked for.
    pub source: Option<SourceUnpack>,
}

#[derive(Debug)]
pub(super) enum Entry {
    /// `None`: nobody waits for it any more, and the guest has not said that it ended; until then its id is taken, or what
    /// the old program says would be believed of a new one.
    Plain(Option<Running>),
    Credited(Box<Exec>),
}

/// Work that is taken off the table.
#[derive(Debug)]
pub(in crate::agent) enum Taken {
    Plain(Running),
    Credited { started: Instant, stdout: u64, stderr: u64 },
}

/// What is to be said.
#[derive(Debug)]
enum Order {
    Message(Box<Envelope>),
    Start(String),
    Window(String),
    Cancel(String),
    Signal(String),
    Resize(String),
    Forget(String),
    Ping(u64),
}

/// The connection of the moment.
#[derive(Debug)]
pub(in crate::agent) struct Current {
    pub id: u64,
    pub frames: mpsc::Sender<InputFrame>,
    pub wake: Arc<Notify>,
    /// Ends its tasks.
    pub ends: CancellationToken,
}

#[derive(Debug)]
pub(in crate::agent) struct Table {
    pub terms: Terms,
    pub(super) entries: HashMap<String, Entry>,
    pub(super) past: Past,
    pub link: Option<Current>,
    last_link: u64,
    /// The peer has broken the contract, or nobody cares any more.
    pub over: bool,
    orders: VecDeque<Order>,
    messages: usize,
    outputs: Pool,
    inputs: Pool,
}

impl Table {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            entries: HashMap::new(),
            past: Past::default(),
            link: None,
            last_link: 0,
            over: false,
            orders: VecDeque::new(),
            messages: 0,
            outputs: Pool::new(OUTPUT),
            inputs: Pool::new(INPUT),
        }
    }

    pub(super) fn is_link(&self, id: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.id == id)
    }

    pub(super) fn exec(&mut self, id: &str) -> Option<&mut Exec> {
        match self.entries.get_mut(id) {
            Some(Entry::Credited(exec)) => Some(exec),
            _ => None,
        }
    }

    /// Windows for one more exec, if there can be one.
    pub(super) fn windows(&mut self, input: bool) -> Option<([Window; 2], Option<Window>)> {
        // Each exec has a place in all of them.
        let outputs = [self.outputs.take()?, self.outputs.take()?];
        Some((outputs, if input { self.inputs.take() } else { None }))
    }

    pub(super) fn give_back(&mut self, (outputs, input): ([Window; 2], Option<Window>)) {
        outputs.into_iter().for_each(|window| self.outputs.give_back(window));
        input.into_iter().for_each(|window| self.inputs.give_back(window));
    }

    /// Nothing is said where nobody is; whoever comes is told what holds then.
    fn order(&mut self, order: Order) {
        let Some(link) = &self.link else { return };
        match order {
            Order::Ping(_) => self.orders.push_front(order),
            _ => self.orders.push_back(order),
        }
        link.wake.notify_one();
    }

    /// False: there is no connection, or its agent has stopped reading.
    pub(in crate::agent) fn order_message(&mut self, envelope: Envelope) -> bool {
        if self.link.is_none() || self.messages == MAX_MESSAGES {
            return false;
        }
        self.messages += 1;
        self.order(Order::Message(Box::new(envelope)));
        true
    }

    pub(super) fn order_start(&mut self, id: &str) {
        self.order(Order::Start(id.to_owned()));
    }

    pub(super) fn order_signal(&mut self, id: &str) {
        self.order(Order::Signal(id.to_owned()));
    }

    pub(super) fn order_resize(&mut self, id: &str) {
        self.order(Order::Resize(id.to_owned()));
    }

    pub(super) fn order_cancel(&mut self, id: &str) {
        if self.terms.signals {
            self.order(Order::Cancel(id.to_owned()));
        }
    }

    pub(in crate::agent) fn order_ping(&mut self, sequence: u64) {
        self.order(Order::Ping(sequence));
    }

    /// New credit, if it is due.
    pub(super) fn order_window(&mut self, id: &str) {
        if self.link.is_some() && self.exec(id).is_some_and(Exec::orders_window) {
            self.order(Order::Window(id.to_owned()));
        }
    }

    /// Takes work that has ended off the table, and tells the guest that it may forget it. `None`: nobody waits for it,
    /// or it never was.
    pub(super) fn end(&mut self, id: &str) -> Option<Taken> {
        match self.entries.remove(id)? {
            Entry::Plain(running) => running.map(Taken::Plain),
            Entry::Credited(exec) => {
                let (received, started, waited_for) = (exec.received(), exec.started, !exec.is_given_up());
                self.give_back(exec.into_windows());
                self.past.add(id.to_owned());
                self.order(Order::Forget(id.to_owned()));
                let taken = Taken::Credited { started, stdout: received.stdout, stderr: received.stderr };
                waited_for.then_some(taken)
            }
        }
    }

    /// A connection begins, in place of the one before. Returns its number.
    pub(in crate::agent) fn begin_link(
        &mut self,
        frames: mpsc::Sender<InputFrame>,
        wake: Arc<Notify>,
        ends: CancellationToken,
        first: Option<Envelope>,
    ) -> u64 {
        self.last_link += 1;
        self.attach(Current { id: self.last_link, frames, wake, ends }, first);
        self.last_link
    }

    /// Nobody cares any more: streams and tasks end.
    pub(in crate::agent) fn close(&mut self) {
        self.over = true;
        self.detach();
        self.entries.clear();
    }

    /// A connection begins: it is told `first`, and all that the guest can't be sure to know.
    fn attach(&mut self, current: Current, first: Option<Envelope>) {
        self.detach();
        self.link = Some(current);
        first.into_iter().for_each(|envelope| {
            self.order_message(envelope);
        });
        let past: Vec<String> = self.past.ids().cloned().collect();
        past.into_iter().for_each(|id| self.order(Order::Forget(id)));
        let mut orders = Vec::new();
        for (id, entry) in &mut self.entries {
            match entry {
                Entry::Plain(Some(Running { source: Some(unpack), .. })) => {
                    let envelope = Envelope::new(id.clone(), unpack.clone());
                    orders.push(Order::Message(Box::new(envelope)));
                }
                Entry::Plain(_) => {}
                Entry::Credited(exec) => {
                    exec.attach(&mut self.outputs);
                    orders.push(Order::Start(id.clone()));
                    if exec.is_given_up() && self.terms.signals {
                        orders.push(Order::Cancel(id.clone()));
                    }
                    orders.extend((0..exec.waiting_signals()).map(|_| Order::Signal(id.clone())));
                    orders.extend(exec.orders_size().then(|| Order::Resize(id.clone())));
                }
            }
        }
        orders.into_iter().for_each(|order| self.order(order));
    }

    /// The connection of the moment is none any more.
    pub(super) fn detach(&mut self) {
        if let Some(link) = self.link.take() {
            link.ends.cancel();
        }
        self.orders.clear();
        self.messages = 0;
        for entry in self.entries.values_mut() {
            if let Entry::Credited(exec) = entry {
                exec.detach();
            }
        }
    }

    /// What to say next on connection `link`, input aside.
    pub(in crate::agent) fn next_message(&mut self, link: u64) -> Option<Envelope> {
        if !self.is_link(link) {
            return None;
        }
        loop {
            if let Some(message) = self.orders.pop_front().map(|order| self.message(order))? {
                return Some(message);
            }
        }
    }

    /// An order as a message; `None` when it is of no meaning any more.
    fn message(&mut self, order: Order) -> Option<Envelope> {
        let (id, payload): (String, Payload) = match order {
            Order::Message(envelope) => {
                self.messages = self.messages.saturating_sub(1);
                return Some(*envelope);
            }
            Order::Start(id) => {
                let exec = self.exec(&id)?;
                let timeout_seconds = guest_timeout_seconds(exec.deadline, Instant::now());
                let start = exec.start(timeout_seconds);
                (id, start.into())
            }
            Order::Window(id) => {
                let Some(Entry::Credited(exec)) = self.entries.get_mut(&id) else { return None };
                let window = exec.renewed_window(&mut self.outputs);
                (id, window.into())
            }
            Order::Cancel(id) => {
                self.exec(&id)?;
                (id, ExecCancel { grace_ms: CANCEL_GRACE_MS }.into())
            }
            Order::Signal(id) => {
                let signal = self.exec(&id)?.next_signal()?;
                (id, ExecSignal { signal }.into())
            }
            Order::Resize(id) => {
                let size = self.exec(&id)?.told_size()?;
                (id, PtyResize { rows: size.rows.into(), cols: size.columns.into() }.into())
            }
            Order::Forget(id) => (id, ExecForget {}.into()),
            Order::Ping(sequence) => (ids::HEARTBEAT.to_owned(), Ping { sequence }.into()),
        };
        Some(Envelope::new(id, payload))
    }
}
