//! Waits for a machine's agent and agrees with it, beside the machine's task; then keeps the door for when it comes back.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument as _, debug, warn};

use crate::agent::{Door, Greeted, HandshakeError, InitParameters, Patience, Proven, handshake};
use crate::transport::refusals::RefusalBudget;
use crate::transport::{Connection, Listener};

/// How long Hello may take once the agent has connected (upstream's limit).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the machine's task is told.
#[derive(Debug)]
pub(super) enum Greeting {
    Connected,
    Done(Result<Box<Greeted>, GreetingError>),
    /// The agent is there again.
    Resumed(Box<Proven>),
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    #[error(
        "no agent connected within {0:?}; does the image start one, and does its kernel have virtio-vsock?"
    )]
    NeverConnected(Duration),
    #[error("failed to accept the agent's connection: {0}")]
    Transport(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// Accepts one connection and shakes hands. If its agent can prove later that it is the one that was greeted, the listener
/// stays; if it can't, the listener is dropped: nobody in the guest can come second. Ends when the receiver is gone.
pub(super) fn greet(
    mut listener: Box<dyn Listener>,
    parameters: InitParameters,
    accept_timeout: Duration,
    patience: Patience,
) -> mpsc::Receiver<Greeting> {
    let (sender, receiver) = mpsc::channel(2);
    let greeting = async move {
        let first = first(&mut *listener, &sender, parameters, accept_timeout, patience);
        let done = tokio::select! {
            () = sender.closed() => return,
            done = first => done,
        };
        let door = done.as_ref().ok().and_then(|greeted| greeted.door.clone());
        let _ = sender.send(Greeting::Done(done.map(Box::new))).await;
        if let Some(door) = door {
            tokio::select! {
                () = sender.closed() => {}
                () = keep(&mut *listener, &door, &sender) => {}
            }
        }
    };
    // Its lines in the log name the machine.
    tokio::spawn(greeting.in_current_span());
    receiver
}

async fn first(
    listener: &mut dyn Listener,
    sender: &mpsc::Sender<Greeting>,
    parameters: InitParameters,
    accept_timeout: Duration,
    patience: Patience,
) -> Result<Greeted, GreetingError> {
    let connection: Connection = timeout(accept_timeout, listener.accept())
        .await
        .map_err(|_| GreetingError::NeverConnected(accept_timeout))??;
    let _ = sender.send(Greeting::Connected).await;
    Ok(handshake(connection, parameters, HANDSHAKE_TIMEOUT, patience).await?)
}

/// Looks at who else dials, one at a time: each has a bounded time to prove that it is the agent.
async fn keep(listener: &mut dyn Listener, door: &Door, sender: &mpsc::Sender<Greeting>) {
    let mut budget = RefusalBudget::default();
    loop {
        let rest_is_due = async {
            match budget.due() {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let connection = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    warn!(%error, "the agent's port is no longer served: its connection can't be replaced");
                    return;
                }
            },
            () = rest_is_due => {
                if let Some(count) = budget.summary(Instant::now()) {
                    warn!(count, "turned more connections away that were not the agent's");
                }
                continue;
            }
        };
        match door.admit(connection).await {
            Ok(proven) => {
                debug!("the agent is there again");
                let _ = sender.send(Greeting::Resumed(Box::new(proven))).await;
            }
            Err(why) if budget.note(Instant::now()) => {
                warn!(%why, "turned a connection away that was not the agent's");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::agent::{Hello, Init, ResumeProof};
    use creel_proto::names::{extensions, ids};
    use creel_proto::{Envelope, FrameCodec, Payload};
    use futures_util::{SinkExt as _, StreamExt as _};
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::Sha256;
    use tokio::io::DuplexStream;
    use tokio_util::codec::Framed;

    use super::*;
    use crate::transport::memory::{MemoryDialer, pair};

    const RESUMABLE: [&str; 3] = [extensions::OUTPUT_1, extensions::EXEC_2, extensions::RESUME_1];

    struct Guest(Framed<DuplexStream, FrameCodec>);

    impl Guest {
        async fn says_hello(dialer: &MemoryDialer, extensions: &[&str]) -> Self {
            let mut guest = Self(Framed::new(dialer.dial().unwrap(), FrameCodec));
            let hello = Hello {
                protocol_version: 1,
                boot_id: "boot".into(),
                extensions: extensions.iter().map(ToString::to_string).collect(),
                ..Hello::default()
            };
            guest.0.send(Envelope::new(ids::HELLO, hello)).await.unwrap();
            guest
        }

        async fn hears(&mut self) -> Payload {
            timeout(HANDSHAKE_TIMEOUT, self.0.next()).await.unwrap().unwrap().unwrap().payload
        }
    }

    async fn greeted(
        extensions: &[&str],
    ) -> (mpsc::Receiver<Greeting>, MemoryDialer, Guest, Init, Box<Greeted>) {
        let (dialer, listener) = pair();
        let parameters = InitParameters { job_id: "job".into(), ..InitParameters::default() };
        let mut greetings = greet(Box::new(listener), parameters, HANDSHAKE_TIMEOUT, Patience::default());
        let mut guest = Guest::says_hello(&dialer, extensions).await;
        let Payload::Init(init) = guest.hears().await else { panic!("no Init") };
        assert!(matches!(greetings.recv().await, Some(Greeting::Connected)));
        let Some(Greeting::Done(Ok(greeted))) = greetings.recv().await else { panic!("not greeted") };
        (greetings, dialer, guest, init, greeted)
    }

    #[tokio::test]
    async fn an_agent_that_can_prove_itself_may_come_again_and_nobody_else() {
        let (mut greetings, dialer, _first, init, greeted) = greeted(&RESUMABLE).await;
        assert_eq!((init.machine_key.len(), init.resumed), (32, false));
        let mut stranger = Guest::says_hello(&dialer, &RESUMABLE).await;
        assert!(matches!(stranger.hears().await, Payload::ResumeChallenge(_)));
        let wrong = ResumeProof { hmac: vec![0; 32].into() };
        stranger.0.send(Envelope::new(ids::RESUME, wrong)).await.unwrap();
        assert!(stranger.0.next().await.is_none(), "it is hung up on");

        let mut agent = Guest::says_hello(&dialer, &RESUMABLE).await;
        let Payload::ResumeChallenge(challenge) = agent.hears().await else { panic!("no challenge") };
        let mut hmac = Hmac::<Sha256>::new_from_slice(&init.machine_key).unwrap();
        hmac.update(&[&b"creel.resume.1"[..], &challenge.nonce, b"boot"].concat());
        let proof = ResumeProof { hmac: hmac.finalize().into_bytes().to_vec().into() };
        agent.0.send(Envelope::new(ids::RESUME, proof)).await.unwrap();
        let Some(Greeting::Resumed(proven)) = greetings.recv().await else { panic!("not known again") };
        assert!(greeted.session.resume(*proven));
        let Payload::Init(again) = agent.hears().await else { panic!("no Init") };
        assert_eq!(again, Init { machine_key: Default::default(), resumed: true, ..init });
    }

    #[tokio::test]
    async fn nobody_comes_after_an_agent_that_can_t() {
        let (mut greetings, dialer, _first, init, _greeted) = greeted(&RESUMABLE[..2]).await;
        assert!(init.machine_key.is_empty());
        assert!(greetings.recv().await.is_none(), "the door is closed");
        assert!(dialer.dial().is_err());
    }

    #[tokio::test]
    async fn the_door_closes_with_the_machine() {
        let (mut greetings, dialer, _first, _init, _greeted) = greeted(&RESUMABLE).await;
        greetings.close();
        while dialer.dial().is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
