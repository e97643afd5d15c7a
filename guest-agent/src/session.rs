//! One connection to the host: Hello, Init, then requests until it ends.
//!
//! Requests run at once, each in a task of its own, and answer through the [`outbox`](crate::outbox).
//! The session is over when either direction of the connection fails, or when the host has asked for power
//! off. Programs that run then go on.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use creel_proto::agent::{
    ActivateConfigResult, CacheDrainResult, ExecExit, ExecStart, Hello, Init, PoweroffResult, SourceUnpack,
};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, FrameCodec, FrameError, Payload};
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use crate::outbox::{Outbox, outbox};
use crate::output::OutputForm;
use crate::reaper::Reaper;
use crate::{exec, log, source};

/// How long the host may take to answer Hello.
const INIT_LIMIT: Duration = Duration::from_secs(30);

/// How long the answer to Poweroff may take to be written, and then to be read: a host that has read it
/// closes the connection.
const POWEROFF_WRITE_LIMIT: Duration = Duration::from_secs(5);
const POWEROFF_READ_LIMIT: Duration = Duration::from_millis(100);

/// Ids of finished execs that are remembered.
const REMEMBERED_IDS: usize = 1024;

/// Output repeats the id in each message, which has a limit.
const MAX_ID_BYTES: usize = 1024;

/// How a session ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    Closed,
    /// The host asked for it, and has its answer.
    PowerOff,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the host did not answer Hello within {} s", INIT_LIMIT.as_secs())]
    NoInit,
    #[error("the host answered Hello with `{0}` instead of Init")]
    NotInit(&'static str),
}

/// Serves one connection to its end.
pub async fn run(
    connection: impl AsyncRead + AsyncWrite,
    hello: Hello,
    reaper: &Reaper,
) -> Result<SessionEnd, SessionError> {
    let (reader, writer) = tokio::io::split(connection);
    let mut requests = FramedRead::new(reader, FrameCodec);
    let (outbox, queue) = outbox();
    let power_off = Cell::new(false);
    let serve = async {
        // The queue is empty and its other end alive: this can't fail.
        let _ = outbox.send(ids::HELLO, hello).await;
        let init = match timeout(INIT_LIMIT, requests.next()).await {
            Ok(Some(first)) => init(first?)?,
            Ok(None) => return Ok(SessionEnd::Closed),
            Err(_) => return Err(SessionError::NoInit),
        };
        let session = Session::new(&init, reaper.clone(), outbox);
        while let Some(request) = requests.next().await {
            let request = request?;
            if matches!(request.payload, Payload::Poweroff(_)) {
                power_off.set(true);
                session.answer_poweroff(request.id()).await;
                // Requests that come after it are not for this boot any more.
                let rest = async { while let Some(Ok(_)) = requests.next().await {} };
                let _ = timeout(POWEROFF_READ_LIMIT, rest).await;
                break;
            }
            session.start(request);
        }
        Ok(SessionEnd::Closed)
    };
    let end = tokio::select! {
        end = serve => end,
        end = queue.run(writer) => end.map(|()| SessionEnd::Closed).map_err(SessionError::from),
    };
    // The host may close the connection under whatever is still being written: it meant what it asked.
    if power_off.get() { Ok(SessionEnd::PowerOff) } else { end }
}

fn init(first: Envelope) -> Result<Init, SessionError> {
    match first.payload {
        Payload::Init(init) => Ok(init),
        other => Err(SessionError::NotInit(other.name())),
    }
}

#[derive(Debug)]
struct Session {
    form: OutputForm,
    source: bool,
    reaper: Reaper,
    outbox: Outbox,
    execs: Arc<Mutex<ExecIds>>,
}

impl Session {
    fn new(init: &Init, reaper: Reaper, outbox: Outbox) -> Self {
        let has = |extension| init.extensions.iter().any(|named| named == extension);
        let form = if has(extensions::OUTPUT_1) { OutputForm::Raw } else { OutputForm::Text };
        Self { form, source: has(extensions::SOURCE_1), reaper, outbox, execs: Arc::default() }
    }

