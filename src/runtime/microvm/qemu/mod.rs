//! QEMU: how it is found, told what to be, proven able to use KVM, and talked to.
//!
//! ```text
//! version   qemu-system-<arch> on the search path, and which version it is     (starts `--version`)
//! accel     KVM or TCG: KVM is proven by a trial boot, not by its device node  (starts a trial)
//! machine   runnerConfig.machine, minus what creel owns                        (pure)
//! extra     runnerConfig.extraArgs against an allow-list                       (pure)
//! args      the argument vector                                                (pure)
//! qmp       the control socket: commands and events                            (a stream handed in)
//! ```
//!
//! An image's description is written by whoever made the image, so its QEMU strings are requests: what would open a
//! file, a socket or a network, or loosen a wall between tenants, is refused by name. QEMU itself opens no path but
//! `/dev/kvm`; kernel, disks, console, QMP and vsock are descriptors that it inherits.

pub mod accel;
pub mod args;
pub mod extra;
pub mod machine;
pub mod qmp;
pub mod version;

pub use accel::{Accel, KvmProof, ProbeInput, prove_kvm};
pub use args::{ArgsError, BootFile, QemuArgs, QemuConfig, QemuFds, Vsock};
pub use qmp::{Event, Events, Qmp, QmpError};
pub use version::{FindError, Qemu, QemuVersion};
