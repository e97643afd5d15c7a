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
    /// What a jail is made in: pid, mounts, network, IPC, host name. Needs CAP_SYS_ADMIN.
    Jail,
    /// The same in a user namespace, as [`Self::UserPid`].
    UserJail,
}

impl Namespaces {
    /// What to ask for where machines have a jail.
    pub fn of_a_jail() -> Self {
        if rustix::process::geteuid().is_root() { Self::Jail } else { Self::UserJail }
    }

    /// Whether less will do where these are forbidden.
    pub fn are_a_jail_s(self) -> bool {
        matches!(self, Self::Jail | Self::UserJail)
    }

    /// The flags of clone(2).
    pub(crate) fn flags(self) -> libc::c_int {
        const JAIL: libc::c_int = libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS;
        match self {
            Self::None => 0,
            Self::Pid => libc::CLONE_NEWPID,
            Self::UserPid => libc::CLONE_NEWPID | libc::CLONE_NEWUSER,
            Self::Jail => JAIL & !left_out(),
            Self::UserJail => (JAIL & !left_out()) | libc::CLONE_NEWUSER,
        }
    }

    /// Whether they have a user namespace.
    pub(crate) fn has_users(self) -> bool {
        self.flags() & libc::CLONE_NEWUSER != 0
    }

    /// What to ask for: [`Namespaces::Pid`] as root, else [`Namespaces::UserPid`].
    pub fn preferred() -> Self {
        if rustix::process::geteuid().is_root() { Self::Pid } else { Self::UserPid }
    }
}

/// None, in what is delivered.
#[cfg(not(debug_assertions))]
const fn left_out() -> libc::c_int {
    0
}

/// What a test leaves out of a jail, to see who misses it (`tests/microvm/jail/left_out.rs`).
#[cfg(debug_assertions)]
fn left_out() -> libc::c_int {
    match std::env::var("LEAVE_OUT_NAMESPACE").as_deref() {
        Ok("pid namespace") => libc::CLONE_NEWPID,
        Ok("network namespace") => libc::CLONE_NEWNET,
        Ok("ipc namespace") => libc::CLONE_NEWIPC,
        Ok("uts namespace") => libc::CLONE_NEWUTS,
        _ => 0,
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

/// Makes these once, around a child that exits at once; in those of a jail it changes a mount before.
///
/// # Errors
/// Which step failed, and why.
pub fn are_possible(namespaces: Namespaces) -> Result<(), SpawnError> {
    try_namespaces(namespaces)
}

/// Whether the kernel has mount_setattr(2), which is in Linux 5.12 and later.
pub fn mounts_can_be_restricted() -> bool {
    // SAFETY: there is no descriptor -1, and the kernel looks at nothing else before it says so.
    let status = unsafe {
        let nothing = std::ptr::null::<u8>();
        libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), libc::AT_EMPTY_PATH, nothing, 0_usize)
    };
    status >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}
