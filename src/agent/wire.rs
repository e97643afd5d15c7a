//! Messages of a guest, at no more cost than their size.
//!
//! A megabyte of `BuiltPaths` decodes to half a million strings, at a dozen times its size. Only a program's output may be
//! large here, and is decoded without copies; any other large message is passed over as it came, since none of those is
//! an answer to anything that this host asks.

use bytes::{Buf as _, BytesMut};
use creel_proto::{Envelope, FrameCodec, FrameError, MAX_MESSAGE_BYTES};
use tokio_util::codec::{Decoder, Encoder, Framed};

use super::shell::MAX_SHOWN_BYTES;
use crate::transport::ByteStream;

/// A connection of a guest's agent.
pub type Wire = Framed<Box<dyn ByteStream>, GuestCodec>;

/// Larger messages have to be output. Decoded, it takes a few hundred KiB at most.
const LARGE_BYTES: usize = 64 << 10;

const HEADER_BYTES: usize = 4;

/// An id and the keys of a message around what a terminal shows.
const SHELL_OVERHEAD_BYTES: usize = 1 << 10;

/// The numbers of exec_stdout, exec_stderr and pty_data in the contract.
const OUTPUT_FIELDS: [u64; 3] = [5, 6, 16];

/// What a guest has said.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart as soon as it is made")]
pub enum Heard {
    Message(Envelope),
    /// Too large for what it is.
    PassedOver,
}

/// [`FrameCodec`] for the host's end.
#[derive(Debug, Clone, Copy)]
pub struct GuestCodec {
    /// Longer messages are not waited for.
    most: usize,
}

impl Default for GuestCodec {
    fn default() -> Self {
        Self { most: MAX_MESSAGE_BYTES }
    }
}

impl GuestCodec {
    /// For a shell's connection, of which a machine has several beside its agent's.
    pub(super) fn of_shell() -> Self {
        Self { most: MAX_SHOWN_BYTES + SHELL_OVERHEAD_BYTES }
    }
}

impl Decoder for GuestCodec {
    type Item = Heard;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Heard>, FrameError> {
        if let Some(header) = input.first_chunk::<HEADER_BYTES>() {
            let announced = u32::from_be_bytes(*header) as usize;
            if announced > self.most {
                return Err(FrameError::TooLong { announced, most: self.most });
            }
            let end = HEADER_BYTES + announced;
            if announced > LARGE_BYTES && input.get(HEADER_BYTES..end).is_some_and(|body| !is_output(body)) {
                input.advance(end);
                return Ok(Some(Heard::PassedOver));
            }
        }
        Ok(FrameCodec.decode(input)?.map(Heard::Message))
    }
}

impl Encoder<Envelope> for GuestCodec {
    type Error = FrameError;

    fn encode(&mut self, envelope: Envelope, output: &mut BytesMut) -> Result<(), FrameError> {
        FrameCodec.encode(envelope, output)
    }
}

/// Whether nothing but an id and output is in a message (protobuf's encoding: a key, and here always a length).
fn is_output(mut body: &[u8]) -> bool {
    const ID: u64 = 1;
    const LENGTH_DELIMITED: u64 = 2;
    while !body.is_empty() {
        let (Some(key), Some(length)) = (varint(&mut body), varint(&mut body)) else { return false };
        let (field, kind) = (key >> 3, key & 7);
        let known = field == ID || OUTPUT_FIELDS.contains(&field);
        let rest = usize::try_from(length).ok().and_then(|length| body.get(length..));
        match rest {
            Some(rest) if known && kind == LENGTH_DELIMITED => body = rest,
            _ => return false,
        }
    }
    true
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use creel_proto::Payload;
    use creel_proto::agent::{BuiltPaths, ExecStderr, ExecStdout, PtyData};
    use proptest::prelude::*;

    use super::*;

    fn framed(payload: Payload) -> BytesMut {
        let mut bytes = BytesMut::new();
        FrameCodec.encode(Envelope::new("id", payload), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn large_output_is_read_and_anything_else_that_large_is_passed_over() {
        let raw = Bytes::from(vec![7; 500_000]);
        for payload in [
            Payload::from(ExecStdout { raw: raw.clone(), offset: 1 << 40, ..Default::default() }),
            ExecStderr { raw: raw.clone(), end: true, ..Default::default() }.into(),
            PtyData { data: raw }.into(),
        ] {
            let mut input = framed(payload.clone());
            assert_eq!(
                GuestCodec::default().decode(&mut input).unwrap(),
                Some(Heard::Message(Envelope::new("id", payload)))
            );
        }
        let mut input =
            framed(BuiltPaths { paths: vec![String::new(); 500_000], ..Default::default() }.into());
        input.unsplit(framed(BuiltPaths { paths: vec!["x".into()], ..Default::default() }.into()));
        assert_eq!(GuestCodec::default().decode(&mut input).unwrap(), Some(Heard::PassedOver));
        assert!(
            matches!(GuestCodec::default().decode(&mut input).unwrap(), Some(Heard::Message(_))),
            "the next one is"
        );
        assert!(input.is_empty());
    }

    proptest! {
        #[test]
        fn any_large_body_is_read_passed_over_or_refused(start in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut body = start;
            body.resize(LARGE_BYTES + 1, 0);
            let mut input = BytesMut::from(&u32::try_from(body.len()).unwrap().to_be_bytes()[..]);
            input.extend_from_slice(&body);
            let _ = GuestCodec::default().decode(&mut input);
        }
    }
}
