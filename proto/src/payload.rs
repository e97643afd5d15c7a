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
}
