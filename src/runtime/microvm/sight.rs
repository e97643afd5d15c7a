//! What is shown of a living machine: its numbers, its processes, its console.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use async_trait::async_trait;
use creel_keeper::records::CONSOLE_FILE;
use rustix::fs::{Mode, OFlags, openat};

use super::cgroup::{Limits, Meter};
use super::keeper::Keeper;
use super::leases::Leases;
use super::processes;
use super::runtime::Settings;
use crate::host::{Namespaces, inotify};
use crate::runtime::{Console, ConsoleHistory, MachineDetails, MachineLimits, MachineLoad, MachineUsage};

/// Looks at one machine without holding anything of it.
#[derive(Debug)]
pub(super) struct Sight {
    /// `None` where the machine has no cgroup.
    meter: Option<Meter>,
    keeper_pid: Option<u32>,
    /// Without the processes, which change.
    details: MachineDetails,
    /// The machine's directory, opened anew: a copy of the lease's descriptor would hold its lock.
    directory: io::Result<OwnedFd>,
}

impl Sight {
    pub(super) fn of(settings: &Settings, leases: &Leases, keeper: &Keeper) -> Self {
        let cgroup = leases.cgroup.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(leases.directory.fd(), c".", flags, Mode::empty()).map_err(io::Error::from);
        let namespaces = match keeper.namespaces() {
            Namespaces::None => "none",
            Namespaces::Pid => "pid",
            Namespaces::UserPid => "user and pid",
            Namespaces::Jail => "pid, mount, network, ipc and uts",
            Namespaces::UserJail => "user, pid, mount, network, ipc and uts",
        };
        Self {
            meter: cgroup.and_then(|cgroup| cgroup.meter().ok()),
            keeper_pid: u32::try_from(keeper.pid().as_raw_pid()).ok(),
            details: MachineDetails {
                directory: Some(leases.directory.path().to_owned()),
                image_directory: Some(leases.image.directory.clone()),
                image_digest: leases.image.digest.clone(),
                qemu: Some((settings.qemu.path.clone(), settings.qemu.version.to_string())),
                namespaces: Some(namespaces.to_owned()),
                limits: cgroup.map(|cgroup| cgroup.limits().into()),
                processes: Vec::new(),
            },
            directory,
        }
    }

    pub(super) fn usage(&self) -> Option<MachineUsage> {
        self.meter.as_ref().map(Meter::usage)
    }

    pub(super) fn load(&self) -> Option<MachineLoad> {
        match &self.meter {
            Some(meter) => Some(meter.load()),
            None => processes::load(self.keeper_pid?),
        }
    }

    pub(super) fn details(&self) -> MachineDetails {
        let processes = self.keeper_pid.map(processes::of_keeper).unwrap_or_default();
        MachineDetails { processes, ..self.details.clone() }
    }

    pub(super) fn console(&self) -> io::Result<Box<dyn Console>> {
        let directory =
            self.directory.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        // As the keeper reads it: what lies there may have been replaced by a QEMU that was taken over.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(directory, CONSOLE_FILE, flags, Mode::empty())?;
        let watch = inotify::watch(file.as_fd(), inotify::Events::MODIFY)?;
        Ok(Box::new(OpenConsole { file, watch }))
    }
}

impl From<&Limits> for MachineLimits {
    fn from(limits: &Limits) -> Self {
        use std::time::Duration;
        Self {
            memory_bytes: limits.memory_max_bytes,
            pids: limits.pids_max,
            cpu_quota: limits.cpu_quota_us.map(Duration::from_micros),
            cpu_period: Duration::from_micros(limits.cpu_period_us),
            cpu_weight: limits.cpu_weight,
            io_weight: limits.io_weight,
        }
    }
}

/// The keeper's file. It outlives its name, and so the machine.
#[derive(Debug)]
struct OpenConsole {
    file: OwnedFd,
    watch: inotify::Watch,
}

#[async_trait]
impl Console for OpenConsole {
    fn read(&self) -> io::Result<ConsoleHistory> {
        let creel_keeper::ConsoleHistory { head, tail, total } =
            creel_keeper::ConsoleHistory::read(&self.file).map_err(io::Error::other)?;
        Ok(ConsoleHistory { head, tail, total })
    }

    async fn changed(&mut self) {
        self.watch.changed().await;
    }
}
