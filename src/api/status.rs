//! The library's errors as gRPC statuses.
//!
//! A failed setup travels as `google.rpc.Status` with a `creel.v1.SetupFailure` in its details, in the trailer
//! `grpc-status-details-bin`, which the standard libraries of other languages read. Trailers are headers, and peers bound
//! those: gRPC's C core takes 8 KiB. So the texts in it are cut short.

mod workflows;

use bytes::Bytes;
use creel_proto::v1 as wire;
use creel_proto::v1::setup_failure::Failure;
use prost::Message as _;
use tonic::{Code, Status};

use super::convert::Malformed;
use crate::machines::{
    ConsoleError, CreateError, DestroyError, Detached, ExecError, ShellError, SignalError,
};
use crate::runtime::{self, Outcome, SetupError, SetupFailure};

pub(super) use workflows::{Wanted, init_failed, refused};

const FAILURE_TYPE: &str = "type.googleapis.com/creel.v1.SetupFailure";

/// Non-ASCII text takes three bytes a byte in `grpc-message`, and details four for three.
const MAX_TEXT_BYTES: usize = 1 << 10;
const MAX_CONSOLE_BYTES: usize = 1 << 10;

/// google/rpc/status.proto.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// google/protobuf/any.proto.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// The status with which a setup's call ends.
pub(super) fn setup_failed(error: &SetupError) -> Status {
    let code = match &error.failure {
        SetupFailure::BadInput(_) => Code::InvalidArgument,
        SetupFailure::HostCannot(_) => Code::FailedPrecondition,
        SetupFailure::Ended(Outcome::TimedOut) => Code::DeadlineExceeded,
        SetupFailure::Ended(Outcome::Cancelled) => Code::Cancelled,
        SetupFailure::Ended(Outcome::Internal { .. }) => Code::Internal,
        SetupFailure::Ended(_) => Code::Aborted,
    };
    let message = shortened(error.to_string());
    with_detail(code, message, FAILURE_TYPE, &bounded(error.clone().into()))
}

/// A status with one message in its details. The text is in both, since libraries that read the details insist on that
/// (Python's `grpc_status.rpc_status`).
fn with_detail(code: Code, message: String, type_url: &str, detail: &impl prost::Message) -> Status {
    let details = Any { type_url: type_url.to_owned(), value: detail.encode_to_vec().into() };
    let status = RpcStatus { code: code.into(), message: message.clone(), details: vec![details] };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// What a status has in its details, if it is of that type.
#[cfg(test)]
pub(super) fn detail_in<T: prost::Message + Default>(status: &Status, name: &str) -> Option<T> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let any = details.into_iter().find(|any| any.type_url.ends_with(name))?;
    T::decode(any.value).ok()
}

/// What a status says of a failed setup, if it does.
pub(super) fn setup_failure_in(status: &Status) -> Option<SetupError> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let any = details.into_iter().find(|any| any.type_url == FAILURE_TYPE)?;
    wire::SetupFailure::decode(any.value).ok()?.try_into().ok()
}

fn bounded(mut failure: wire::SetupFailure) -> wire::SetupFailure {
    if let Some(tail) = &mut failure.console_tail {
        *tail = tail.slice(tail.len().saturating_sub(MAX_CONSOLE_BYTES)..);
    }
    match &mut failure.failure {
        Some(Failure::BadInput(text) | Failure::HostCannot(text)) => *text = shortened(std::mem::take(text)),
        Some(Failure::Ended(outcome)) => *outcome = bounded_outcome(std::mem::take(outcome)),
        _ => {}
    }
    failure
}

fn bounded_outcome(mut outcome: wire::Outcome) -> wire::Outcome {
    match &mut outcome.outcome {
        Some(
            wire::outcome::Outcome::HostDiskFull(text)
            | wire::outcome::Outcome::AgentLost(text)
            | wire::outcome::Outcome::Internal(text),
        ) => *text = shortened(std::mem::take(text)),
        Some(wire::outcome::Outcome::MachineCrashed(wire::Crash {
            cause: Some(wire::crash::Cause::HelperEnded(wire::HelperEnded { how, .. })),
        })) => *how = shortened(std::mem::take(how)),
        _ => {}
    }
    outcome
}

/// At most [`MAX_TEXT_BYTES`], cut between characters.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let room = MAX_TEXT_BYTES - '…'.len_utf8();
        let end = text.char_indices().map(|(start, _)| start).take_while(|start| *start <= room).last();
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

pub(super) fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(shortened(error.to_string()))
}

/// Something failed in creel itself.
pub(super) fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(shortened(error.to_string()))
}

