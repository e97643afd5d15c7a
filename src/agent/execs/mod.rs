//! The execs of one machine, as its host knows them: they outlive the connections that carry them.
//!
//! - `shared`: what the machine's session and its connection's tasks have in common, behind one lock;
//! - `table`: execs by id, and what is to be said of them;
//! - `exec`: one of them; `lane`: the credit of one of its streams (pure);
//! - `tend`: a task for each, which moves its input and watches what its readers acknowledge;
//! - `past`: the ids of those that ended lately.

mod exec;
mod lane;
mod past;
mod shared;
mod table;
mod tend;

pub(super) use exec::InputFrame;
pub(super) use shared::{Shared, Stale};
pub(super) use table::{Running, Taken};
