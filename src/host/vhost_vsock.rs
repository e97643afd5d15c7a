//! Guest CIDs, held by a descriptor of `/dev/vhost-vsock`.
//!
//! The kernel gives a CID to one such descriptor at a time and takes it back when the last copy of that descriptor is
//! closed: there is no moment in which another process can have it. A copy that is kept anywhere keeps a dead machine's
//! CID (and its memory) alive.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::ioctl::{Setter, ioctl};

/// The device.
pub const DEVICE: &str = "/dev/vhost-vsock";

/// `VHOST_VSOCK_SET_GUEST_CID`, `_IOW(0xAF, 0x60, __u64)` (linux/vhost.h).
const SET_GUEST_CID: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<u64>(0xAF, 0x60);

/// Opens the device and takes `cid` (3 to 0xFFFF_FFFE) for it.
///
/// # Errors
/// `EADDRINUSE` when another machine has that CID; those of open(2) when there is no device or no right to it.
pub fn claim(cid: u32) -> io::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).open(Path::new(DEVICE))?;
    // SAFETY: the opcode is `VHOST_VSOCK_SET_GUEST_CID`, whose argument is a pointer to a u64 that the kernel reads.
    unsafe { ioctl(&device, Setter::<SET_GUEST_CID, u64>::new(u64::from(cid))) }?;
    Ok(device.into())
}
