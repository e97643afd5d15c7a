//! What a machine's session, its connection's tasks and its execs' tasks have in common, behind one lock that is never
//! held across a wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use creel_proto::agent::files_request::Work as FilesWork;
use creel_proto::agent::{
    ExecCancel, ExecExit, ExecStart, ExecState, ExecTerminal, ExecWindow, FilesRead, FilesRequest,
    FilesWrite, SourceUnpack,
};
use creel_proto::names::extensions;
use creel_proto::{Envelope, MAX_MESSAGE_BYTES};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::exec::{Exec, Heed, Steer};
use super::table::{Entry, Running, Table, Taken};
use super::tend::Tender;
use crate::agent::credit::{MAX_EXECS, MAX_PLAIN_EXECS, Window};
use crate::agent::ending::{Ending, Violation};
use crate::agent::session::{CANCEL_GRACE_MS, SessionEvent, StartError};
use crate::agent::terms::Terms;
use crate::runtime::{
    ExecRequest, ExecStreams, OutputOffsets, OutputWriter, SignalError, Stream, TerminalSize, Work,
};

#[derive(Debug)]
pub(in crate::agent) struct Shared {
    table: Mutex<Table>,
    events: mpsc::Sender<SessionEvent>,
}

/// Another connection has taken the place of the one that a message came on.
#[derive(Debug)]
pub(in crate::agent) struct Stale;

impl Shared {
    pub(in crate::agent) fn new(terms: Terms, events: mpsc::Sender<SessionEvent>) -> Self {
        Self { table: Mutex::new(Table::new(terms)), events }
    }

    pub(in crate::agent) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a piece of work to the agent, or keeps it for when it comes back.
    pub(in crate::agent) fn begin(
        self: &Arc<Self>,
        request: ExecRequest,
        streams: ExecStreams,
    ) -> Result<(), StartError> {
        let timeout_seconds = request.guest_timeout_seconds(Instant::now());
        let ExecRequest { id, work, deadline } = request;
        let mut table = self.lock();
        let terms = table.terms;
        let base = ExecStart { timeout_seconds, input: streams.input.is_some(), ..ExecStart::default() };
        let start = match work {
            Work::UnpackSource { .. } if !terms.source_disk => return Err(StartError::NoSourceDisk),
            Work::ReadFiles { .. } | Work::WriteFiles { .. } if !terms.files => {
                return Err(StartError::NoFiles);
            }
            Work::UnpackSource { destination, user } => {
                let unpack = SourceUnpack { destination, user };
                return table.begin_plain(id, Plain::Source(unpack), streams);
            }
            Work::Program { argv, env, cwd, user, terminal } => {
                let env = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                let base = ExecStart { argv, env, cwd, user, ..base };
                if !terms.credit {
                    return table.begin_plain(
                        id,
                        Plain::Program(ExecStart { input: false, ..base }),
                        streams,
                    );
                }
                let terminal = terminal.map(|terminal| ExecTerminal {
                    term: terminal.term,
                    rows: terminal.size.rows.into(),
                    cols: terminal.size.columns.into(),
                });
                ExecStart { terminal, ..base }
            }
            Work::ReadFiles { path, user } => {
                let work = FilesWork::Read(FilesRead { path });
                ExecStart { user, files: Some(FilesRequest { work: Some(work) }), ..base }
            }
            Work::WriteFiles { destination, directory, user } => {
                let work = FilesWork::Write(FilesWrite { destination, directory });
                ExecStart { user, files: Some(FilesRequest { work: Some(work) }), ..base }
            }
        };
        let ExecStreams { input, output } = streams;
        let acknowledged = output.acknowledged();
        let asked = Asked { start, deadline, output, input: input.is_some() };
        let (steered, input_window) = table.begin_credited(&id, asked)?;
        if let (Some(input), Some(bytes)) = (&input, input_window) {
            input.hold_at_most(bytes);
        }
        let tender = Tender::new(Arc::clone(self), id.clone(), input);
        tokio::spawn(tender.run(acknowledged, steered));
        table.order_start(&id);
        Ok(())
    }

    /// Gives a piece of work up: nobody reads its output or hears of its end.
    pub(in crate::agent) fn cancel(&self, id: &str) {
        let mut table = self.lock();
        match table.entries.get_mut(id) {
            Some(Entry::Credited(exec)) if !exec.is_given_up() => {
                exec.give_up();
                table.order_cancel(id);
                table.order_window(id);
            }
            Some(Entry::Plain(running)) => {
                let Some(running) = running.take() else { return };
                running.given_up.cancel();
                if table.terms.signals {
                    // An agent that does not read any more is as good as gone, and the machine with it.
                    table.order_message(Envelope::new(id, ExecCancel { grace_ms: CANCEL_GRACE_MS }));
                }
            }
            _ => {}
        }
    }

