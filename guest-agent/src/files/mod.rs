//! File trees between host and guest: an exec whose program is this one, run as the step's user.
//!
//! - `request`: an `ExecStart`'s [`FilesRequest`](creel_proto::agent::FilesRequest) as a command line ([`program`]);
//! - `run`: what that command line does ([`run`]): a tar archive to stdout, or from stdin.
//!
//! The reading and writing is crate `creel-tree`'s. It has the rights of the user and no others, so neither a path nor an
//! archive needs to be trusted here.

mod request;
mod run;

pub use request::{FilesError, program};
pub use run::{Work, run};
