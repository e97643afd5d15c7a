//! How a connection ends: by a loss that may be made good, or by a breach of the contract, which can't.

use std::io;
use std::time::Duration;

use creel_proto::FrameError;

use crate::runtime::Stream;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    #[error(transparent)]
    Loss(Loss),
    /// Nothing that the peer says can be believed any more, on this connection or a later one.
    #[error(transparent)]
    Violation(Violation),
}

/// The connection is gone; its agent may come back.
#[derive(Debug, thiserror::Error)]
pub enum Loss {
    #[error("the agent closed its connection")]
    Closed,
    #[error("connection to the peer failed: {0}")]
    Broken(#[source] io::Error),
    #[error("the agent has said nothing for {0:?}, and did not answer a ping")]
    Silent(Duration),
}

/// What a peer did that the contract forbids.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error(transparent)]
    Frame(FrameError),
    #[error("agent sent {stream:?} of `{id}` from offset {claimed} instead of {expected}")]
    Offset { id: String, stream: Stream, claimed: u64, expected: u64 },
    #[error("agent sent {stream:?} of `{id}` up to offset {end}, and {limit} was its limit")]
    OverCredit { id: String, stream: Stream, end: u64, limit: u64 },
    #[error("agent sent {stream:?} of `{id}` behind its end")]
    AfterEnd { id: String, stream: Stream },
    #[error("agent sent {stream:?} of `{id}` after its exit")]
    AfterExit { id: String, stream: Stream },
    #[error("agent told the exit of `{id}` twice")]
    SecondExit { id: String },
    #[error("agent says that {stream:?} of `{id}` has {said} bytes, and {received} came")]
    Length { id: String, stream: Stream, said: u64, received: u64 },
    #[error("agent says that `{id}` was given {written} bytes of input, and {sent} were sent")]
    InputBeyond { id: String, written: u64, sent: u64 },
    #[error("agent says that `{id}` was given {written} bytes of input, and said {before} before")]
    InputBack { id: String, written: u64, before: u64 },
    #[error("agent took back credit for the input of `{id}`: {limit}, and {before} before")]
    CreditBack { id: String, limit: u64, before: u64 },
    #[error("agent sent {count} messages that mean nothing")]
    Chatter { count: u32 },
}

impl From<Loss> for Ending {
    fn from(loss: Loss) -> Self {
        Self::Loss(loss)
    }
}

impl From<Violation> for Ending {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<FrameError> for Ending {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Loss(Loss::Broken(error)),
            error => Self::Violation(Violation::Frame(error)),
        }
    }
}
