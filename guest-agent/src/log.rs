//! One-line messages for whoever looks after the machine.
//!
//! A service's go to stderr, which its supervisor keeps. PID 1's go to the kernel log, which puts those
//! that matter on the console. Serial consoles are slow and their reader is often emulated, so little is
//! said: a boot that goes well says nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::OnceLock;

static KERNEL_LOG: OnceLock<File> = OnceLock::new();

/// Sends everything from here on to the kernel log (/dev/kmsg).
pub fn to_kernel_log() -> io::Result<()> {
    let kmsg = File::options().write(true).open("/dev/kmsg")?;
    // Only the first call counts.
    let _ = KERNEL_LOG.set(kmsg);
    Ok(())
}

/// What ends the machine or the agent: shown on the console even of a `quiet` kernel.
pub fn error(message: fmt::Arguments<'_>) {
    write(3, message);
}

/// What went wrong without ending anything.
pub fn warn(message: fmt::Arguments<'_>) {
    write(4, message);
}

/// `level` as in syslog(2). One write a line: /dev/kmsg takes each write as a record.
fn write(level: u8, message: fmt::Arguments<'_>) {
    // There is nobody left to tell when the log fails.
    let _ = match KERNEL_LOG.get() {
        Some(mut kmsg) => kmsg.write_all(format!("<{level}>creel-agent: {message}\n").as_bytes()),
        None => io::stderr().write_all(format!("creel-agent: {message}\n").as_bytes()),
    };
}
