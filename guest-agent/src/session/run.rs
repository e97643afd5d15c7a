//! A connection from beginning to end.

use std::cell::Cell;
use std::time::Duration;

use creel_proto::agent::Hello;
use creel_proto::{FrameCodec, FrameError, Payload};
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use super::greet::{GreetError, greet};
use super::requests::{Broken, Session};
use crate::connect::Connection;
use crate::guest::Guest;
use crate::outbox::outbox;

/// How long the answer to Poweroff may take to be read: a host that has read it closes the connection.
const POWEROFF_READ_LIMIT: Duration = Duration::from_millis(100);

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
    #[error(transparent)]
    Greet(#[from] GreetError),
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Serves one connection to its end. The second value: host and guest have greeted each other.
pub async fn run(
    connection: Connection,
    hello: Hello,
    guest: &Guest,
) -> (Result<SessionEnd, SessionError>, bool) {
    let mut requests = FramedRead::new(connection.reader, FrameCodec);
    let (outbox, queue) = outbox();
    let (greeted, power_off) = (Cell::new(false), Cell::new(false));
    let serve = async {
        let Some(init) = greet(&outbox, &mut requests, hello, guest).await? else {
            return Ok(SessionEnd::Closed);
        };
        greeted.set(true);
        let session = Session::new(&init, guest.clone(), outbox.clone());
        loop {
            outbox.room().await;
            let Some(request) = requests.next().await.transpose()? else { break };
            if matches!(request.payload, Payload::Poweroff(_)) {
                power_off.set(true);
                session.answer_poweroff(request.id()).await;
                // Requests that come after it are not for this boot any more.
                let rest = async { while let Some(Ok(_)) = requests.next().await {} };
                let _ = timeout(POWEROFF_READ_LIMIT, rest).await;
                break;
            }
            session.start(request)?;
        }
        Ok(SessionEnd::Closed)
    };
    let end = tokio::select! {
        end = serve => end,
        end = queue.run(connection.writer) => end.map(|()| SessionEnd::Closed).map_err(SessionError::from),
    };
    guest.connection_lost();
    // The host may close the connection under whatever is still being written: it meant what it asked.
    (if power_off.get() { Ok(SessionEnd::PowerOff) } else { end }, greeted.get())
}