    /// Sends a signal to a program, as `message` where it has no credit.
    pub(in crate::agent) fn signal(
        &self,
        id: &str,
        signal: u32,
        message: Envelope,
    ) -> Result<(), SignalError> {
        let mut table = self.lock();
        let signals = table.terms.signals;
        let unsupported = SignalError::Unsupported { extension: extensions::SIGNAL_1 };
        match table.entries.get_mut(id) {
            Some(Entry::Credited(exec)) if !exec.is_given_up() => {
                if !signals {
                    return Err(unsupported);
                }
                if !exec.signal(signal) {
                    return Err(SignalError::Ended);
                }
                table.order_signal(id);
                Ok(())
            }
            Some(Entry::Plain(Some(_))) => match signals {
                false => Err(unsupported),
                true if table.order_message(message) => Ok(()),
                true => Err(SignalError::Ended),
            },
            _ => Err(SignalError::NoExec(id.to_owned())),
        }
    }

    pub(in crate::agent) fn knows(&self, id: &str) -> bool {
        self.lock().entries.contains_key(id)
    }

    /// Counts output of an exec without credit, and says who it is for; `None` when nobody waits for it.
    pub(in crate::agent) fn count(
        &self,
        id: &str,
        stream: Stream,
        length: u64,
        claimed: Option<u64>,
    ) -> Result<Option<(Arc<OutputWriter>, CancellationToken)>, Violation> {
        let mut table = self.lock();
        let Some(Entry::Plain(Some(running))) = table.entries.get_mut(id) else { return Ok(None) };
        let count = match stream {
            Stream::Stdout => &mut running.bytes[0],
            Stream::Stderr => &mut running.bytes[1],
        };
        let expected = *count;
        if let Some(claimed) = claimed.filter(|claimed| *claimed != expected) {
            return Err(Violation::Offset { id: id.to_owned(), stream, claimed, expected });
        }
        *count += length;
        Ok(Some((Arc::clone(&running.output), running.given_up.clone())))
    }

    /// Readers of an exec have acknowledged more.
    pub(super) fn acknowledged(&self, id: &str, offsets: OutputOffsets) {
        let mut table = self.lock();
        if let Some(exec) = table.exec(id) {
            exec.acknowledge(offsets);
            table.order_window(id);
        }
    }

    pub(super) fn resized(&self, id: &str, size: TerminalSize) {
        let mut table = self.lock();
        if table.exec(id).is_some_and(|exec| exec.resize(size)) {
            table.order_resize(id);
        }
    }

    pub(super) fn sends_input(&self, id: &str, link: u64, offset: u64) -> bool {
        self.lock().exec(id).is_some_and(|exec| exec.send_input(link, offset))
    }

    /// Output of an exec with credit. False: it is none's.
    pub(in crate::agent) fn receive(
        &self,
        link: u64,
        id: &str,
        stream: Stream,
        chunk: (u64, &[u8], bool),
    ) -> Result<Result<bool, Violation>, Stale> {
        let mut table = self.lock();
        if !table.is_link(link) {
            return Err(Stale);
        }
        let Some(exec) = table.exec(id) else {
            let past = table.past.has(id);
            return Ok(if past {
                Err(Violation::AfterExit { id: id.to_owned(), stream })
            } else {
                Ok(false)
            });
        };
        if let Err(violation) = exec.receive(id, stream, chunk) {
            return Ok(Err(violation));
        }
        table.order_window(id);
        Ok(Ok(!chunk.1.is_empty() || chunk.2))
    }

    /// News of an exec's input. False: there is none in it.
    pub(in crate::agent) fn heed(
        &self,
        link: u64,
        id: &str,
        state: &ExecState,
    ) -> Result<Result<bool, Violation>, Stale> {
        let mut table = self.lock();
        let frames = match &table.link {
            Some(current) if current.id == link => current.frames.clone(),
            _ => return Err(Stale),
        };
        let Some(exec) = table.exec(id) else { return Ok(Ok(false)) };
        let heeded = exec.heed(id, state, link, &frames);
        // Credit may have been freed before the guest was heard to know the exec.
        table.order_window(id);
        Ok(heeded.map(|heed| heed == Heed::News))
    }

