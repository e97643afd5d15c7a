//! The host's side of the agent contract against guests that lie, vanish, flood and fall silent, over in-process pipes.
//!
//! `guest` keeps to the contract, `liar` says whatever a test wants.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod crowd;
mod cut_off;
mod cuts;
mod guest;
mod host;
mod liar;
mod lies;
mod memory;
mod proofs;
mod real;
mod silence;
mod version_1;
