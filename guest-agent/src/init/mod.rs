//! The agent as PID 1: it boots the machine, looks after it, and powers it off.
//!
//! - `boot`: the steps of a boot, in order;
//! - `modules`, `mounts`, `root`, `workspace`: what the steps do;
//! - `pid1`: life after the boot: serving the host, signals, power off.
//!
//! A failed boot is a failed machine: the reason goes to the console and the machine resets at once, which
//! the host sees. It never hangs and never gives a shell.
//!
//! # What the host provides
//! The initramfs has this program as `/init`, and kernel modules as `/modules/<name>.ko` with their names,
//! one a line in load order, in `/modules/order`. Disks carry the serials of
//! [`creel_proto::names::disks`]. The kernel command line may say:
//!
//! | word | meaning |
//! | --- | --- |
//! | `creel.root=erofs\|squashfs\|ext4` | the disk `creel-store` is the root, under a writable tmpfs; absent: the initramfs is |
//! | `creel.volumes=/a,/b` | disk `creel-volume-0` (ext4) goes to /a, `creel-volume-1` to /b |
//! | `creel.hostname=NAME` | default `creel` |
//! | `creel.init=/path` | the image's own init becomes PID 1; it starts the agent as a service |
//! | `shuttle.vsock_port=N` | where the host listens; default 10240 |

mod boot;
mod modules;
mod mounts;
mod pid1;
mod root;
mod thrashing;
mod workspace;

pub use boot::BootError;
pub use pid1::run;