    /// The end of a piece of work; `None` when nobody waits for it.
    pub(in crate::agent) fn ended(
        &self,
        link: u64,
        id: &str,
        exit: Option<&ExecExit>,
    ) -> Result<Result<Option<Taken>, Violation>, Stale> {
        let mut table = self.lock();
        if !table.is_link(link) {
            return Err(Stale);
        }
        let past = table.past.has(id);
        let checked = match (exit, table.exec(id)) {
            (Some(exit), Some(exec)) => exec.exit(id, exit),
            (Some(_), None) if past => Err(Violation::SecondExit { id: id.to_owned() }),
            // Of a source disk: an exec has no such end.
            (None, Some(_)) => return Ok(Ok(None)),
            _ => Ok(()),
        };
        Ok(checked.map(|()| table.end(id)))
    }

    /// A connection has ended by itself, and its tasks with it.
    pub(in crate::agent) async fn link_ended(&self, link: u64, why: Ending) {
        let event = {
            let mut table = self.lock();
            if !table.is_link(link) {
                return;
            }
            table.detach();
            match why {
                Ending::Loss(why) if table.terms.resume && !table.over => SessionEvent::Away { why },
                why => {
                    table.over = true;
                    SessionEvent::Closed { why }
                }
            }
        };
        self.tell(event).await;
    }

    pub(in crate::agent) async fn tell(&self, event: SessionEvent) {
        // Nobody listens any more when the machine is going away.
        let _ = self.events.send(event).await;
    }
}

/// Work without credit.
enum Plain {
    Program(ExecStart),
    Source(SourceUnpack),
}

/// Work with credit.
struct Asked {
    start: ExecStart,
    deadline: Option<Instant>,
    output: OutputWriter,
    input: bool,
}

type Begun = (watch::Receiver<Steer>, Option<u64>);

impl Table {
    fn fits(&self, id: &str, envelope: &Envelope) -> Result<(), StartError> {
        // The guest may not have heard yet that it is to forget one that has ended.
        if self.entries.contains_key(id) || self.past.has(id) {
            return Err(StartError::Duplicate(id.to_owned()));
        }
        let size = envelope.encoded_len();
        if size > MAX_MESSAGE_BYTES {
            return Err(StartError::TooLarge { size });
        }
        let away = self.terms.resume && !self.over;
        if self.link.is_none() && !away { Err(StartError::Closed) } else { Ok(()) }
    }

    fn begin_plain(&mut self, id: String, work: Plain, streams: ExecStreams) -> Result<(), StartError> {
        let (envelope, source) = match work {
            Plain::Program(start) => (Envelope::new(id.clone(), start), None),
            Plain::Source(unpack) => (Envelope::new(id.clone(), unpack.clone()), Some(unpack)),
        };
        self.fits(&id, &envelope)?;
        let running = self.entries.values().filter(|entry| matches!(entry, Entry::Plain(Some(_)))).count();
        if running >= MAX_PLAIN_EXECS {
            return Err(StartError::TooMany { max: MAX_PLAIN_EXECS });
        }
        let again_later = self.link.is_none();
        if !again_later && !self.order_message(envelope) {
            return Err(StartError::Closed);
        }
        let running = Running {
            output: Arc::new(streams.output),
            given_up: CancellationToken::new(),
            started: Instant::now(),
            bytes: [0; 2],
            source,
        };
        self.entries.insert(id, Entry::Plain(Some(running)));
        Ok(())
    }

    fn begin_credited(&mut self, id: &str, asked: Asked) -> Result<Begun, StartError> {
        let Asked { start, deadline, output, input } = asked;
        // As long as it gets: offsets are small at first and large in a long life.
        let longest = ExecWindow {
            stdout_acknowledged: u64::MAX,
            stderr_acknowledged: u64::MAX,
            stdout_limit: u64::MAX,
            stderr_limit: u64::MAX,
        };
        let start = ExecStart { window: Some(longest), ..start };
        self.fits(id, &Envelope::new(id, start.clone()))?;
        let (outputs, input) = self.windows(input).ok_or(StartError::TooMany { max: MAX_EXECS })?;
        let input_bytes = input.as_ref().map(Window::bytes);
        let (exec, steered) = Exec::new(start, deadline, output, outputs, input);
        self.past.remove(id);
        self.entries.insert(id.to_owned(), Entry::Credited(Box::new(exec)));
        Ok((steered, input_bytes))
    }
}
