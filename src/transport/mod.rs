//! How a guest's connections reach creel: one trait under agent and proxies alike.
//!
//! - [`hybrid`]: per-machine unix sockets in Firecracker's form, one for each vsock port that the guest
//!   may dial; needs neither kernel vsock nor root;
//! - [`kernel`]: AF_VSOCK through vhost-vsock; ports are shared by all machines, peers told apart by CID;
//! - [`memory`]: in-process pipes, for tests.
//!
//! [`refusals`] says who was turned away, without letting him fill the journal.

pub mod hybrid;
pub mod kernel;
pub mod listener;
pub mod memory;
pub mod refusals;

pub use listener::{ByteStream, Connection, Listener, Peer};