    /// Starts whatever `request` asks for.
    fn start(&self, request: Envelope) {
        let id = request.id().to_owned();
        if id.len() > MAX_ID_BYTES {
            log::warn(format_args!("ignored a request with an id of {} bytes", id.len()));
            return;
        }
        match request.payload {
            Payload::ExecStart(exec) => self.start_exec(id, exec),
            Payload::SourceUnpack(unpack) if self.source => self.start_unpack(id, unpack),
            Payload::ActivateConfig(activate) => self.answer(
                id,
                ActivateConfigResult {
                    config_key: activate.config_key,
                    toplevel: String::new(),
                    error: "this agent does not support NixOS configuration yet".to_owned(),
                },
            ),
            // Nothing is uploaded yet, so nothing is ever left to drain.
            Payload::CacheDrain(_) => self.answer(id, CacheDrainResult::default()),
            Payload::OpenDebugShell(_) => self.answer(
                ids::PTY.to_owned(),
                ExecExit { exit_code: 127, error: "not supported yet".to_owned(), ..ExecExit::default() },
            ),
            other => log::warn(format_args!("ignored `{}`, which has no place here", other.name())),
        }
    }

    fn start_exec(&self, id: String, request: ExecStart) {
        if !self.execs().begin(&id) {
            log::warn(format_args!("exec `{id}` was asked for before and is not started twice"));
            return;
        }
        let (reaper, form, outbox, execs) =
            (self.reaper.clone(), self.form, self.outbox.clone(), Arc::clone(&self.execs));
        tokio::spawn(async move {
            exec::run(reaper, id.clone(), request, form, outbox).await;
            execs.lock().unwrap_or_else(PoisonError::into_inner).finish(id);
        });
    }

    fn start_unpack(&self, id: String, request: SourceUnpack) {
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let result = source::unpack(request).await;
            // When the session is over, nobody waits for the answer.
            let _ = outbox.send(&id, result).await;
        });
    }

    fn answer(&self, id: String, payload: impl Into<Payload>) {
        let (outbox, payload) = (self.outbox.clone(), payload.into());
        tokio::spawn(async move {
            // When the session is over, nobody waits for the answer.
            let _ = outbox.send(&id, payload).await;
        });
    }

    async fn answer_poweroff(&self, id: &str) {
        let answer = self.outbox.send_and_flush(id, PoweroffResult::default());
        // The machine goes off in any case.
        let _ = timeout(POWEROFF_WRITE_LIMIT, answer).await;
    }

    fn execs(&self) -> std::sync::MutexGuard<'_, ExecIds> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids of this session's execs: all that run, and the last that have ended.
#[derive(Debug, Default)]
struct ExecIds {
    running: BTreeSet<String>,
    finished: VecDeque<String>,
}

impl ExecIds {
    /// Whether `id` is new.
    fn begin(&mut self, id: &str) -> bool {
        !self.finished.iter().any(|finished| finished == id) && self.running.insert(id.to_owned())
    }

    fn finish(&mut self, id: String) {
        self.running.remove(&id);
        if self.finished.len() == REMEMBERED_IDS {
            self.finished.pop_front();
        }
        self.finished.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once() {
        let mut ids = ExecIds::default();
        assert!(ids.begin("a"));
        assert!(!ids.begin("a"));
        ids.finish("a".into());
        assert!(!ids.begin("a"));
        assert!(ids.begin("b"));
    }

    #[test]
    fn memory_of_the_finished_is_bounded_and_of_the_running_is_not() {
        let mut ids = ExecIds::default();
        assert!(ids.begin("running"));
        for number in 0..2 * REMEMBERED_IDS {
            assert!(ids.begin(&number.to_string()));
            ids.finish(number.to_string());
        }
        assert!(ids.finished.len() <= REMEMBERED_IDS);
        assert!(!ids.begin("running"));
        assert!(!ids.begin(&(2 * REMEMBERED_IDS - 1).to_string()));
    }
}
