//! This process's own metrics, under the names that every Prometheus client library gives them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Read anew for each scrape.
#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
}

impl Process {
    pub(super) fn since_now() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = f64_of(spent.tv_sec) + f64_of(spent.tv_nsec) / 1e9;
        put(
            "process_cpu_seconds",
            "CPU time that creeld has taken, without its machines.",
            &ConstCounter::new(seconds),
        )?;
        if let Some(bytes) = resident_bytes() {
            put(
                "process_resident_memory_bytes",
                "Memory of creeld, without its machines.",
                &ConstGauge::new(bytes),
            )?;
        }
        if let Some(count) = open_fds() {
            put("process_open_fds", "Open file descriptors of creeld.", &ConstGauge::new(count))?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            put("process_max_fds", "How many file descriptors creeld may have.", &ConstGauge::new(limit))?;
        }
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        put("process_start_time_seconds", "When creeld started, in Unix time.", &ConstGauge::new(started))
    }
}

/// The second field of /proc/self/statm, in pages (proc_pid_statm(5)).
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// Without the one that counts them.
fn open_fds() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count.saturating_sub(1)).ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact for 285 years of microseconds, which is what Prometheus keeps"
)]
fn f64_of(number: i64) -> f64 {
    number as f64
}
