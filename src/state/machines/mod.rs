//! What is remembered of each machine of a daemon while it lives: a file each, so that damage to one is no other's.
//!
//! ```text
//! <state dir>/machines/            0700, its user's own
//!                      <id>.json   written before what it tells of happens; replaced as a whole; gone after the machine
//!                      <id>.new    the next one, half written
//! ```
//!
//! No database: records are independent of each other, a person can read them, and what has an order (intent before act) has
//! it within one file. There is one daemon a state directory (its lock), so nobody else writes here.
//!
//! A record tells where to look for a machine, and is no proof of one: what is found there is checked against it (the
//! keeper's start time, the boot's id). It holds no secret.

mod record;
mod store;

pub use record::{MachineRecord, MachineStage};
pub use store::{Found, MachineLedger, MachineRecords};

#[cfg(test)]
mod tests;
