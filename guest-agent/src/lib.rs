//! creel's program in the guest: it dials the host and runs what the host asks for.
//!
//! One static binary, used two ways:
//! - **as a service** of any image ([`service`]): something else has booted the machine;
//! - **as PID 1** ([`init`]): the kernel starts it as `/init` of an initramfs, and it boots the machine.
//!
//! Both end in [`serve`], which dials and redials ([`connect`]) and speaks the agent contract on each
//! connection ([`session`]). A session starts programs ([`exec`], [`spawn`], [`user`]), whose output goes
//! back encoded ([`pump`], [`output`]) through one bounded queue ([`outbox`]). All children are waited for in one
//! place ([`reaper`]). `unsafe` lives in [`sys`] alone.

pub mod args;
pub mod cmdline;
pub mod connect;
pub mod disks;
pub mod exec;
pub mod init;
pub mod log;
pub mod nix;
pub mod oom;
pub mod outbox;
pub mod output;
pub mod poweroff;
pub mod pump;
pub mod reaper;
pub mod serve;
pub mod service;
pub mod session;
pub mod source;
pub mod spawn;
pub mod sys;
pub mod user;

/// This program's version, as told in `Hello`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
