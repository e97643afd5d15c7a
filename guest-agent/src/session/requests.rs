//! What the host asks for, and to whom it goes.

use std::time::Duration;

use creel_proto::agent::{
    ActivateConfigResult, CacheDrainResult, ExecExit, ExecStart, ExecWindow, Init, OpenDebugShell, Pong,
    PoweroffResult, SourceUnpack,
};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, Payload};
use tokio::time::timeout;

use super::plain::PlainExecs;
use crate::exec::{Breach, Form, Order, begin};
use crate::exit::not_started;
use crate::guest::Guest;
use crate::outbox::Outbox;
use crate::output::OutputForm;
use crate::{log, shell, source};

/// How long the answer to Poweroff may take to be written.
const POWEROFF_WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Output repeats the id in each message, which has a limit.
const MAX_ID_BYTES: usize = 1024;

/// The host broke the contract: what it says can't be relied on any more.
#[derive(Debug, thiserror::Error)]
#[error("the host broke the contract with exec `{id}`: {breach}")]
pub struct Broken {
    id: String,
    #[source]
    breach: Breach,
}

#[derive(Debug)]
pub(super) struct Session {
    form: OutputForm,
    credit: bool,
    source: bool,
    signal: bool,
    heartbeat: bool,
    guest: Guest,
    outbox: Outbox,
    plain: PlainExecs,
}

impl Session {
    pub fn new(init: &Init, guest: Guest, outbox: Outbox) -> Self {
        let has = |extension| init.extensions.iter().any(|named| named == extension);
        let credit = has(extensions::EXEC_2);
        let form = if has(extensions::OUTPUT_1) || credit { OutputForm::Raw } else { OutputForm::Text };
        Self {
            form,
            credit,
            source: has(extensions::SOURCE_1),
            signal: has(extensions::SIGNAL_1),
            heartbeat: has(extensions::HEARTBEAT_1),
            guest,
            outbox,
            plain: PlainExecs::default(),
        }
    }

    /// Does or starts whatever `request` asks for.
    ///
    /// # Errors
    /// When it breaks the contract.
    pub fn start(&self, request: Envelope) -> Result<(), Broken> {
        let id = request.id().to_owned();
        if id.len() > MAX_ID_BYTES {
            log::warn(format_args!("ignored a request with an id of {} bytes", id.len()));
            return Ok(());
        }
        let broken = |breach| Broken { id: id.clone(), breach };
        let exec = || self.guest.execs.find(&id);
        match request.payload {
            Payload::Ping(ping) if self.heartbeat => self.outbox.send(&id, Pong { sequence: ping.sequence }),
            Payload::ExecWindow(window) if self.credit => {
                exec().map_or(Ok(()), |exec| exec.window(&window)).map_err(broken)?;
            }
            Payload::ExecInput(input) if self.credit => {
                exec().map_or(Ok(()), |exec| exec.input(input)).map_err(broken)?;
            }
            Payload::PtyResize(size) if self.credit => {
                if let Some(exec) = exec() {
                    exec.resize(size);
                }
            }
            Payload::ExecForget(_) if self.credit => self.guest.execs.forget(&id),
            Payload::ExecStart(request) if self.credit => self.attach_exec(&id, request).map_err(broken)?,
            Payload::ExecStart(request) => self.start_plain_exec(id, request),
            Payload::ExecSignal(request) if self.signal => self.order(&id, Order::Signal(request.signal)),
            Payload::ExecCancel(request) if self.signal => {
                self.order(&id, Order::Cancel { grace: Duration::from_millis(request.grace_ms.into()) });
            }
            Payload::SourceUnpack(unpack) if self.source => self.start_unpack(id, unpack),
            Payload::ActivateConfig(activate) => self.outbox.send(
                &id,
                ActivateConfigResult {
                    config_key: activate.config_key,
                    toplevel: String::new(),
                    error: "this agent does not support NixOS configuration yet".to_owned(),
                },
            ),
            // Nothing is uploaded yet, so nothing is ever left to drain.
            Payload::CacheDrain(_) => self.outbox.send(&id, CacheDrainResult::default()),
            Payload::OpenDebugShell(request) => self.start_shell(request),
            other => log::warn(format_args!("ignored `{}`, which has no place here", other.name())),
        }
        Ok(())
    }

    /// Starts an exec, or goes on with the one that is known.
    fn attach_exec(&self, id: &str, mut request: ExecStart) -> Result<(), Breach> {
        let window: ExecWindow = request.window.take().ok_or(Breach::NoWindow)?;
        match self.guest.execs.known(id) {
            Ok(Some(exec)) => return exec.attach(&window, &self.outbox),
            Ok(None) | Err(_) if request.attach => {
                let error = "the guest does not know this exec";
                self.outbox.send(id, ExecExit { unknown: true, ..not_started(error) });
                return Ok(());
            }
            Err(refused) => {
                self.outbox.send(id, not_started(&refused.to_string()));
                return Ok(());
            }
            Ok(None) => {}
        }
        let (exec, task) = begin(&self.guest, id.to_owned(), request, Form::Credit, &self.outbox);
        exec.attach(&window, &self.outbox)?;
        let execs = self.guest.execs.clone();
        execs.insert(exec.clone());
        tokio::spawn(async move {
            task.await;
            execs.ended(&exec);
        });
        Ok(())
    }

    fn start_plain_exec(&self, id: String, request: ExecStart) {
        if !self.plain.is_new(&id) {
            log::warn(format_args!("exec `{id}` was asked for before and is not started twice"));
            return;
        }
        let (exec, task) = begin(&self.guest, id.clone(), request, self.form.into(), &self.outbox);
        self.plain.insert(exec);
        let plain = self.plain.clone();
        tokio::spawn(async move {
            task.await;
            plain.finish(&id);
        });
    }

    fn order(&self, id: &str, order: Order) {
        if self.credit {
            self.guest.execs.order(id, order);
        } else {
            self.plain.order(id, order);
        }
    }

    fn start_unpack(&self, id: String, request: SourceUnpack) {
        let outbox = self.outbox.clone();
        if !self.guest.can_resume() {
            tokio::spawn(async move { outbox.send(&id, source::unpack(request).await) });
            return;
        }
        let answer = self.guest.answers.answer(&id, &request, source::unpack(request.clone()));
        tokio::spawn(async move {
            if let Some(answer) = answer.await {
                outbox.send(&id, answer);
            }
        });
    }

    fn start_shell(&self, request: OpenDebugShell) {
        let (guest, form, outbox) = (self.guest.clone(), self.form, self.outbox.clone());
        tokio::spawn(async move {
            if let Some(refusal) = shell::serve(&guest, request, form).await {
                outbox.send(ids::PTY, refusal);
            }
        });
    }

    pub async fn answer_poweroff(&self, id: &str) {
        let answer = self.outbox.send_and_flush(id, PoweroffResult::default());
        // The machine goes off in any case.
        let _ = timeout(POWEROFF_WRITE_LIMIT, answer).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.plain.abandon_all();
    }
}
