//! The handshake: Hello and Init, with a proof between them where the host asks for one.

use std::time::Duration;

use creel_proto::agent::{Hello, Init, ResumeProof};
use creel_proto::names::{extensions, ids};
use creel_proto::{Envelope, FrameCodec, FrameError, Payload};
use futures_util::StreamExt as _;
use tokio::io::AsyncRead;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use crate::guest::Guest;
use crate::outbox::Outbox;
use crate::resume::{InvalidKey, MachineKey};

/// How long the host may take for each of its messages.
const INIT_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the host did not answer within {} s", INIT_LIMIT.as_secs())]
    NoInit,
    #[error("the host sent `{0}` instead of Init")]
    NotInit(&'static str),
    #[error("the host asks for a proof, and has never given a machine key")]
    NoKey,
    #[error("the host asks for a second proof")]
    SecondChallenge,
    #[error("the host goes on with a session for which it asked no proof")]
    Unproven,
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
}

/// Greets the host. `None`: it hung up.
///
/// # Errors
/// When the host breaks the contract or does not answer.
pub(super) async fn greet(
    outbox: &Outbox,
    messages: &mut FramedRead<impl AsyncRead + Unpin, FrameCodec>,
    hello: Hello,
    guest: &Guest,
) -> Result<Option<Init>, GreetError> {
    let boot_id = hello.boot_id.clone();
    outbox.send(ids::HELLO, hello);
    let mut proven = false;
    loop {
        let message: Envelope = match timeout(INIT_LIMIT, messages.next()).await {
            Ok(Some(message)) => message?,
            Ok(None) => return Ok(None),
            Err(_) => return Err(GreetError::NoInit),
        };
        match message.payload {
            Payload::ResumeChallenge(_) if proven => return Err(GreetError::SecondChallenge),
            Payload::ResumeChallenge(challenge) => {
                let hmac = guest.prove(&challenge.nonce, &boot_id).ok_or(GreetError::NoKey)?;
                outbox.send(ids::RESUME, ResumeProof { hmac: hmac.into() });
                proven = true;
            }
            Payload::Init(init) if init.resumed && !proven => return Err(GreetError::Unproven),
            Payload::Init(mut init) => {
                let key = std::mem::take(&mut init.machine_key);
                if !init.resumed {
                    let resumes = init.extensions.iter().any(|named| named == extensions::RESUME_1);
                    let key =
                        (resumes && !key.is_empty()).then(|| MachineKey::try_from(&key[..])).transpose()?;
                    guest.begin_anew(key);
                }
                return Ok(Some(init));
            }
            other => return Err(GreetError::NotInit(other.name())),
        }
    }
}
