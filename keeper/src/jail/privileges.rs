//! Users and capabilities: what a process can do because of who it is.

use std::io;

use creel_keeper::JailUser;

/// capabilities(7). The kernel's own number is asked for; this only bounds the search.
const MAX_CAPABILITY: libc::c_int = 63;

const CAP_KILL: u32 = 5;

/// No capability can be had again: by exec, as set-uid programs give them, or by raising one. In this order, since the
/// later ones take CAP_SETPCAP away.
pub(crate) fn close_the_ways_back() -> io::Result<()> {
    check(prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong))?;
    /// uid 0 is a user like any other, and this can't be taken back (capabilities(7), "The securebits flags").
    const SECUREBITS: libc::c_ulong = 0x01 | 0x02 | 0x20 | 0x40 | 0x80;
    check(prctl(libc::PR_SET_SECUREBITS, SECUREBITS))?;
    for capability in 0..=MAX_CAPABILITY {
        if prctl(libc::PR_CAPBSET_DROP, capability.cast_unsigned().into()) < 0 {
            let error = io::Error::last_os_error();
            // The first that this kernel does not know is behind the last.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Becomes a user that nobody else is. The capabilities of uid 0 go with it.
pub(crate) fn become_user(user: &JailUser) -> io::Result<()> {
    let JailUser { uid, gid, groups, .. } = user;
    // The raw calls: libc's wrappers do the same for all threads, of which there is one.
    // SAFETY: the list is valid for reading of its length; the others touch no memory.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid))?;
        check(libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid))?;
    }
    Ok(())
}

/// Keeps none of the capabilities, in no set.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    set_capabilities(0)
}

/// What a keeper that has started its machine is left with: it ends processes that are another user's.
pub(crate) fn keep_only_kill() -> io::Result<()> {
    set_capabilities(1 << CAP_KILL)
}

/// capset(2): permitted and effective; inheritable is none.
fn set_capabilities(set: u32) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`: 64 of them, in two parts.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let data = [
        Data { effective: set, permitted: set, inheritable: 0 },
        Data { effective: 0, permitted: 0, inheritable: 0 },
    ];
    // SAFETY: both are valid for reading, and laid out as the kernel has them.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> libc::c_long {
    // SAFETY: none of the options that are used here takes a pointer.
    libc::c_long::from(unsafe { libc::prctl(option, argument, 0, 0, 0) })
}

fn check(status: libc::c_long) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