pub(super) fn create_failed(error: &CreateError) -> Status {
    match error {
        CreateError::Setup(error) => setup_failed(error),
        CreateError::Full { .. } => Status::resource_exhausted(error.to_string()),
        CreateError::Draining => Status::unavailable(error.to_string()),
        CreateError::Exists(_) => Status::already_exists(error.to_string()),
        CreateError::OfARun => Status::failed_precondition(error.to_string()),
    }
}

pub(super) fn console_failed(error: &ConsoleError) -> Status {
    match error {
        ConsoleError::Unknown(_) => Status::not_found(error.to_string()),
        ConsoleError::SettingUp(_) => Status::failed_precondition(error.to_string()),
        ConsoleError::Unreadable { .. } => internal(crate::error::with_causes(error)),
    }
}

pub(super) fn exec_failed(error: &ExecError) -> Status {
    match error {
        ExecError::Unknown(_) | ExecError::UnknownExec { .. } => Status::not_found(error.to_string()),
        ExecError::Offset { .. } => Status::out_of_range(error.to_string()),
        ExecError::SettingUp(_) => Status::failed_precondition(error.to_string()),
        ExecError::Duplicate { .. } => Status::already_exists(shortened(error.to_string())),
        ExecError::Exhausted(_) => Status::resource_exhausted(error.to_string()),
    }
}

/// The end of a call whose exec goes on, or lingers.
pub(super) fn detached(why: &Detached) -> Status {
    let text = why.to_string();
    match why {
        Detached::Replaced(_) => Status::aborted(text),
        Detached::InputOffset { .. } | Detached::Acknowledged { .. } => Status::out_of_range(text),
        Detached::NoInput | Detached::InputAfterEnd | Detached::AcknowledgesNot => {
            Status::invalid_argument(text)
        }
        Detached::Orphaned => internal(text),
    }
}

pub(super) fn signal_failed(error: &SignalError) -> Status {
    let text = shortened(error.to_string());
    match error {
        SignalError::Unknown(_) => Status::not_found(text),
        SignalError::SettingUp(_) | SignalError::Ended(_) => Status::failed_precondition(text),
        SignalError::Machine { why, .. } => match why {
            runtime::SignalError::NoExec(_) => Status::not_found(text),
            runtime::SignalError::Unsupported { .. } => Status::unimplemented(text),
            runtime::SignalError::Ended => Status::failed_precondition(text),
            runtime::SignalError::Unreachable(_) => Status::internal(text),
        },
    }
}

pub(super) fn shell_failed(error: &ShellError) -> Status {
    let text = shortened(error.to_string());
    match error {
        ShellError::Unknown(_) => Status::not_found(text),
        ShellError::SettingUp(_) | ShellError::Ended(_) => Status::failed_precondition(text),
        ShellError::Machine { why, .. } => match why {
            runtime::ShellError::Full { .. } => Status::resource_exhausted(text),
            runtime::ShellError::Refused(_) | runtime::ShellError::Ended => Status::failed_precondition(text),
            runtime::ShellError::Unreachable(_) => Status::internal(text),
        },
    }
}

pub(super) fn destroy_failed(error: &DestroyError) -> Status {
    match error {
        DestroyError::Unknown(_) => Status::not_found(error.to_string()),
        DestroyError::NotFreed { .. } | DestroyError::NotEnded { .. } => internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{MachineUsage, Phase};

    #[test]
    fn a_failed_setup_is_read_back_from_its_status() {
        let error = SetupError {
            phase: Phase::Boot,
            failure: SetupFailure::Ended(Outcome::AgentLost { detail: "never connected".into() }),
            console_tail: Some(b"Kernel panic".to_vec()),
            usage: Some(Box::new(MachineUsage { read_bytes: 7, ..MachineUsage::default() })),
        };
        let status = setup_failed(&error);
        assert_eq!((status.code(), status.message()), (Code::Aborted, "agent lost (never connected)"));
        assert_eq!(setup_failure_in(&status), Some(error));
        assert_eq!(setup_failure_in(&Status::not_found("x")), None);
    }

    #[test]
    fn the_trailers_of_any_failure_fit_the_smallest_of_peers() {
        let texts = ["é".repeat(100_000), "a".repeat(100_000)];
        for text in texts {
            let failures = [
                SetupFailure::BadInput(text.clone()),
                SetupFailure::Ended(Outcome::Internal { detail: text.clone() }),
            ];
            for failure in failures {
                let console_tail = Some(vec![0xff; 100_000]);
                let error = SetupError { console_tail, ..SetupError::new(Phase::Boot, failure) };
                let headers = setup_failed(&error).into_http::<()>().headers().clone();
                let size: usize =
                    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
                assert!(size < 8 << 10, "{size} bytes");
            }
        }
    }
}
