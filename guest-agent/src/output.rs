//! Output of a program as messages. Pure: bytes in, payloads out.
//!
//! With `creel.output.1` the bytes go as they are, each chunk with its offset in the stream. A plain
//! version-1 host gets text: a UTF-8 sequence that a chunk border cut in two is put together again, and
//! only bytes that are wrong in any case are replaced.

use bytes::Bytes;
use creel_proto::Payload;
use creel_proto::agent::{ExecStderr, ExecStdout};

/// Which of a program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What the host understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputForm {
    /// `creel.output.1`.
    Raw,
    /// Version 1.
    Text,
}

/// Turns one stream's chunks, in order, into payloads.
#[derive(Debug)]
pub struct OutputEncoder {
    stream: Stream,
    state: State,
}

#[derive(Debug)]
enum State {
    Raw { offset: u64 },
    Text(TextCarry),
}

impl OutputEncoder {
    pub fn new(stream: Stream, form: OutputForm) -> Self {
        let state = match form {
            OutputForm::Raw => State::Raw { offset: 0 },
            OutputForm::Text => State::Text(TextCarry::default()),
        };
        Self { stream, state }
    }

    /// The next chunk's payload; `None` when there is nothing to say yet.
    pub fn encode(&mut self, chunk: &[u8]) -> Option<Payload> {
        if chunk.is_empty() {
            return None;
        }
        match &mut self.state {
            State::Raw { offset } => {
                let start = *offset;
                *offset += chunk.len() as u64;
                Some(self.payload(String::new(), Bytes::copy_from_slice(chunk), start))
            }
            State::Text(carry) => {
                let text = carry.push(chunk);
                self.text(text)
            }
        }
    }

    /// What is left at the stream's end: the start of a character that never came.
    pub fn finish(&mut self) -> Option<Payload> {
        match &mut self.state {
            State::Raw { .. } => None,
            State::Text(carry) => {
                let text = carry.finish();
                self.text(text)
            }
        }
    }

    fn text(&self, text: String) -> Option<Payload> {
        (!text.is_empty()).then(|| self.payload(text, Bytes::new(), 0))
    }

    fn payload(&self, data: String, raw: Bytes, offset: u64) -> Payload {
        match self.stream {
            Stream::Stdout => ExecStdout { data, raw, offset }.into(),
            Stream::Stderr => ExecStderr { data, raw, offset }.into(),
        }
    }
}

/// Bytes to text across chunk borders. The concatenation of all that it returns is
/// `String::from_utf8_lossy` of the concatenation of all that it was given.
#[derive(Debug, Default)]
struct TextCarry {
    /// The start of a character, at most three bytes.
    pending: Vec<u8>,
}

impl TextCarry {
    fn push(&mut self, chunk: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(chunk);
        let mut text = String::with_capacity(bytes.len());
        let mut rest = &bytes[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(length) = error.error_len() else {
                        self.pending = invalid.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &invalid[length..];
                }
            }
        }
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stdout(payload: Payload) -> ExecStdout {
        match payload {
            Payload::ExecStdout(stdout) => stdout,
            other => panic!("expected stdout, got {}", other.name()),
        }
    }

    #[test]
    fn a_character_cut_in_two_arrives_whole() {
        let mut encoder = OutputEncoder::new(Stream::Stderr, OutputForm::Text);
        assert_eq!(encoder.encode(&"ü".as_bytes()[..1]), None);
        let payload = encoder.encode(&"ü".as_bytes()[1..]);
        assert_eq!(payload, Some(ExecStderr { data: "ü".into(), ..Default::default() }.into()));
        assert_eq!(encoder.finish(), None);
    }

    #[test]
    fn a_character_that_never_ends_is_replaced_at_the_end() {
        let mut encoder = OutputEncoder::new(Stream::Stdout, OutputForm::Text);
        assert_eq!(encoder.encode(b"a\xf0\x9f").map(stdout).unwrap().data, "a");
        assert_eq!(encoder.finish().map(stdout).unwrap().data, "\u{fffd}");
    }

    proptest! {
        #[test]
        fn text_does_not_depend_on_chunk_borders(
            parts in proptest::collection::vec(
                prop_oneof![
                    any::<String>().prop_map(String::into_bytes),
                    proptest::collection::vec(any::<u8>(), 0..6),
                    // Prefixes and relatives of longer sequences.
                    proptest::sample::select(vec![vec![0xf0, 0x9f], vec![0xed, 0xa0], vec![0xe2, 0x82], vec![0xc3]]),
                ],
                0..12,
            ),
            chunk in 1usize..9,
        ) {
            let bytes = parts.concat();
            let mut encoder = OutputEncoder::new(Stream::Stdout, OutputForm::Text);
            let mut text = String::new();
            for chunk in bytes.chunks(chunk) {
                if let Some(payload) = encoder.encode(chunk) {
                    text.push_str(&stdout(payload).data);
                }
            }
            if let Some(payload) = encoder.finish() {
                text.push_str(&stdout(payload).data);
            }
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn raw_chunks_are_identical_and_contiguous(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            chunk in 1usize..40,
        ) {
            let mut encoder = OutputEncoder::new(Stream::Stdout, OutputForm::Raw);
            let mut received = Vec::new();
            for chunk in bytes.chunks(chunk) {
                let message = stdout(encoder.encode(chunk).unwrap());
                prop_assert_eq!(message.offset, received.len() as u64);
                prop_assert!(message.data.is_empty());
                received.extend_from_slice(&message.raw);
            }
            prop_assert_eq!(encoder.finish(), None);
            prop_assert_eq!(received, bytes);
        }
    }
}
