//! Hello and Init: what an agent and creel agree on before anything else.

use std::time::Duration;

use creel_proto::agent::{Hello, Init};
use creel_proto::names::{PROTOCOL_VERSION, extensions, ids};
use creel_proto::{Envelope, FrameCodec, FrameError, Payload};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::session::{Session, SessionEvents};
use crate::transport::Connection;

/// The extensions that this side can use.
const OURS: [&str; 2] = [extensions::OUTPUT_1, extensions::SOURCE_1];

/// A hostile Hello may name thousands; nobody needs more.
const MAX_EXTENSIONS: usize = 64;

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
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Receives Hello, answers Init, and makes the connection a session. All of it within `bound`.
///
/// # Errors
/// When the peer is silent, gone, or no agent of our version.
pub async fn handshake(
    connection: Connection,
    parameters: InitParameters,
    bound: Duration,
) -> Result<(Session, SessionEvents), HandshakeError> {
    let mut framed = Framed::new(connection.stream, FrameCodec);
    let exchange = async {
        let hello = receive_hello(&mut framed).await?;
        let agreed: Vec<String> = OURS
            .into_iter()
            .filter(|ours| hello.extensions.iter().take(MAX_EXTENSIONS).any(|theirs| theirs == ours))
            .map(str::to_owned)
            .collect();
        let init = Init {
            job_id: parameters.job_id,
            cache_trusted_public_keys: parameters.cache_trusted_public_keys,
            cache_read_proxy_port: parameters.cache_read_proxy_port,
            cache_upload_proxy_port: parameters.cache_upload_proxy_port,
            dns_proxy_port: parameters.dns_proxy_port,
            extensions: agreed.clone(),
        };
        framed.send(Envelope::new(ids::INIT, init)).await?;
        Ok::<_, HandshakeError>((hello, agreed))
    };
    let (hello, agreed) = timeout(bound, exchange).await.map_err(|_| HandshakeError::Silent(bound))??;
    Ok(Session::start(framed, hello, &agreed))
}

async fn receive_hello<S>(framed: &mut Framed<S, FrameCodec>) -> Result<Hello, HandshakeError>
where
    S: tokio::io::AsyncRead + Unpin,
{
    match framed.next().await.ok_or(HandshakeError::Closed)??.payload {
        Payload::Hello(hello) if hello.protocol_version == PROTOCOL_VERSION => Ok(hello),
        Payload::Hello(hello) => Err(HandshakeError::Version(hello.protocol_version)),
        other => Err(HandshakeError::NotHello(other.name())),
    }
}
