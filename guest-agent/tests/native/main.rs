//! The agent as a plain process, at native speed: the real binary dials a host that these tests play.
//!
//! They pass as root (programs then run as `nobody`) and as an ordinary user (who stays who they are).

#![expect(clippy::unwrap_used, reason = "all of this crate is tests, helpers included")]

mod breach;
mod credit;
mod exec;
mod files;
mod host;
mod output;
mod proof;
mod pty;
mod resume;
mod session;
mod shell;
mod signal;
mod source;
mod streams;
