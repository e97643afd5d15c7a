//! Machines that are QEMU microVMs.
//!
//! - [`runtime`](MicroVm): the runtime's own face;
//! - `setup`: from a request to a machine that is ready, bounded by an `interrupt`;
//! - `leases`: what a machine holds before it runs, `vsock` its way to creel, `cids` the numbers for it; `launch`: its
//!   processes and their descriptors; `jail`: what confines them;
//! - `driver`: the one task that owns a machine from then on; `work` is what it was given, `handle` what others
//!   hold of it, `request` what they ask;
//! - `greeting`: waits for the agent, and keeps the door for its later connections; `signs` makes evidence of what a
//!   machine's parts say, and `evidence` judges how it ended (pure);
//! - [`qemu`]: arguments, QMP, the proof of KVM; [`keeper`]: the host side of creel-keeper;
//! - `shell`: shells on connections of their own;
//! - `last_words`: what the guest said of its end, to explain a verdict;
//! - `sight`: what is shown of a living machine, `processes` what its processes take by proc(5);
//! - [`directory`]: the machine's directory as a lease; [`cgroup`]: its subtree of cgroup v2, with its limits; `held`: how many of each there are.

pub mod cgroup;
mod cids;
pub mod directory;
mod driver;
mod evidence;
mod greeting;
mod handle;
mod held;
mod interrupt;
mod jail;
pub mod keeper;
mod last_words;
mod launch;
mod leases;
mod processes;
pub mod qemu;
mod request;
mod runtime;
mod setup;
mod shell;
mod sight;
mod signs;
mod vsock;
mod work;

pub use held::{Held, held};
pub use jail::{Contents, JailSettings, Layers, MachineJail, MissingLayer};
pub use runtime::{CgroupSettings, MicroVm, MicroVmError, Settings, Transport, end_stale};
pub use vsock::Vsocks;
