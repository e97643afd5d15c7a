//! The first message of a call that goes on: received here instead of by gRPC's decoder, which would keep the room for
//! it for as long as the call lasts.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tonic::Status;
use tonic::codegen::StdError;

use super::{HEADER_BYTES, Reading};
use crate::api::service::MAX_REQUEST_BYTES;
use crate::api::turns::Turn;

/// Goes with a call's request to its service, who takes it out.
#[derive(Debug, Clone)]
pub(in crate::api) struct FirstMessage(Arc<Mutex<Option<Received>>>);

#[derive(Debug)]
struct Received {
    bytes: Bytes,
    _turn: Option<Turn>,
}

impl FirstMessage {
    /// `None` where there is none. Its room, and its turn, are given back.
    ///
    /// # Errors
    /// When it is no such message.
    pub(in crate::api) fn decode<M: prost::Message + Default>(&self) -> Result<Option<M>, Status> {
        let received = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Received { bytes, .. }) = &received else { return Ok(None) };
        let message = M::decode(bytes.as_ref());
        message.map(Some).map_err(|error| Status::invalid_argument(format!("the first message: {error}")))
    }
}

impl Reading {
    /// # Errors
    /// When it does not arrive in time, or may not be as it is.
    pub(super) async fn first_message(&mut self) -> Result<FirstMessage, StdError> {
        let Some(header) = self.next().await? else { return Ok(FirstMessage(Arc::default())) };
        if header.len() != HEADER_BYTES || header[0] != 0 {
            return Err(Status::unimplemented("messages can't be compressed").into());
        }
        let length = self.missing;
        if length > MAX_REQUEST_BYTES {
            let text =
                format!("the message has {length} bytes, more than the {MAX_REQUEST_BYTES} that it may have");
            return Err(Status::invalid_argument(text).into());
        }
        let mut bytes = BytesMut::with_capacity(length);
        while bytes.len() < length {
            match self.next().await? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => return Err(Status::cancelled("the call ended within its first message").into()),
            }
        }
        // Who has said it may think for as long as he likes.
        self.deadline = None;
        let received = Received { bytes: bytes.freeze(), _turn: self.turn.take() };
        Ok(FirstMessage(Arc::new(Mutex::new(Some(received)))))
    }
}
