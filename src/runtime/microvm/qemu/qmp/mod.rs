//! A small client for QMP, QEMU's control protocol: one JSON object a line, commands answered by id, events between.
//!
//! creel binds the listening socket itself, at 0600 and in its own directory, and QEMU inherits it: whoever can connect
//! there owns the machine. The other end is QEMU, in which a hostile guest may have taken over: lines, nesting, queues
//! and times are bounded, and nothing that arrives is believed beyond its type.
//!
//! How QEMU 7.2's `microvm` machine ends, seen with Debian's 6.1 cloud kernel and `-no-reboot`:
//!
//! | what happened | events | exit status |
//! | --- | --- | --- |
//! | guest powers off (ACPI) | `SHUTDOWN` guest, `guest-shutdown` | 0 |
//! | guest reboots (`reboot=t`) | `SHUTDOWN` guest, `guest-reset` | 0 |
//! | kernel panic, `panic=-1 reboot=t`, no pvpanic driver | `SHUTDOWN` guest, `guest-reset` | 0 |
//! | kernel panic, pvpanic driver loaded | `GUEST_PANICKED` action `poweroff`, `SHUTDOWN` guest, `guest-panic` | 0 |
//! | `halt` in the guest | none: it idles for ever | |
//! | QMP `quit` | `SHUTDOWN` host, `host-qmp-quit` | 0 |
//! | QMP `system_reset` | `SHUTDOWN` host, `host-qmp-system-reset` | 0 |
//! | QMP `system_powerdown` | `POWERDOWN`; the end is up to the guest | |
//! | SIGTERM, SIGINT, SIGHUP to QEMU | `SHUTDOWN` host, `host-signal` | 0 |
//! | SIGKILL to QEMU | none; the stream ends | signal 9 |
//!
//! So the exit status says nothing about the guest: the events do.
//!
//! Reference: QEMU, `docs/interop/qmp-spec.rst` and `qapi/run-state.json`, `qapi/block-core.json`.

mod client;
mod event;
mod line;

pub use client::{Events, Qmp, QmpError};
pub use event::Event;
pub use line::{Incoming, LineBuffer, LineError, MAX_LINE_BYTES};

#[cfg(test)]
mod tests;
