//! One connection to the host: Hello, Init, then requests until it ends.
//!
//! - `run`: a connection from beginning to end;
//! - `greet`: the handshake, and the proof of a connection that is not the machine's first;
//! - `requests`: what the host asks for, and to whom it goes;
//! - `plain`: the execs of a host without `creel.exec.2`, which are this session's own;
//! - `answers`: results that take long, kept for a host that lost its connection meanwhile.
//!
//! Requests run at once, each in a task of its own, and answer through the [`outbox`](crate::outbox).
//! The session is over when either direction of the connection fails, or when the host has asked for power
//! off, or breaks the contract. Programs that run then go on.

mod answers;
mod greet;
mod plain;
mod requests;
mod run;

pub use answers::Answers;
pub use run::{SessionEnd, SessionError, run};
