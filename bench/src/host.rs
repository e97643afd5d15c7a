//! The machine that the figures belong to.

use std::fs;

use serde::{Deserialize, Serialize};

/// What decides figures, and can be found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub cores: usize,
    pub memory_mib: u64,
    pub processor: String,
    pub kernel: String,
    /// When the run ended, RFC 3339.
    pub measured_at: String,
    /// Versions of what was measured; empty where it is missing.
    pub creel: String,
    pub docker: String,
    pub qemu: String,
    /// `tcg`: the microVMs of all rows are emulated.
    pub accel: String,
    pub runs: u32,
}

impl Host {
    /// Without the versions of programs.
    pub fn look() -> Self {
        let uname = rustix::system::uname();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: rustix::system::sysinfo().totalram >> 20,
            processor: processor.trim_start_matches([' ', '\t', ':']).trim().to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            measured_at: String::new(),
            creel: String::new(),
            docker: String::new(),
            qemu: String::new(),
            accel: "tcg".to_owned(),
            runs: 0,
        }
    }
}
