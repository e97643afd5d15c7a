//! Framing of agent messages: a 4-byte big-endian length, then that many bytes of protobuf.
//!
//! The peer is hostile on either side, so a length is checked before anything is allocated for it, and
//! a frame that does not decode ends the connection: after it, nothing on the stream can be trusted.

use bytes::{Buf, BufMut, BytesMut};
use prost::Message as _;
use tokio_util::codec::{Decoder, Encoder};

use crate::agent::Message;
use crate::payload::{Envelope, InvalidMessage};

/// The largest message body either side may send, in bytes (upstream's limit).
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

const HEADER_BYTES: usize = 4;

/// How much is reserved at a time for a body that has been announced but not yet received: an
/// announced length alone must not cost its size in memory.
const RESERVE_STEP_BYTES: usize = 64 << 10;

/// Why a stream of frames can't go on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("peer announced a message of {announced} bytes, over the limit of {most}")]
    TooLong { announced: usize, most: usize },
    #[error("message of {size} bytes is over the limit of {MAX_MESSAGE_BYTES} and was not sent")]
    TooLongToSend { size: usize },
    #[error("peer sent a frame that is not an agent message: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("peer sent an invalid message: {0}")]
    Invalid(#[from] InvalidMessage),
    #[error("connection to the peer failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Frames [`Envelope`]s over any byte stream (`tokio_util::codec::Framed`).
#[derive(Debug, Default, Clone, Copy)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Envelope;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Envelope>, FrameError> {
        let Some(header) = input.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if length > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLong { announced: length, most: MAX_MESSAGE_BYTES });
        }
        let missing = (HEADER_BYTES + length).saturating_sub(input.len());
        if missing > 0 {
            input.reserve(missing.min(RESERVE_STEP_BYTES));
            return Ok(None);
        }
        input.advance(HEADER_BYTES);
        let body = input.split_to(length).freeze();
        Ok(Some(Message::decode(body)?.try_into()?))
    }
}

impl Encoder<Envelope> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, envelope: Envelope, output: &mut BytesMut) -> Result<(), FrameError> {
        let message = Message::from(envelope);
        let size = message.encoded_len();
        let header = u32::try_from(size)
            .ok()
            .filter(|_| size <= MAX_MESSAGE_BYTES)
            .ok_or(FrameError::TooLongToSend { size })?;
        output.reserve(HEADER_BYTES + size);
        output.put_u32(header);
        message.encode_raw(output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::{ExecCancel, ExecExit, ExecSignal, ExecStdout, OpenDebugShell, PtyData, PtyResize};
    use crate::payload::Payload;

    fn stdout(id: &str, raw: Vec<u8>) -> Envelope {
        Envelope::new(id, Payload::ExecStdout(ExecStdout { raw: raw.into(), ..Default::default() }))
    }

    fn encoded(envelope: Envelope) -> BytesMut {
        let mut bytes = BytesMut::new();
        FrameCodec.encode(envelope, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_body_arrives() {
        let mut input = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        let error = FrameCodec.decode(&mut input).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { announced, .. } if announced == u32::MAX as usize));
        assert!(input.capacity() < 4096);
    }

    #[test]
    fn an_announced_body_costs_no_memory_until_it_comes() {
        let mut input = BytesMut::from(&u32::try_from(MAX_MESSAGE_BYTES).unwrap().to_be_bytes()[..]);
        assert!(FrameCodec.decode(&mut input).unwrap().is_none());
        assert!(input.capacity() <= 2 * RESERVE_STEP_BYTES);
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let mut output = BytesMut::new();
        let error = FrameCodec.encode(stdout("x", vec![0; MAX_MESSAGE_BYTES]), &mut output).unwrap_err();
        assert!(matches!(error, FrameError::TooLongToSend { .. }));
        assert!(output.is_empty());
    }

    #[test]
    fn a_message_with_two_payloads_is_invalid() {
        let message = Message {
            id: "x".into(),
            exec_exit: Some(ExecExit::default()),
            exec_stdout: Some(ExecStdout::default()),
            ..Default::default()
        };
        let mut input = BytesMut::new();
        input.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode_raw(&mut input);
        assert!(matches!(FrameCodec.decode(&mut input), Err(FrameError::Invalid(_))));
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        // Field 999, wire type 2, "new": what a later version of the contract might add.
        let mut body = Message::from(stdout("x", b"y".to_vec())).encode_to_vec();
        body.extend([0xba, 0x3e, 3, b'n', b'e', b'w']);
        let mut input = BytesMut::new();
        input.put_u32(u32::try_from(body.len()).unwrap());
        input.extend_from_slice(&body);
        assert_eq!(FrameCodec.decode(&mut input).unwrap().unwrap().id(), "x");
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 1..8),
            chunk in 1usize..97,
        ) {
            let sent: Vec<_> = bodies.into_iter().map(|body| stdout("id", body)).collect();
            let wire: Vec<u8> = sent.iter().cloned().flat_map(encoded).collect();
            let mut input = BytesMut::new();
            let mut received = Vec::new();
            for part in wire.chunks(chunk) {
                input.extend_from_slice(part);
                while let Some(envelope) = FrameCodec.decode(&mut input).unwrap() {
                    received.push(envelope);
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn what_ends_execs_and_drives_terminals_survives_the_wire(
            id in "[ -~]{1,40}",
            numbers in any::<(u32, u32)>(),
            typed in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let (one, two) = numbers;
            let payloads: [Payload; 4] = [
                ExecSignal { signal: one }.into(),
                ExecCancel { grace_ms: two }.into(),
                PtyData { data: typed.into() }.into(),
                PtyResize { rows: one, cols: two }.into(),
            ];
            for payload in payloads {
                let sent = Envelope::new(id.clone(), payload);
                let mut input = BytesMut::from(&encoded(sent.clone())[..]);
                prop_assert_eq!(FrameCodec.decode(&mut input).unwrap(), Some(sent));
                prop_assert!(input.is_empty());
            }
        }

        /// Frames whose bodies are almost messages: right tags, wrong rest.
        #[test]
        fn damaged_messages_decode_or_fail_but_never_panic(
            typed in proptest::collection::vec(any::<u8>(), 0..60),
            numbers in any::<(u32, u32)>(),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let (one, two) = numbers;
            let payloads: [Payload; 4] = [
                ExecSignal { signal: one }.into(),
                ExecCancel { grace_ms: two }.into(),
                PtyData { data: typed.into() }.into(),
                OpenDebugShell { vsock_port: one, term: "xterm".into(), rows: two, cols: one }.into(),
            ];
            for payload in payloads {
                let mut frame = encoded(Envelope::new("id", payload));
                for (place, byte) in &damage {
                    let place = place.index(frame.len());
                    // The length says how long to wait, and is not what is tried here.
                    if place >= 4 {
                        frame[place] = *byte;
                    }
                }
                let mut input = BytesMut::from(&frame[..]);
                while let Ok(Some(_)) = FrameCodec.decode(&mut input) {}
            }
        }

        #[test]
        fn any_bytes_decode_or_fail_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = FrameCodec.decode(&mut input) {}
        }
    }
}
