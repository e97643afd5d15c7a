//! What a machine may use of its host.
//!
//! `memory.high` stays unset: it stalls a machine that has no swap instead of ending it, and a stalled machine has no
//! verdict.

use std::fmt;

use crate::host::{Cgroup, CgroupFsError};

/// The limits of `vm`: QEMU and its helpers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The guest's memory and what QEMU needs beside it. The kernel rounds down to whole pages.
    pub memory_max_bytes: u64,
    /// Processes and threads.
    pub pids_max: u32,
    /// CPU time in each period, 1000 at least; `None` for as much as there is.
    pub cpu_quota_us: Option<u64>,
    /// 1000 to 1,000,000; the kernel's own default is 100,000.
    pub cpu_period_us: u64,
    /// 1 to 10,000; 100 is what others have.
    pub cpu_weight: u16,
    /// 1 to 10,000; 100 is what others have. It counts on disks for which the operator has enabled iocost
    /// (`io.cost.qos`); the kernel takes it in any case.
    pub io_weight: u16,
}

/// A protection that this host's kernel does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The cgroup file that is not there.
    pub file: &'static str,
    /// What follows from it, as a clause.
    pub consequence: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel has no `{}`: {}", self.file, self.consequence)
    }
}

const NO_SWAP_LIMIT: Missing = Missing {
    file: "memory.swap.max",
    consequence: "where the host has swap, a machine over its memory is swapped out instead of ended",
};

/// The file comes with iocost (`CONFIG_BLK_CGROUP_IOCOST`); BFQ's own is `io.bfq.weight`.
const NO_IO_WEIGHT: Missing =
    Missing { file: "io.weight", consequence: "a machine that is busy with its disks slows the others" };

impl Limits {
    /// Sets them on a cgroup that has no process yet. Returns which of them this kernel can't set; a limit on memory,
    /// processes or CPU that can't be set is an error.
    pub(super) fn write(&self, vm: &Cgroup) -> Result<Vec<Missing>, CgroupFsError> {
        let quota = self.cpu_quota_us.map_or("max".to_owned(), |quota_us| quota_us.to_string());
        vm.write("memory.max", &self.memory_max_bytes.to_string())?;
        // All of the machine or nothing: QEMU without its helpers, or the other way round, is no machine.
        vm.write("memory.oom.group", "1")?;
        vm.write("pids.max", &self.pids_max.to_string())?;
        vm.write("cpu.max", &format!("{quota} {}", self.cpu_period_us))?;
        vm.write("cpu.weight", &self.cpu_weight.to_string())?;

        let optional = [
            (NO_SWAP_LIMIT, "0".to_owned()),
            // For all devices that have no weight of their own.
            (NO_IO_WEIGHT, format!("default {}", self.io_weight)),
        ];
        let mut missing = Vec::new();
        for (limit, value) in optional {
            if vm.has(limit.file) {
                vm.write(limit.file, &value)?;
            } else {
                missing.push(limit);
            }
        }
        Ok(missing)
    }
}
