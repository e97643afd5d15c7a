//! Knows an agent again on a connection that is not its first.
//!
//! Any process of a guest may dial its host. So whoever comes later is asked for a proof that only the agent has which was
//! greeted first, and nothing is said of the machine before it.

use std::fmt;
use std::io;
use std::time::Duration;

use creel_proto::agent::{Hello, Init, ResumeChallenge};
use creel_proto::names::{PROTOCOL_VERSION, ids};
use creel_proto::{Envelope, FrameError, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::key::{MachineKey, random};
use super::terms::{Patience, Terms};
use super::wire::{GuestCodec, Heard, Wire};
use crate::transport::Connection;

/// What a machine's later connections are measured by.
#[derive(Debug, Clone)]
pub struct Door {
    key: MachineKey,
    boot_id: String,
    terms: Terms,
    /// The answer to a proof.
    init: Init,
    patience: Patience,
}

/// A connection whose agent has proven to be the one that was greeted first. It waits for Init.
pub struct Proven {
    wire: Wire,
    init: Init,
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proven").finish_non_exhaustive()
    }
}

impl Proven {
    pub(super) fn into_parts(self) -> (Wire, Envelope) {
        (self.wire, Envelope::new(ids::INIT, self.init))
    }
}

/// Why somebody was turned away.
#[derive(Debug, thiserror::Error)]
pub enum NewcomerError {
    #[error("it closed its connection")]
    Closed,
    #[error("it sent no {what} within {bound:?}")]
    Silent { what: &'static str, bound: Duration },
    #[error("it sent {got} instead of {wanted}")]
    Unexpected { wanted: &'static str, got: &'static str },
    #[error("it does not speak as the machine's agent did: {0}")]
    Another(&'static str),
    #[error("its proof is wrong")]
    Unproven,
    #[error("the kernel gave no random bytes: {0}")]
    Random(#[source] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Door {
    /// For an agent that said this first, and was answered this.
    pub(super) fn new(key: MachineKey, hello: &Hello, terms: Terms, init: Init, patience: Patience) -> Self {
        let init = Init { machine_key: Default::default(), resumed: true, ..init };
        Self { key, boot_id: hello.boot_id.clone(), terms, init, patience }
    }

    /// The machine's key, for whoever keeps it beyond this process's life.
    pub fn key(&self) -> &MachineKey {
        &self.key
    }

    /// Challenges whoever has dialled. Takes a bounded time.
    ///
    /// # Errors
    /// When it is not the agent. The connection is closed then.
    pub async fn admit(&self, connection: Connection) -> Result<Proven, NewcomerError> {
        // One bound for all of it: others wait behind who is looked at.
        self.within("proof", self.challenge(connection)).await?
    }

    async fn challenge(&self, connection: Connection) -> Result<Proven, NewcomerError> {
        let mut wire: Wire = Framed::new(connection.stream, GuestCodec::default());
        match self.hear(&mut wire, "Hello").await? {
            Payload::Hello(hello) => self.same_agent(&hello)?,
            other => return Err(NewcomerError::Unexpected { wanted: "Hello", got: other.name() }),
        }
        let nonce = random().map_err(NewcomerError::Random)?;
        let challenge = ResumeChallenge { nonce: nonce.to_vec().into() };
        self.within("its reading", wire.send(Envelope::new(ids::RESUME, challenge))).await??;
        match self.hear(&mut wire, "proof").await? {
            Payload::ResumeProof(proof) if self.key.proves(&nonce, &self.boot_id, &proof.hmac) => {
                Ok(Proven { wire, init: self.init.clone() })
            }
            Payload::ResumeProof(_) => Err(NewcomerError::Unproven),
            other => Err(NewcomerError::Unexpected { wanted: "a proof", got: other.name() }),
        }
    }

    fn same_agent(&self, hello: &Hello) -> Result<(), NewcomerError> {
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(NewcomerError::Another("another version of the protocol"));
        }
        if hello.boot_id != self.boot_id {
            return Err(NewcomerError::Another("another boot"));
        }
        if Terms::agree(hello).0 != self.terms {
            return Err(NewcomerError::Another("other extensions"));
        }
        Ok(())
    }

    async fn hear(&self, wire: &mut Wire, what: &'static str) -> Result<Payload, NewcomerError> {
        match self.within(what, wire.next()).await?.ok_or(NewcomerError::Closed)?? {
            Heard::Message(envelope) => Ok(envelope.payload),
            Heard::PassedOver => Err(NewcomerError::Unexpected { wanted: what, got: "a large message" }),
        }
    }

    async fn within<T>(&self, what: &'static str, work: impl Future<Output = T>) -> Result<T, NewcomerError> {
        let bound = self.patience.newcomer;
        timeout(bound, work).await.map_err(|_| NewcomerError::Silent { what, bound })
    }
}
