//! The host's side of the agent contract (`creel-proto`, version 1).
//!
//! [`hub`] hands a guest's connection to the machine that waits for it; [`handshake`] says Hello and
//! Init and makes a [`session`] of it; the session multiplexes execs over the one stream and tells
//! the machine's task how they end ([`exit`] reads an exec's end as a verdict's outcome).

pub mod exit;
pub mod handshake;
pub mod hub;
pub mod session;

pub use exit::{ExecEnd, MAX_DETAIL_CHARS};
pub use handshake::{HandshakeError, InitParameters, handshake};
pub use hub::{Expected, Hub};
pub use session::{Session, SessionEvent, SessionEvents, StartError};
