//! What each fuzz target does with its input: parsers that read what a hostile guest, agent or workflow author wrote.
//!
//! A target panics if and only if creel is wrong. `targets/` hands these functions to libFuzzer; `tests/corpora.rs` of creel
//! itself runs them over `corpus/`, so that an input which once failed is tried by every run of the tests.

pub mod frames;
pub mod log_file;
pub mod masker;
pub mod messages;
pub mod qmp;
pub mod tar_unpack;
pub mod workflow_yaml;

mod input;

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("frames", frames::run),
    ("log_file", log_file::run),
    ("masker", masker::run),
    ("messages", messages::run),
    ("qmp", qmp::run),
    ("tar_unpack", tar_unpack::run),
    ("workflow_yaml", workflow_yaml::run),
];
