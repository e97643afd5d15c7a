//! creel's wire contracts, used by both of their ends.
//!
//! - [`agent`]: the messages of `spindle.agent.v1`, generated from `proto/spindle/agent/v1/agent.proto`;
//! - [`frame`]: the 4-byte length framing around them, with its limit;
//! - [`payload`]: a message as the enum that it really is;
//! - [`names`]: fixed ids, ports and extension names.

#![forbid(unsafe_code)]

pub mod frame;
pub mod names;
pub mod payload;

/// Generated from `spindle/agent/v1/agent.proto`.
pub mod agent {
    #![allow(clippy::allow_attributes, clippy::derive_partial_eq_without_eq, reason = "generated code")]
    include!(concat!(env!("OUT_DIR"), "/spindle.agent.v1.rs"));
}

pub use frame::{FrameCodec, FrameError, MAX_MESSAGE_BYTES};
pub use payload::{Envelope, InvalidMessage, Payload};
