//! Keeps a guest that has run out of memory from thrashing.
//!
//! Without swap a kernel that is short of memory drops the pages of the very programs that run and reads them again from
//! disk. That counts as progress, so its OOM killer waits: measured here, mostly 6 s, and in one of eleven runs 520 s in which
//! nothing went on. The multi-generational LRU can be told what it may not drop, and kills instead.

use std::fs;
use std::io;

use crate::log;

/// Documentation/admin-guide/mm/multigen_lru.rst, "Thrashing prevention" (Linux 6.1, `CONFIG_LRU_GEN`).
const DIRECTORY: &str = "/sys/kernel/mm/lru_gen";

/// What was used within this time stays in memory. Not a second: a guest that writes a hundred megabytes has nothing older in
/// memory than that, and its kernel took it for deadlocked.
const WORKING_SET_MS: u32 = 100;

/// Best done before anything runs. A kernel that can't do it is as it was.
pub fn prevent() {
    let write = |file: &str, value: &str| fs::write(format!("{DIRECTORY}/{file}"), value);
    let done = write("enabled", "y").and_then(|()| write("min_ttl_ms", &WORKING_SET_MS.to_string()));
    if let Err(error) = done
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn(format_args!("failed to set up `{DIRECTORY}`: {error}"));
    }
}
