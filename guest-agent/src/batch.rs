//! Frames on their way into the connection: what one write takes. Pure.
//!
//! Output is not copied here: its frame's head is put together by hand, and the bytes are written from where they lie. The
//! field with the bytes comes last in a message, which a decoder does not care about (protobuf, "Field Order").

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use creel_proto::{Envelope, FrameCodec, FrameError};
use tokio_util::codec::Encoder as _;

use crate::output::Stream;

/// Output shorter than this is copied behind its head: a part of its own in a write costs more.
const LEAST_PART_BYTES: usize = 4 << 10;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

/// Field numbers of agent.proto.
const MESSAGE_ID: u64 = 1;
const EXEC_STDOUT: u64 = 5;
const EXEC_STDERR: u64 = 6;
const OUTPUT_RAW: u64 = 1000;
const OUTPUT_OFFSET: u64 = 1001;
const OUTPUT_END: u64 = 1002;

/// A chunk of output: the contract's `ExecStdout` or `ExecStderr` with `raw`.
#[derive(Debug)]
pub struct OutputFrame<'a> {
    pub id: &'a str,
    pub stream: Stream,
    pub offset: u64,
    pub bytes: Bytes,
    pub end: bool,
}

/// Read as a [`Buf`] it is the bytes to be written.
#[derive(Debug, Default)]
pub struct Batch {
    parts: VecDeque<Bytes>,
    part_bytes: usize,
    /// What comes after the parts.
    tail: BytesMut,
}

impl Batch {
    /// # Errors
    /// When the message is too long; nothing of it is added then.
    pub fn put(&mut self, message: Envelope) -> Result<(), FrameError> {
        FrameCodec.encode(message, &mut self.tail)
    }

    /// Adds output, which is far below a frame's limit.
    pub fn put_output(&mut self, frame: OutputFrame<'_>) {
        let OutputFrame { id, stream, offset, bytes, end } = frame;
        let field = match stream {
            Stream::Stdout => EXEC_STDOUT,
            Stream::Stderr => EXEC_STDERR,
        };
        let mut output_bytes = 0;
        if offset != 0 {
            output_bytes += varint_length(key(OUTPUT_OFFSET, VARINT)) + varint_length(offset);
        }
        if end {
            output_bytes += varint_length(key(OUTPUT_END, VARINT)) + 1;
        }
        if !bytes.is_empty() {
            output_bytes += delimited_length(OUTPUT_RAW, bytes.len());
        }
        let length = delimited_length(MESSAGE_ID, id.len()) + delimited_length(field, output_bytes);
        let length = u32::try_from(length).expect("an id and a chunk are short");
        self.tail.put_u32(length);
        self.put_delimited_head(MESSAGE_ID, id.len());
        self.tail.put_slice(id.as_bytes());
        self.put_delimited_head(field, output_bytes);
        if offset != 0 {
            self.put_varint(key(OUTPUT_OFFSET, VARINT));
            self.put_varint(offset);
        }
        if end {
            self.put_varint(key(OUTPUT_END, VARINT));
            self.put_varint(1);
        }
        if !bytes.is_empty() {
            self.put_delimited_head(OUTPUT_RAW, bytes.len());
        }
        if bytes.len() < LEAST_PART_BYTES {
            self.tail.put_slice(&bytes);
        } else {
            self.close();
            self.part_bytes += bytes.len();
            self.parts.push_back(bytes);
        }
    }

    /// What comes next does not move what is there: as much of it as there is may be written.
    pub fn close(&mut self) {
        if !self.tail.is_empty() {
            self.part_bytes += self.tail.len();
            self.parts.push_back(self.tail.split().freeze());
        }
    }

    fn put_delimited_head(&mut self, field: u64, length: usize) {
        self.put_varint(key(field, LENGTH_DELIMITED));
        self.put_varint(length as u64);
    }

    fn put_varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.tail.put_u8(low & 0x7f);
                return;
            }
            self.tail.put_u8(low | 0x80);
        }
    }
}

fn key(field: u64, wire_type: u64) -> u64 {
    field << 3 | wire_type
}

fn varint_length(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn delimited_length(field: u64, length: usize) -> usize {
    varint_length(key(field, LENGTH_DELIMITED)) + varint_length(length as u64) + length
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.part_bytes + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&self.tail, |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.parts.iter().map(|part| &part[..]).chain([&self.tail[..]]);
        let parts = parts.filter(|part| !part.is_empty());
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            let step = count.min(part.len());
            part.advance(step);
            self.part_bytes -= step;
            count -= step;
            if !part.is_empty() {
                return;
            }
            self.parts.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::Payload;
    use creel_proto::agent::{ExecStderr, ExecStdout, Ping};
    use proptest::prelude::*;
    use tokio_util::codec::Decoder as _;

    use super::*;

    proptest! {
        /// A decoder that was generated from the contract, fed in parts.
        #[test]
        fn what_is_put_is_what_arrives(
            frames in proptest::collection::vec(
                (
                    "[a-z]{1,300}",
                    any::<bool>(),
                    prop_oneof![0..300u64, any::<u64>()],
                    prop_oneof![0..200usize, 0..9000usize, Just(65408)],
                    any::<bool>(),
                ),
                0..6,
            ),
            step in 1..70_000usize,
        ) {
            let mut batch = Batch::default();
            let mut expected = Vec::new();
            for (id, stdout, offset, length, end) in frames {
                let bytes = Bytes::from(vec![b'x'; length]);
                let stream = if stdout { Stream::Stdout } else { Stream::Stderr };
                batch.put_output(OutputFrame { id: &id, stream, offset, bytes: bytes.clone(), end });
                let payload: Payload = match stream {
                    Stream::Stdout => ExecStdout { data: String::new(), raw: bytes, offset, end }.into(),
                    Stream::Stderr => ExecStderr { data: String::new(), raw: bytes, offset, end }.into(),
                };
                expected.push(Envelope::new(id, payload));
                let ping = Envelope::new("x", Ping { sequence: offset });
                batch.put(ping.clone()).unwrap();
                expected.push(ping);
            }
            batch.close();
            let mut wire = BytesMut::new();
            while batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = batch.chunks_vectored(&mut slices);
                let mut written = 0;
                for slice in &slices[..filled] {
                    let length = slice.len().min(step - written);
                    wire.extend_from_slice(&slice[..length]);
                    written += length;
                }
                prop_assert!(written > 0);
                let before = batch.remaining();
                batch.advance(written);
                prop_assert_eq!(batch.remaining(), before - written);
            }
            let mut received = Vec::new();
            while let Some(envelope) = FrameCodec.decode(&mut wire).unwrap() {
                received.push(envelope);
            }
            prop_assert_eq!(received, expected);
            prop_assert!(wire.is_empty());
        }
    }
}
