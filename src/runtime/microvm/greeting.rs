//! Waits for a machine's agent and agrees with it, beside the machine's task.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::agent::{HandshakeError, InitParameters, Session, SessionEvents, handshake};
use crate::transport::{Connection, Listener};

/// How long Hello may take once the agent has connected (upstream's limit).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the machine's task is told.
#[derive(Debug)]
pub(super) enum Greeting {
    Connected,
    Done(Result<(Session, SessionEvents), GreetingError>),
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

/// Accepts one connection and shakes hands. The listener is dropped with the first connection: nobody
/// in the guest can come second. Ends when the receiver is gone.
pub(super) fn greet(
    mut listener: Box<dyn Listener>,
    parameters: InitParameters,
    accept_timeout: Duration,
) -> mpsc::Receiver<Greeting> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        let greeting = async {
            let connection: Connection = timeout(accept_timeout, listener.accept())
                .await
                .map_err(|_| GreetingError::NeverConnected(accept_timeout))??;
            drop(listener);
            let _ = sender.send(Greeting::Connected).await;
            Ok(handshake(connection, parameters, HANDSHAKE_TIMEOUT).await?)
        };
        tokio::select! {
            () = sender.closed() => {}
            done = greeting => {
                let _ = sender.send(Greeting::Done(done)).await;
            }
        }
    });
    receiver
}
