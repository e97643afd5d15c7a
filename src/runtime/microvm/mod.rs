//! Machines that are QEMU microVMs.
//!
//! - [`runtime`](MicroVm): the runtime's own face;
//! - `setup`: from a request to a machine that is ready, bounded by an `interrupt`;
//! - `leases`: what a machine holds before it runs, `vsock` its way to creel; `launch`: its processes and their
//!   descriptors;
//! - `driver`: the one task that owns a machine from then on; `work` is what it was given, `handle` what others
//!   hold of it;
//! - `greeting`: waits for the agent; `evidence` judges how a machine ended (pure);
//! - [`qemu`]: arguments, QMP, the proof of KVM; [`keeper`]: the host side of creel-keeper;
//! - [`directory`]: the machine's directory as a lease.

pub mod directory;
mod driver;
mod evidence;
mod greeting;
mod handle;
mod interrupt;
pub mod keeper;
mod launch;
mod leases;
pub mod qemu;
mod runtime;
mod setup;
mod vsock;
mod work;

pub use runtime::{MicroVm, MicroVmError, Settings};
