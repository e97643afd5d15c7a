//! The work that a machine has been given and somebody waits for.

use std::collections::HashMap;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::agent::{ExecEnd, Session, StartError};
use crate::runtime::{ExecRequest, ExecStreams, MachineUsage, Outcome, Usage, Verdict};

/// The code of a program that could not be started, as a shell has it.
const NOT_STARTED: i32 = 127;

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
    fn answer(self, outcome: Outcome, machine: Option<Box<MachineUsage>>, console_tail: Option<Vec<u8>>) {
        let usage = Usage { wall: self.started.elapsed(), machine, ..Usage::default() };
        let _ = self.reply.send(Verdict { outcome, detail: None, usage, console_tail });
    }
}

impl WorkTable {
    /// Gives a piece of work to the agent; what can't be started is answered at once.
    pub(super) fn begin(
        &mut self,
        session: Option<&Session>,
        request: ExecRequest,
        streams: ExecStreams,
        reply: oneshot::Sender<Verdict>,
    ) {
        let (id, deadline) = (request.id.clone(), request.deadline);
        // Without an agent the machine is about to end, and why is not known yet: the work waits for that verdict.
        let begun = session.map_or(Err(StartError::Closed), |session| session.begin(request, streams));
        match begun {
            Ok(()) | Err(StartError::Closed) => {
                self.pending.insert(id, Pending { reply, started: Instant::now(), deadline });
            }
            Err(error @ (StartError::TooLarge { .. } | StartError::TooMany { .. })) => {
                let verdict = Verdict::of(Outcome::Exited { code: NOT_STARTED });
                let _ = reply.send(Verdict { detail: Some(error.to_string()), ..verdict });
            }
            Err(error @ (StartError::Duplicate(_) | StartError::NoSourceDisk | StartError::NoFiles)) => {
                let _ = reply.send(Verdict::of(Outcome::internal(error)));
            }
        }
    }

    /// The agent says how it ended.
    pub(super) fn ended(&mut self, id: &str, end: ExecEnd, machine: Option<Box<MachineUsage>>) {
        if let Some(work) = self.pending.remove(id) {
            let ExecEnd { outcome, detail, usage } = end;
            let usage = Usage { machine, ..usage };
            let _ = work.reply.send(Verdict { outcome, detail, usage, console_tail: None });
        }
    }

    /// Ends the wait for one, and for its output, and the program.
    pub(super) fn abandon(
        &mut self,
        session: Option<&Session>,
        id: &str,
        outcome: Outcome,
        machine: Option<Box<MachineUsage>>,
    ) {
        if let Some(work) = self.pending.remove(id) {
            cancel(session, id);
            work.answer(outcome, machine, None);
        }
    }

    /// Ends the wait for those whose deadline has passed, and their programs.
    pub(super) fn end_overdue(
        &mut self,
        session: Option<&Session>,
        usage: impl Fn() -> Option<Box<MachineUsage>>,
    ) {
        let now = Instant::now();
        let overdue = |work: &mut Pending| work.deadline.is_some_and(|deadline| deadline <= now);
        for (id, work) in self.pending.extract_if(|_, work| overdue(work)) {
            cancel(session, &id);
            work.answer(Outcome::TimedOut, usage(), None);
        }
    }

    /// The machine has ended under all of them. Output that has arrived is still delivered: it ends with the session.
    pub(super) fn end_all(&mut self, outcome: &Outcome, console_tail: &[u8]) {
        for (_, work) in self.pending.drain() {
            work.answer(outcome.clone(), None, Some(console_tail.to_vec()));
        }
    }

    /// The first deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.values().filter_map(|work| work.deadline).min()
    }
}

/// Also closes the queue of its output: its reader waits for that, not for the verdict alone.
fn cancel(session: Option<&Session>, id: &str) {
    if let Some(session) = session {
        session.cancel(id);
    }
}
