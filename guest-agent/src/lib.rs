//! creel's program in the guest: it dials the host and runs what the host asks for.
//!
//! One static binary, used two ways:
//! - **as a service** of any image ([`service`]): something else has booted the machine;
//! - **as PID 1** ([`init`]): the kernel starts it as `/init` of an initramfs, and it boots the machine.
//!
//! Both end in [`serve`], which dials and redials ([`connect`]) and speaks the agent contract on each
//! connection ([`session`]), which a lost one's successor takes up again ([`resume`]). A session starts programs
//! ([`exec`], [`spawn`], [`user`]), whose output waits in a [`ring`] for the host to take it, one frame at a time
//! ([`outbox`], [`batch`]), and whose [`input`] waits for them; they can be ended with all that they have started
//! ([`family`], [`cgroup`]). The debug shell ([`shell`], on a [`terminal`]) has a connection of its own. All children are
//! waited for in one place ([`reaper`]). `unsafe` lives in [`sys`] alone.

pub mod args;
pub mod batch;
pub mod cgroup;
pub mod cmdline;
pub mod connect;
pub mod disks;
pub mod exec;
pub mod exit;
pub mod family;
pub mod files;
pub mod guest;
pub mod init;
pub mod input;
pub mod log;
pub mod nix;
pub mod oom;
pub mod outbox;
pub mod output;
pub mod poweroff;
pub mod reaper;
pub mod resume;
pub mod ring;
pub mod serve;
pub mod service;
pub mod session;
pub mod shell;
pub mod source;
pub mod spawn;
pub mod sys;
pub mod terminal;
pub mod user;

/// This program's version, as told in `Hello`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
