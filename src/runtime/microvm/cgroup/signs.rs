//! What the kernel has counted of a machine: signs of why it ended, and what it has used.

use std::time::Duration;

use rustix::io::Errno;

use crate::host::cgroup::parse::{self, IoTotals, Malformed, MemoryEvents, Pressure};
use crate::host::{Cgroup, CgroupFsError};
use crate::runtime::{MachineLoad, MachineUsage};

/// Why a machine may have ended, as `memory.events` and `pids.events` of its `vm` count it.
///
/// The kernel counts a kill before it sends the SIGKILL ("raise event before sending signal", `__oom_kill_process` in
/// mm/oom_kill.c), so whoever reads these after QEMU's end has been seen, reads the kill too. The group's count comes
/// only after its first member was killed (`oom_kill_process`, same file): it may lag behind, and decides nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupSigns {
    /// How often the machine was at its own limit and nothing could be reclaimed. Zero beside a kill means that the
    /// memory of the host, or of the slice, ran out: a limit above is counted above only (`memcg_memory_event`).
    pub limit_ooms: u64,
    /// Kills of an OOM killer in the machine, whoever's memory ran out; not zero is what counts, since the kernel may kill
    /// one process twice.
    pub oom_kills: u64,
    /// How often all of the machine was ended at once; `None` before Linux 5.17.
    pub oom_group_kills: Option<u64>,
    /// How often a fork failed because the machine had as many processes and threads as it may have. Before Linux 6.11
    /// a limit of a cgroup above counts as well.
    pub pids_max_hits: u64,
}

impl CgroupSigns {
    /// Whether the machine was ended because of its own memory limit.
    pub fn killed_at_own_limit(&self) -> bool {
        self.oom_kills > 0 && self.limit_ooms > 0
    }

    /// Whether it was ended since the host, or a cgroup above, had no memory.
    pub fn killed_for_others_need(&self) -> bool {
        self.oom_kills > 0 && self.limit_ooms == 0
    }

    pub(super) fn read(vm: &Cgroup) -> Result<Self, CgroupFsError> {
        let memory = vm.read_as("memory.events", MemoryEvents::parse)?;
        let pids_max_hits = vm.read_as("pids.events", |text| parse::flat_value(text, "max"))?;
        Ok(Self {
            limit_ooms: memory.oom,
            oom_kills: memory.oom_kill,
            oom_group_kills: memory.oom_group_kill,
            pids_max_hits: pids_max_hits.unwrap_or(0),
        })
    }
}

/// `memory.peak`, since Linux 5.19.
pub(super) fn memory_peak_bytes(vm: &Cgroup) -> Option<u64> {
    value(vm, "memory.peak", parse::number)
}

/// What the machine has used so far; what this kernel does not count stays unset.
pub(super) fn usage(vm: &Cgroup, memory_max_bytes: u64) -> MachineUsage {
    let cpu_us = value(vm, "cpu.stat", |text| parse::flat_value(text, "usage_usec")).flatten();
    let io = value(vm, "io.stat", IoTotals::parse).unwrap_or_default();
    // `pids.peak` is in Linux 6.1 and later.
    let peak_pids =
        value(vm, "pids.peak", parse::number).or_else(|| value(vm, "pids.current", parse::number));
    let pressure = |file| value(vm, file, Pressure::parse).map(|pressure| pressure.some_total);
    MachineUsage {
        cpu: Duration::from_micros(cpu_us.unwrap_or(0)),
        peak_memory_kib: memory_peak_bytes(vm).map(|bytes| bytes / 1024),
        memory_limit_kib: Some(memory_max_bytes / 1024),
        read_bytes: io.read_bytes,
        written_bytes: io.written_bytes,
        peak_pids,
        cpu_pressure: pressure("cpu.pressure"),
        memory_pressure: pressure("memory.pressure"),
        io_pressure: pressure("io.pressure"),
    }
}

/// What the machine takes now.
pub(super) fn load(vm: &Cgroup) -> MachineLoad {
    let cpu_us = value(vm, "cpu.stat", |text| parse::flat_value(text, "usage_usec")).flatten();
    let io = value(vm, "io.stat", IoTotals::parse);
    let pressure = |file| value(vm, file, Pressure::parse).map(|pressure| pressure.some_total);
    MachineLoad {
        memory_bytes: value(vm, "memory.current", parse::number),
        cpu: cpu_us.map(Duration::from_micros),
        pids: value(vm, "pids.current", parse::number),
        read_bytes: io.map(|io| io.read_bytes),
        written_bytes: io.map(|io| io.written_bytes),
        cpu_pressure: pressure("cpu.pressure"),
        memory_pressure: pressure("memory.pressure"),
        io_pressure: pressure("io.pressure"),
    }
}

/// A file that may be missing: by kernel version, or pressure that is not counted (EOPNOTSUPP, `psi=0`).
fn value<T>(vm: &Cgroup, file: &str, parse: impl FnOnce(&str) -> Result<T, Malformed>) -> Option<T> {
    vm.read_as(file, parse)
        .inspect_err(|error| {
            if !matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)) {
                tracing::warn!(%error, "failed to read what a machine has used");
            }
        })
        .ok()
}
