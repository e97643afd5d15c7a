//! What a keeper leaves in the machine's directory, and under which names.
//!
//! Each record is written beside its place and renamed into it, so a reader sees a whole one or none.

use serde::{Deserialize, Serialize};

/// The console history of the machine.
pub const CONSOLE_FILE: &str = "console";

/// Written last: after it the keeper only exits.
pub const DONE_FILE: &str = "keeper-done.json";

/// The largest record a reader accepts.
pub const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// File name of a process's exit record.
pub fn exit_file(process: &str) -> String {
    format!("exit-{process}.json")
}

/// File name of a process's own log.
pub fn log_file(process: &str) -> String {
    format!("log-{process}")
}

/// How one process ended, when, and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub name: String,
    pub end: ProcessEnd,
    /// Nanoseconds since the epoch, by CLOCK_REALTIME.
    pub started_at_unix_ns: u64,
    /// Nanoseconds since the epoch, by CLOCK_REALTIME.
    pub ended_at_unix_ns: u64,
    pub usage: Usage,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEnd {
    Exited {
        code: i32,
    },
    Signalled {
        signal: i32,
        core_dumped: bool,
    },
    /// It was never running, or was not ready in time.
    FailedToStart {
        /// A sentence.
        error: String,
        /// The system call's error number, where one failed.
        errno: Option<i32>,
    },
}

/// From `getrusage(2)`: of the process and those of its children that it waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub user_us: u64,
    pub system_us: u64,
    pub max_rss_kib: u64,
}

/// The keeper's last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneRecord {
    pub machine: String,
    pub ending: Ending,
    /// Bytes that the machine wrote to its console, kept or not.
    pub console_total_bytes: u64,
    /// Processes that did not die within the bound after SIGKILL.
    pub left_behind: Vec<String>,
    /// Nanoseconds since the epoch, by CLOCK_REALTIME.
    pub ended_at_unix_ns: u64,
}

/// Why the machine is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A process that ends the machine has exited.
    ProcessEnded { process: String },
    /// A process did not start; its exit record says why.
    StartFailed { process: String, error: String },
    /// The keeper got SIGTERM.
    Terminated,
    /// The keeper's owner is dead.
    OwnerGone,
}
