//! creeld as a process: the real program, with a stand-in for the service manager that reads what it is told and hands
//! sockets over as systemd does.

#![expect(clippy::unwrap_used, reason = "what can't be set up has failed, and says where")]

mod command_line;
mod harness;
mod journal;
mod manager;
mod observe;
mod sockets;
