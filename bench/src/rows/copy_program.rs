//! The program that a guest's output is held against, built for the guest: `guest/copy.c`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::row::{Failed, Trying as _};

const SOURCE: &str = include_str!("../../guest/copy.c");

/// Where it is in the guest.
pub const PROGRAM: &str = "/usr/lib/creel-bench/copy";

/// Builds it into `overlay`, at its place.
///
/// # Errors
/// With what the compiler said.
pub fn build(overlay: &Path) -> Result<(), Failed> {
    let program = overlay.join(&PROGRAM[1..]);
    let source = overlay.with_extension("c");
    fs::create_dir_all(program.parent().unwrap_or(overlay)).trying("make an overlay")?;
    fs::write(&source, SOURCE).trying("write the copying program")?;
    // No library will be there.
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O2", "-o"]).arg(&program).arg(&source).stdin(Stdio::null());
    let output = compiler.output().trying("run cc (scripts/setup --bench installs it)")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failed::new(format!("cc failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
