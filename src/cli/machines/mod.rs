//! `creel create`, `exec`, `cp`, `shell`, `kill`, `ps`, `rm`, `inspect`, `stats` and `events`: machines of a daemon and of
//! embedded runs; `ps` lists this user's runs too.
//!
//! [`connect`] knows whom to ask; the rest is a file a command.

mod confinement;
mod connect;
mod console;
mod cp;
mod create;
mod events;
mod exec;
mod inspect;
mod kill;
mod ps;
mod ps_rows;
mod raw;
mod rm;
mod shell;
mod stats;
mod stdio;
mod verdict;

pub(super) use connect::{api_failure, connect_failure, find, machine_id, socket_path};
pub(super) use console::console;
pub(super) use cp::cp;
pub(super) use create::create;
pub(super) use events::events;
pub(super) use exec::exec;
pub(super) use inspect::inspect;
pub(super) use kill::kill;
pub(super) use ps::ps;
pub(super) use rm::rm;
pub(super) use shell::shell;
pub(super) use stats::stats;
