//! Output of a program as text, for a plain version-1 host. Pure: bytes in, payloads out.
//!
//! A UTF-8 sequence that a chunk border cut in two is put together again, and only bytes that are wrong in any case are
//! replaced. With `creel.output.1` the bytes go as they are ([`crate::batch`]).

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

/// Turns one stream's chunks, in order, into messages with text.
#[derive(Debug)]
pub struct TextEncoder {
    stream: Stream,
    carry: TextCarry,
}

impl TextEncoder {
    pub fn new(stream: Stream) -> Self {
        Self { stream, carry: TextCarry::default() }
    }

    /// The next chunk's payload; `None` when there is nothing to say yet.
    pub fn encode(&mut self, chunk: &[u8]) -> Option<Payload> {
        let text = self.carry.push(chunk);
        self.payload(text)
    }

    /// What is left at the stream's end: the start of a character that never came.
    pub fn finish(&mut self) -> Option<Payload> {
        let text = self.carry.finish();
        self.payload(text)
    }

    fn payload(&self, data: String) -> Option<Payload> {
        (!data.is_empty()).then(|| match self.stream {
            Stream::Stdout => ExecStdout { data, ..ExecStdout::default() }.into(),
            Stream::Stderr => ExecStderr { data, ..ExecStderr::default() }.into(),
        })
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
        let mut encoder = TextEncoder::new(Stream::Stderr);
        assert_eq!(encoder.encode(&"ü".as_bytes()[..1]), None);
        let payload = encoder.encode(&"ü".as_bytes()[1..]);
        assert_eq!(payload, Some(ExecStderr { data: "ü".into(), ..Default::default() }.into()));
        assert_eq!(encoder.finish(), None);
    }

    #[test]
    fn a_character_that_never_ends_is_replaced_at_the_end() {
        let mut encoder = TextEncoder::new(Stream::Stdout);
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
            let mut encoder = TextEncoder::new(Stream::Stdout);
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
    }
}
