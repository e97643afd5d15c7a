//! Builders: programs of the host in, images in the store out. Reproducible, cached by what goes in, and never half
//! there.

mod erofs;
mod error;
mod rootfs;
#[cfg(test)]
mod tests;
mod tiny;
mod tree;

pub use error::{BuildError, BuildEvent, Built};
pub use tiny::{TinyOptions, build_tiny};
