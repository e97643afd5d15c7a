//! Which namespaces a keeper can be born into here, found out by trying.
//!
//! Reading sysctls would not do: user namespaces are forbidden by a dozen means (`max_user_namespaces`,
//! `unprivileged_userns_clone`, AppArmor, seccomp in containers), and only a clone meets them all.

use crate::host::spawn::{SpawnError, try_namespaces};

/// The namespaces that a process is born into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespaces {
    /// The parent's.
    None,
    /// A pid namespace of its own, as PID 1. Needs CAP_SYS_ADMIN.
    Pid,
    /// The same in a user namespace of its own in which uid and gid are the ones outside. Needs no privilege.
    UserPid,
}

impl Namespaces {
    /// What to ask for: [`Namespaces::Pid`] as root, else [`Namespaces::UserPid`].
    pub fn preferred() -> Self {
        if rustix::process::geteuid().is_root() { Self::Pid } else { Self::UserPid }
    }
}

/// What [`probe`] found; an error says which step failed, and why.
#[derive(Debug)]
pub struct NamespaceSupport {
    pub pid: Result<(), SpawnError>,
    pub user_pid: Result<(), SpawnError>,
}

/// Makes each kind once, around a child that exits at once. Takes a few milliseconds and needs no runtime.
pub fn probe() -> NamespaceSupport {
    NamespaceSupport { pid: try_namespaces(Namespaces::Pid), user_pid: try_namespaces(Namespaces::UserPid) }
}
