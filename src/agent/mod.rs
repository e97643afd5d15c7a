//! The host's side of the agent contract (`creel-proto`, version 1).
//!
//! - [`hub`] hands a guest's connections to the machine that waits for them;
//! - [`handshake`] says Hello and Init, on [`terms`] that both sides can keep, and makes a [`session`] of a connection;
//! - `resume` asks whoever dials later for a proof, made with the machine's [`key`];
//! - [`session`] is what the machine's task has of its agent. Behind it `execs` outlive a connection, `link` is one:
//!   its tasks speak [`wire`] and end for a reason ([`ending`]);
//! - [`credit`] bounds what all execs may have under way (pure);
//! - [`exit`] reads an exec's end as a verdict's outcome;
//! - a debug [`shell`] has a connection of its own.

pub mod credit;
pub mod ending;
mod execs;
pub mod exit;
pub mod handshake;
pub mod hub;
pub mod key;
mod link;
mod resume;
pub mod session;
pub mod shell;
pub mod terms;
pub mod wire;

pub use ending::{Ending, Loss, Violation};
pub use exit::{ExecEnd, MAX_DETAIL_CHARS};
pub use handshake::{Greeted, HandshakeError, InitParameters, handshake};
pub use hub::{Expected, Hub};
pub use link::MAX_CHATTER;
pub use resume::{Door, NewcomerError, Proven};
pub use session::{CANCEL_GRACE_MS, Session, SessionEvent, SessionEvents, StartError};
pub use terms::{Patience, Terms};
