//! What a process may do to files, whoever it is and whatever descriptors of directories it comes by: read what is in its
//! root, use the devices there, and for a helper make its sockets. (landlock(7))

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use creel_keeper::{Entry, EntryKind};
use rustix::fs::{Mode, OFlags};

/// `LANDLOCK_ACCESS_FS_*` of linux/landlock.h.
mod access {
    pub const EXECUTE: u64 = 1 << 0;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    pub const REMOVE_FILE: u64 = 1 << 5;
    pub const MAKE_SOCK: u64 = 1 << 9;
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// All of an ABI, whose number is its index plus 1: 1 to 13 bits, then REFER, TRUNCATE, none, IOCTL_DEV.
    pub const ALL: [u64; 5] = [(1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1];
}

/// Binding and connecting TCP sockets, since ABI 4; abstract unix sockets and signals of others, since ABI 6.
const NET: u64 = 0b11;
const SCOPES: u64 = 0b11;

/// The kernel's ABI; `None` where it has no Landlock, or it is off.
pub(crate) fn abi() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the pointer has to be null and nothing is written.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(abi).ok().filter(|abi| *abi > 0)
}

/// Restricts the calling process for good. `sockets`: it may make sockets where the root has room for them.
pub(crate) fn restrict(entries: &[Entry], sockets: bool) -> io::Result<()> {
    let abi = abi().ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
    let all = access::ALL[(abi as usize).min(access::ALL.len()) - 1];
    let ruleset = create(all, abi)?;
    allow(&ruleset, "/", (access::EXECUTE | access::READ_FILE | access::READ_DIR) & all)?;
    for Entry { at, kind, .. } in entries {
        let allowed = match kind {
            EntryKind::Device => access::READ_FILE | access::WRITE_FILE | access::IOCTL_DEV,
            EntryKind::Sockets if sockets => access::MAKE_SOCK | access::REMOVE_FILE,
            _ => continue,
        };
        allow(&ruleset, at, allowed & all)?;
    }
    // SAFETY: touches no memory.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}

fn create(handled: u64, abi: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        fs: u64,
        net: u64,
        scoped: u64,
    }
    let attributes = Attributes {
        fs: handled,
        net: if abi >= 4 { NET } else { 0 },
        scoped: if abi >= 6 { SCOPES } else { 0 },
    };
    // A kernel that does not know a member must not be given it (E2BIG is for those that are not zero, so this is enough).
    // SAFETY: the attributes are valid for reading of the size that is stated.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of::<Attributes>(), 0)
    })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has made a new descriptor, close-on-exec by definition.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn allow(ruleset: &OwnedFd, path: &str, allowed: u64) -> io::Result<()> {
    #[repr(C, packed)]
    struct PathBeneath {
        allowed: u64,
        parent: i32,
    }
    /// `LANDLOCK_RULE_PATH_BENEATH`.
    const PATH_BENEATH: libc::c_uint = 1;
    let parent = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    // SAFETY: the rule is valid for reading, and laid out as the kernel has it.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
    })
    .map(drop)
}

fn check(status: libc::c_long) -> io::Result<libc::c_long> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}
