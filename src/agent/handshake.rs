//! Hello and Init: what an agent and creel agree on before anything else.

use std::time::Duration;

use creel_proto::agent::{Hello, Init};
use creel_proto::names::{PROTOCOL_VERSION, ids};
use creel_proto::{Envelope, FrameError, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::key::MachineKey;
use super::resume::Door;
use super::session::{Session, SessionEvents};
use super::terms::{Patience, Terms};
use super::wire::{GuestCodec, Heard, Wire};
use crate::transport::Connection;

/// What the guest is told in Init.
#[derive(Debug, Clone, Default)]
pub struct InitParameters {
    pub job_id: String,
    pub cache_trusted_public_keys: Vec<String>,
    /// vsock ports on the host; 0 means there is none.
    pub cache_read_proxy_port: u32,
    pub cache_upload_proxy_port: u32,
    pub dns_proxy_port: u32,
}

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the agent closed its connection before it said Hello")]
    Closed,
    #[error("the agent did not say Hello within {0:?}")]
    Silent(Duration),
    #[error("the agent began with `{0}` instead of Hello")]
    NotHello(&'static str),
    #[error("the agent speaks protocol version {0}; this creel speaks {PROTOCOL_VERSION}")]
    Version(u32),
    #[error("the kernel gave no random bytes for the machine's key: {0}")]
    Random(#[source] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// An agent that was greeted.
#[derive(Debug)]
pub struct Greeted {
    pub session: Session,
    pub events: SessionEvents,
    /// Where the agent may come again; `None` for one that can't.
    pub door: Option<Door>,
}

/// Receives Hello, answers Init, and makes the connection a session. All of it within `bound`.
///
/// # Errors
/// When the peer is silent, gone, or no agent of our version.
pub async fn handshake(
    connection: Connection,
    parameters: InitParameters,
    bound: Duration,
    patience: Patience,
) -> Result<Greeted, HandshakeError> {
    let mut wire: Wire = Framed::new(connection.stream, GuestCodec::default());
    let exchange = async {
        let hello = receive_hello(&mut wire).await?;
        let (terms, extensions) = Terms::agree(&hello);
        let init = Init {
            job_id: parameters.job_id,
            cache_trusted_public_keys: parameters.cache_trusted_public_keys,
            cache_read_proxy_port: parameters.cache_read_proxy_port,
            cache_upload_proxy_port: parameters.cache_upload_proxy_port,
            dns_proxy_port: parameters.dns_proxy_port,
            extensions,
            ..Init::default()
        };
        let key = match terms.resume {
            true => Some(MachineKey::generate().map_err(HandshakeError::Random)?),
            false => None,
        };
        let machine_key = key.as_ref().map(|key| key.expose().to_vec().into()).unwrap_or_default();
        wire.send(Envelope::new(ids::INIT, Init { machine_key, ..init.clone() })).await?;
        let door = key.map(|key| Door::new(key, &hello, terms, init, patience));
        Ok::<_, HandshakeError>((hello, terms, door))
    };
    let (hello, terms, door) =
        timeout(bound, exchange).await.map_err(|_| HandshakeError::Silent(bound))??;
    let (session, events) = Session::start(wire, hello, terms, patience);
    Ok(Greeted { session, events, door })
}

async fn receive_hello(wire: &mut Wire) -> Result<Hello, HandshakeError> {
    let Heard::Message(message) = wire.next().await.ok_or(HandshakeError::Closed)?? else {
        return Err(HandshakeError::NotHello("a large message"));
    };
    match message.payload {
        Payload::Hello(hello) if hello.protocol_version == PROTOCOL_VERSION => Ok(hello),
        Payload::Hello(hello) => Err(HandshakeError::Version(hello.protocol_version)),
        other => Err(HandshakeError::NotHello(other.name())),
    }
}
