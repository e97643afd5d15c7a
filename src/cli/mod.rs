//! The command line: one file a subcommand, and what they share.

pub mod args;
mod context;
mod debug;
mod doctor;
mod entry;
pub mod exit;
mod failure;
mod image;
mod render;
mod run;
mod version;

pub use entry::main;
