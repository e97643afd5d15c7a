//! Images: what a machine boots. Their description, the store that keeps them, the builders that make them, the kit
//! they are made from, and the throw-away disks they are given.
//!
//! ```text
//! spec      upstream's spec.json: fields, rules, errors        store     images by name, kept by content
//! kit       kernel, modules, agent, helpers in one directory   kernel    the ELF kernel inside a bzImage
//! build     kit + busybox -> image, reproducible, cached       volume    a formatted disk for each run
//! cpio, initramfs   the guest's first root
//! digest, staging, program   hashes, atomic directories, the host's programs
//! ```

mod build;
mod cpio;
mod digest;
mod initramfs;
mod kernel;
mod kit;
mod program;
mod spec;
mod staging;
mod store;
#[cfg(test)]
mod testing;
mod volume;

pub use build::{
    BuildError, BuildEvent, Built, DebianError, DebianOptions, TinyOptions, build_debian, build_tiny,
};
pub use cpio::Archive;
pub use initramfs::{InitramfsError, MODULES_DIRECTORY, MODULES_ORDER, initramfs};
pub use kernel::{KernelError, vmlinux_from_bzimage};
pub use kit::{Assembled, KernelFormat, Kit, KitError, KitKernel, KitSources, assemble};
pub use program::{ProgramError, find_program};
pub use spec::{
    Arch, Checked, DiskFormat, ImageSpec, NetworkInterface, NetworkKind, Problem, RunnerConfig, RunnerType,
    SPEC_FILE, SpecError, VirtioTransport, VolumeFilesystem, VolumeSpec,
};
pub use store::{
    Collect, Collected, EntryLease, Image, ImageError, ImageStore, ImageSummary, Removed, Verified,
};
pub use volume::{VolumeError, VolumeTemplates};
