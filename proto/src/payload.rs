//! A message as the sum type that it really is: an id and exactly one payload.
//!
//! Version 1 declared the payloads as separate fields with a validation rule ("exactly one, and an id
//! of at least one byte") instead of a `oneof`. The rule is checked here, once, at the edge; inside,
//! code matches on [`Payload`].

use prost::Message as _;

use crate::agent::{self, Message};

/// Why a decoded message breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    #[error("its id is empty")]
    EmptyId,
    #[error("a message carries {count} payloads; exactly one is allowed")]
    PayloadCount { count: usize },
}

/// A valid message.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    id: String,
    pub payload: Payload,
}

impl Envelope {
    /// # Panics
    /// When `id` is empty: ids are chosen by this program, never by a peer.
    pub fn new(id: impl Into<String>, payload: impl Into<Payload>) -> Self {
        let id = id.into();
        assert!(!id.is_empty(), "an agent message needs an id");
        Self { id, payload: payload.into() }
    }

    /// How long the message is on the wire, in bytes without the frame's header; at most
    /// [`MAX_MESSAGE_BYTES`](crate::MAX_MESSAGE_BYTES) can be sent.
    pub fn encoded_len(&self) -> usize {
        Message::from(self.clone()).encoded_len()
    }

    /// Names the exchange that this message belongs to; never empty.
    pub fn id(&self) -> &str {
        &self.id
    }
}

macro_rules! payloads {
    ($($variant:ident = $field:ident),+ $(,)?) => {
        /// What a message says.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Payload {
            $($variant(agent::$variant),)+
        }

        impl Payload {
            /// The field's name in the contract, for logs and errors.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($field),)+
                }
            }
        }

        $(impl From<agent::$variant> for Payload {
            fn from(payload: agent::$variant) -> Self {
                Self::$variant(payload)
            }
        })+

        impl TryFrom<Message> for Envelope {
            type Error = InvalidMessage;

            fn try_from(message: Message) -> Result<Self, InvalidMessage> {
                let Message { id, $($field),+ } = message;
                if id.is_empty() {
                    return Err(InvalidMessage::EmptyId);
                }
                let mut payloads = [$($field.map(Payload::$variant)),+].into_iter().flatten();
                match (payloads.next(), payloads.count()) {
                    (Some(payload), 0) => Ok(Self { id, payload }),
                    (first, rest) => {
                        Err(InvalidMessage::PayloadCount { count: usize::from(first.is_some()) + rest })
                    }
                }
            }
        }

        impl From<Envelope> for Message {
            fn from(envelope: Envelope) -> Self {
                let mut message = Self { id: envelope.id, ..Self::default() };
                match envelope.payload {
                    $(Payload::$variant(payload) => message.$field = Some(payload),)+
                }
                message
            }
        }
    };
}

payloads! {
    Hello = hello,
    Init = init,
    ExecStart = exec_start,
    ExecStdout = exec_stdout,
    ExecStderr = exec_stderr,
    ExecExit = exec_exit,
    ActivateConfig = activate_config,
    ActivateConfigResult = activate_config_result,
    BuiltPaths = built_paths,
    CacheDrain = cache_drain,
    CacheDrainResult = cache_drain_result,
    Poweroff = poweroff,
    PoweroffResult = poweroff_result,
    OpenDebugShell = open_debug_shell,
    PtyData = pty_data,
    PtyResize = pty_resize,
    SourceUnpack = source_unpack,
    SourceUnpackResult = source_unpack_result,
    ExecSignal = exec_signal,
    ExecCancel = exec_cancel,
    ExecState = exec_state,
    ExecInput = exec_input,
    ExecWindow = exec_window,
    ExecForget = exec_forget,
    ResumeChallenge = resume_challenge,
    ResumeProof = resume_proof,
    Ping = ping,
    Pong = pong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_id_is_invalid() {
        let message = Message { poweroff: Some(agent::Poweroff {}), ..Default::default() };
        assert_eq!(Envelope::try_from(message), Err(InvalidMessage::EmptyId));
    }

    #[test]
    fn a_message_without_payload_is_invalid() {
        let message = Message { id: "x".into(), ..Default::default() };
        assert_eq!(Envelope::try_from(message), Err(InvalidMessage::PayloadCount { count: 0 }));
    }

    #[test]
    fn every_payload_keeps_its_place() {
        let envelope = Envelope::new("poweroff", agent::Poweroff {});
        assert_eq!(envelope.payload.name(), "poweroff");
        assert_eq!(Envelope::try_from(Message::from(envelope.clone())), Ok(envelope));
    }

    /// Other agents and hosts were built with these numbers: `field << 3 | 2` as a varint, then the message's length.
    #[test]
    fn the_numbers_of_what_ends_an_exec_stay() {
        let body = |payload: Payload| Message::from(Envelope::new("x", payload)).encode_to_vec();
        let signal = agent::ExecSignal { signal: 15 };
        assert_eq!(body(signal.into()), [b"\x0a\x01x".as_slice(), &[0xd2, 0x3e, 2, 8, 15]].concat());
        let cancel = agent::ExecCancel { grace_ms: 2000 };
        assert_eq!(body(cancel.into()), [b"\x0a\x01x".as_slice(), &[0xda, 0x3e, 3, 8, 0xd0, 0x0f]].concat());
    }
    /// Of the extensions that came later: the payload's number, and those of its fields.
    #[test]
    fn the_numbers_of_credit_resume_and_heartbeat_stay() {
        let body =
            |payload: Payload| Message::from(Envelope::new("x", payload)).encode_to_vec()[3..].to_vec();
        let state = agent::ExecState { input_written: 1, input_limit: 2, input_closed: true };
        assert_eq!(body(state.into()), [0xe2, 0x3e, 6, 8, 1, 16, 2, 24, 1]);
        let input = agent::ExecInput { offset: 1, data: vec![7].into(), end: true };
        assert_eq!(body(input.into()), [0xea, 0x3e, 7, 8, 1, 18, 1, 7, 24, 1]);
        let window = agent::ExecWindow {
            stdout_acknowledged: 1,
            stderr_acknowledged: 2,
            stdout_limit: 3,
            stderr_limit: 4,
        };
        assert_eq!(body(window.into()), [0xf2, 0x3e, 8, 8, 1, 16, 2, 24, 3, 32, 4]);
        assert_eq!(body(agent::ExecForget {}.into()), [0xfa, 0x3e, 0]);
        let nonce = vec![7].into();
        assert_eq!(body(agent::ResumeChallenge { nonce }.into()), [0x82, 0x3f, 3, 10, 1, 7]);
        let hmac = vec![7].into();
        assert_eq!(body(agent::ResumeProof { hmac }.into()), [0x8a, 0x3f, 3, 10, 1, 7]);
        assert_eq!(body(agent::Ping { sequence: 5 }.into()), [0x92, 0x3f, 2, 8, 5]);
        assert_eq!(body(agent::Pong { sequence: 5 }.into()), [0x9a, 0x3f, 2, 8, 5]);
        let output = agent::ExecStdout { raw: vec![7].into(), offset: 1, end: true, ..Default::default() };
        assert_eq!(body(output.into()), [0x2a, 10, 0xc2, 0x3e, 1, 7, 0xc8, 0x3e, 1, 0xd0, 0x3e, 1]);
    }
}
