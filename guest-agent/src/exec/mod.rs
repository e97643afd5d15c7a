//! Programs that the host asks for: each an [`Exec`], which outlives the connection it was asked for on.
//!
//! - `table`: the execs of `creel.exec.2` by their ids, from their start until they are forgotten;
//! - `state`: what is known of one exec, with a `lane` for each stream of output;
//! - `credit`: what a host may do to it, and how it is held to the contract;
//! - `frames`: what one exec has to send, a frame at a time;
//! - `start`: from a request to a program;
//! - `run`: from the program to its exit;
//! - `pump`: output, from a pipe or a terminal into the exec's rings, as far as the host gave credit;
//! - `feed`: input, from the exec's buffer into the program.
//!
//! A host without `creel.exec.2` is served by the same parts: its execs have no limit, count as acknowledged what was sent,
//! belong to their session, and run on without listeners when that is over.

mod credit;
mod feed;
mod frames;
mod lane;
mod pump;
mod run;
mod start;
mod state;
mod table;

pub use credit::Breach;
pub use frames::Form;
pub use run::{Order, begin};
pub use start::{InvalidEntry, environment};
pub use state::Exec;
pub use table::{Execs, Refused};
