//! Shells: terminals, and what is typed.

use creel_proto::v1 as wire;
use creel_proto::v1::shell_request::Message;

use super::Malformed;
use crate::runtime::{MAX_SHELL_INPUT_BYTES, MachineId, ShellInput, ShellRequest, TerminalSize};

const MAX_TERM_BYTES: usize = 64;

pub(in crate::api) fn shell_request(start: wire::ShellStart) -> Result<ShellRequest, Malformed> {
    let wire::ShellStart { machine_id: _, term, size: terminal } = start;
    let term = checked_term(term)?;
    let size = terminal.map_or(Ok(TerminalSize::default()), |terminal| size(terminal, "size"))?;
    Ok(ShellRequest { term, size })
}

/// A value of TERM, which may be empty.
pub(super) fn checked_term(term: String) -> Result<String, Malformed> {
    if term.len() > MAX_TERM_BYTES || term.contains(|c: char| c.is_control()) {
        return Err(Malformed(format!(
            "`term` must have at most {MAX_TERM_BYTES} bytes, without control characters"
        )));
    }
    Ok(term)
}

pub(super) fn size(size: wire::TerminalSize, field: &str) -> Result<TerminalSize, Malformed> {
    let side = |count: u32, name: &str| {
        u16::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
            Malformed(format!("`{field}.{name}` is {count}; a terminal has 1 to {} of them", u16::MAX))
        })
    };
    Ok(TerminalSize { rows: side(size.rows, "rows")?, columns: side(size.columns, "columns")? })
}

/// What follows `start`.
pub(in crate::api) fn shell_input(message: Message) -> Result<ShellInput, Malformed> {
    match message {
        Message::Start(_) => Err(Malformed("`start` may only be the first message of a call".to_owned())),
        Message::Data(bytes) if bytes.len() > MAX_SHELL_INPUT_BYTES => Err(Malformed(format!(
            "`data` has {} bytes, more than the {MAX_SHELL_INPUT_BYTES} that it may have",
            bytes.len()
        ))),
        Message::Data(bytes) => Ok(ShellInput::Bytes(bytes)),
        Message::Resize(terminal) => size(terminal, "resize").map(ShellInput::Resize),
    }
}

pub(in crate::api) fn shell_start(machine: &MachineId, request: ShellRequest) -> wire::ShellRequest {
    let ShellRequest { term, size } = request;
    let start = wire::ShellStart { machine_id: machine.to_string(), term, size: Some(size.into()) };
    wire::ShellRequest { message: Some(Message::Start(start)) }
}

impl From<TerminalSize> for wire::TerminalSize {
    fn from(size: TerminalSize) -> Self {
        Self { rows: size.rows.into(), columns: size.columns.into() }
    }
}

impl From<ShellInput> for wire::ShellRequest {
    fn from(input: ShellInput) -> Self {
        let message = match input {
            ShellInput::Bytes(bytes) => Message::Data(bytes),
            ShellInput::Resize(size) => Message::Resize(size.into()),
        };
        Self { message: Some(message) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn any_input() -> impl Strategy<Value = ShellInput> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| ShellInput::Bytes(bytes.into())),
            (1u16.., 1u16..).prop_map(|(rows, columns)| ShellInput::Resize(TerminalSize { rows, columns })),
        ]
    }

    proptest! {
        #[test]
        fn what_is_typed_is_the_same_on_the_other_side(input in any_input()) {
            let wire = wire::ShellRequest::decode(&wire::ShellRequest::from(input.clone()).encode_to_vec()[..]);
            prop_assert_eq!(shell_input(wire.unwrap().message.unwrap()), Ok(input));
        }

        #[test]
        fn a_request_is_the_same_on_the_other_side(term in "[a-z0-9-]{0,64}", rows in 1u16.., columns in 1u16..) {
            let request = ShellRequest { term, size: TerminalSize { rows, columns } };
            let wire = shell_start(&MachineId::random().unwrap(), request.clone());
            let Some(Message::Start(start)) = wire.message else { panic!("not a start") };
            prop_assert_eq!(shell_request(start), Ok(request));
        }

        /// Of any bytes come a message within its bounds, or a refusal.
        #[test]
        fn any_message_is_understood_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let Ok(wire::ShellRequest { message: Some(message) }) = wire::ShellRequest::decode(&bytes[..]) else {
                return Ok(());
            };
            if let Message::Start(start) = &message
                && let Ok(request) = shell_request(start.clone())
            {
                prop_assert!(request.size.rows > 0 && request.size.columns > 0 && request.term.len() <= 64);
            }
            if let Ok(ShellInput::Resize(size)) = shell_input(message) {
                prop_assert!(size.rows > 0 && size.columns > 0);
            }
        }
    }
}
