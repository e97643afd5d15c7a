//! What touches the kernel: processes born by clone3, pidfds, cgroups, namespaces, inotify, anonymous files, clocks,
//! vsock CIDs, inherited sockets, peers' credentials, what confines a process.
//!
//! All of the library's `unsafe` lives here, so that a reader who looks for it need look nowhere else. Nothing here
//! knows what a machine is.

pub mod activation;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod confinement;
pub mod identity;
pub mod inotify;
pub mod landlock;
pub mod memfd;
pub mod namespaces;
pub mod peer;
pub mod pidfd;
pub mod readiness;
pub mod spawn;
pub mod tmpfile;
pub mod uids;
pub mod vhost_vsock;

pub use cgroup::{Cgroup, CgroupFsError};
pub use child::Child;
pub use clock::tsc_khz;
pub use identity::{ProcessIdentity, boot_id};
pub use namespaces::{NamespaceSupport, Namespaces, probe};
pub use peer::PeerCredentials;
pub use pidfd::{Exit, PidFd};
pub use readiness::readable;
pub use spawn::{Spawn, SpawnError, SpawnStep, spawn};
