//! The command line: one file a subcommand, and what they share.

#[macro_use]
mod print;

pub mod args;
mod context;
mod debug;
mod doctor;
mod entry;
mod failure;
mod image;
mod logs;
mod machines;
pub mod manual;
mod mistakes;
mod render;
mod run;
mod signals;
mod version;
mod workflow;

pub use entry::main;
