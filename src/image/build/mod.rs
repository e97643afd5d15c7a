//! Builders: programs of the host in, images in the store out. Reproducible, cached by what goes in, and never half
//! there.

mod debian;
mod erofs;
mod error;
mod parts;
mod rootfs;
#[cfg(test)]
mod tests;
mod tiny;
mod tree;

pub use debian::{DebianError, DebianOptions, build_debian};
pub use error::{BuildError, BuildEvent, Built};
pub use tiny::{TinyOptions, build_tiny};
