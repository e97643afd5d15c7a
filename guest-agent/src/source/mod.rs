//! `SourceUnpack`: the workflow's source tree, from a disk that the host filled to a directory in the guest.
//!
//! The disk is a tar archive from its first byte. It is read as root and unpacked (crate `creel-tree`) with the user's own
//! rights, so that nothing comes to be that the user could not have made: no trick with links, in the archive or in the
//! directory, reaches further.

mod request;

pub use request::{SourceError, unpack};
