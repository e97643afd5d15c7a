//! What is said while something is copied: how far it is, and what is wrong.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text::one_line;

/// How often the display moves.
const TICK: Duration = Duration::from_millis(100);

/// More complaints are counted and not shown.
const MAX_LINES: u64 = 100;

/// Of one complaint.
const MAX_LINE_CHARS: usize = 500;

/// Kept of a line of the machine's whose end has not come.
const MAX_PENDING_BYTES: usize = 8 << 10;

/// For async streams and threads alike.
#[derive(Debug)]
pub(super) struct Told {
    bar: ProgressBar,
    machine: String,
    moved: AtomicU64,
    complaints: AtomicU64,
    pending: Mutex<Vec<u8>>,
}

impl Told {
    /// Shows progress where stderr is a terminal.
    pub(super) fn new(machine: &str) -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style =
            ProgressStyle::with_template("{spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}");
        // The template is a constant; a wrong one shows indicatif's own style.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            machine: machine.to_owned(),
            moved: AtomicU64::new(0),
            complaints: AtomicU64::new(0),
            pending: Mutex::default(),
        }
    }

    /// Bytes of the archive.
    pub(super) fn moved(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Something on this side.
    pub(super) fn complain(&self, complaint: &dyn fmt::Display) {
        self.line(&format!("creel: {}", one_line(&complaint.to_string(), MAX_LINE_CHARS)));
    }

    /// Bytes of the machine's stderr: a complaint a line.
    pub(super) fn machine_says(&self, bytes: &[u8]) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_PENDING_BYTES.saturating_sub(pending.len());
            pending.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.machine_line(&std::mem::take(&mut *pending));
            }
        }
    }

    fn machine_line(&self, line: &[u8]) {
        let line = one_line(&String::from_utf8_lossy(line), MAX_LINE_CHARS);
        if !line.is_empty() {
            self.line(&format!("creel: {}: {line}", self.machine));
        }
    }

    fn line(&self, line: &str) {
        let count = self.complaints.fetch_add(1, Ordering::Relaxed);
        if count < MAX_LINES {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    pub(super) fn complaints(&self) -> u64 {
        self.complaints.load(Ordering::Relaxed)
    }

    /// Says what was held back, and stops showing progress.
    pub(super) fn end(&self) {
        let last = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.machine_line(&last);
        self.bar.finish_and_clear();
        let more = self.complaints().saturating_sub(MAX_LINES);
        if more > 0 {
            eprintln!("creel: and {more} more like these");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_talks_without_end_is_counted_and_not_kept() {
        let told = Told::new("k3v9w0x2ma");
        told.machine_says(b"one\ntwo");
        assert_eq!(told.complaints(), 1);
        told.machine_says(b"\n\n\n");
        assert_eq!(told.complaints(), 2);
        for _ in 0..1000 {
            told.machine_says(&[b'x'; 1000]);
        }
        assert!(told.pending.lock().unwrap().len() <= MAX_PENDING_BYTES);
        assert_eq!(told.complaints(), 2);
        told.end();
        assert_eq!(told.complaints(), 3);
    }
}
