//! `SourceUnpack`: the workflow's source tree, from a disk that the host filled to a directory in the guest.
//!
//! - `request`: answers the request ([`unpack`]);
//! - `archive`: goes through the tar archive;
//! - `tree`: writes entries below a directory and nowhere else.
//!
//! The disk is a tar archive from its first byte. It is read as root and unpacked with the user's own
//! rights, so that nothing comes to be that the user could not have made: no trick with links, in the
//! archive or in the directory, reaches further.

mod archive;
mod request;
mod tree;

pub use archive::{ArchiveError, Unpacked};
pub use request::{SourceError, unpack};
