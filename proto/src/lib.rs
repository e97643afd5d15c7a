//! creel's wire contracts, used by both of their ends.
//!
//! - [`agent`]: the messages of `spindle.agent.v1`, generated from `proto/spindle/agent/v1/agent.proto`;
//! - `v1`: creel's control API, generated from `proto/creel/v1`, with the feature `control`;
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

/// Generated from the files of `creel/v1`.
#[cfg(feature = "control")]
pub mod v1 {
    #![allow(
        clippy::allow_attributes,
        clippy::all,
        clippy::pedantic,
        missing_debug_implementations,
        reason = "generated code"
    )]
    include!(concat!(env!("OUT_DIR"), "/creel.v1.rs"));

    /// The files of `creel/v1` as a `google.protobuf.FileDescriptorSet`, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/creel.v1.bin"));
}

/// The methods of `v1`: the full name of the service, and the method's.
#[cfg(feature = "control")]
pub mod v1_methods {
    include!(concat!(env!("OUT_DIR"), "/methods.rs"));
}

pub use frame::{FrameCodec, FrameError, MAX_MESSAGE_BYTES};
pub use payload::{Envelope, InvalidMessage, Payload};
