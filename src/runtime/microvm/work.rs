//! The work that a machine has been given and somebody waits for.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::agent::{ExecEnd, Session};
use crate::runtime::{ExecRequest, Outcome, OutputChunk, Usage, Verdict};

/// Work by id; each is answered once.
#[derive(Debug, Default)]
pub(super) struct WorkTable {
    pending: HashMap<String, Pending>,
}

#[derive(Debug)]
struct Pending {
    reply: oneshot::Sender<Verdict>,
    started: Instant,
    deadline: Option<Instant>,
}

impl Pending {
    /// A verdict that did not come from the agent. Whoever has stopped waiting is no concern of ours.
    fn answer(self, outcome: Outcome, console_tail: Option<Vec<u8>>) {
        let usage = Usage { wall: self.started.elapsed(), ..Usage::default() };
        let _ = self.reply.send(Verdict { outcome, detail: None, usage, console_tail });
    }
}

impl WorkTable {
    /// Gives a piece of work to the agent; what can't be started is answered at once.
    pub(super) fn begin(
        &mut self,
        session: Option<&Session>,
        request: ExecRequest,
        output: mpsc::Sender<OutputChunk>,
        reply: oneshot::Sender<Verdict>,
    ) {
        let (id, deadline) = (request.id.clone(), request.deadline);
        let begun = match session {
            Some(session) => session.begin(request, output).map_err(|error| error.to_string()),
            None => Err("the machine has no agent".to_owned()),
        };
        match begun {
            Ok(()) => {
                self.pending.insert(id, Pending { reply, started: Instant::now(), deadline });
            }
            Err(why) => drop(reply.send(Verdict::of(Outcome::internal(why)))),
        }
    }

    /// The agent says how it ended.
    pub(super) fn ended(&mut self, id: &str, end: ExecEnd) {
        if let Some(work) = self.pending.remove(id) {
            let ExecEnd { outcome, detail, usage } = end;
            let _ = work.reply.send(Verdict { outcome, detail, usage, console_tail: None });
        }
    }

    /// Ends the wait for one, and for its output; the program itself ends with its machine.
    pub(super) fn abandon(&mut self, session: Option<&Session>, id: &str, outcome: Outcome) {
        if let Some(work) = self.pending.remove(id) {
            forget(session, id);
            work.answer(outcome, None);
        }
    }

    /// Ends the wait for those whose deadline has passed.
    pub(super) fn end_overdue(&mut self, session: Option<&Session>) {
        let now = Instant::now();
        let overdue = |work: &mut Pending| work.deadline.is_some_and(|deadline| deadline <= now);
        for (id, work) in self.pending.extract_if(|_, work| overdue(work)) {
            forget(session, &id);
            work.answer(Outcome::TimedOut, None);
        }
    }

    /// The machine has ended under all of them.
    pub(super) fn end_all(&mut self, session: Option<&Session>, outcome: &Outcome, console_tail: &[u8]) {
        for (id, work) in self.pending.drain() {
            forget(session, &id);
            work.answer(outcome.clone(), Some(console_tail.to_vec()));
        }
    }

    /// The first deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.values().filter_map(|work| work.deadline).min()
    }
}

/// Closes the queue of a piece of work's output: its reader waits for that, not for the verdict alone.
fn forget(session: Option<&Session>, id: &str) {
    if let Some(session) = session {
        session.forget(id);
    }
}
