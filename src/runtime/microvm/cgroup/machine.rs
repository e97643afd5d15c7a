//! The cgroups of one machine, from before its first process until after its last.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{CONTROLLERS, CgroupError, CgroupRoot, CgroupSigns, Limits, Missing, name_of, signs};
use crate::host::inotify::Watch;
use crate::host::{Cgroup, CgroupFsError};
use crate::runtime::{MachineLoad, MachineUsage};

/// How long the thread of a dropped lease waits for killed processes.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

/// `<root>/m-<id>` with `keeper` and `vm` in it.
///
/// End it with [`Self::end`]. Dropping it kills the machine as well and leaves the rest to a thread of its own;
/// [`Self::leave`] lets the machine live on.
#[derive(Debug)]
pub struct MachineCgroup {
    root: Arc<Cgroup>,
    name: String,
    machine: Cgroup,
    keeper: Cgroup,
    vm: Cgroup,
    limits: Limits,
    missing: Vec<Missing>,
    /// `memory.events` and `pids.events`. `None` when the user has no inotify watch left; the signs are then seen when
    /// QEMU has ended.
    watches: [Option<Watch>; 2],
    /// Read last before the cgroups went.
    last: Option<Last>,
    /// Whether there is nothing left to do.
    released: bool,
}

/// Reads what a machine uses while it lives.
#[derive(Debug)]
pub struct Meter {
    vm: Cgroup,
    memory_max_bytes: u64,
}

impl Meter {
    pub fn usage(&self) -> MachineUsage {
        signs::usage(&self.vm, self.memory_max_bytes)
    }

    pub fn load(&self) -> MachineLoad {
        signs::load(&self.vm)
    }
}

#[derive(Debug)]
struct Last {
    signs: Option<CgroupSigns>,
    usage: MachineUsage,
}

impl MachineCgroup {
    /// Makes the cgroups and sets the limits; no process is in them.
    ///
    /// # Errors
    /// When there is one of that id already, or a limit can't be set. Nothing is left behind then.
    pub fn acquire(root: &CgroupRoot, id: &str, limits: Limits) -> Result<Self, CgroupError> {
        Self::acquire_with(root, id, limits, &CONTROLLERS, |vm| limits.write(vm))
    }

    pub(super) fn acquire_with(
        root: &CgroupRoot,
        id: &str,
        limits: Limits,
        controllers: &[&str],
        limit: impl FnOnce(&Cgroup) -> Result<Vec<Missing>, CgroupFsError>,
    ) -> Result<Self, CgroupError> {
        let name = name_of(id)?;
        let machine = root.cgroup.create_child(&name).map_err(|error| match error.errno() {
            Some(Errno::EXIST) => CgroupError::Exists { id: id.into() },
            _ => error.into(),
        })?;
        let parts = || {
            machine.enable(controllers)?;
            let (keeper, vm) = (machine.create_child("keeper")?, machine.create_child("vm")?);
            let missing = limit(&vm)?;
            Ok((keeper, vm, missing))
        };
        match parts() {
            Ok((keeper, vm, missing)) => Ok(Self {
                root: Arc::clone(&root.cgroup),
                name,
                watches: ["memory.events", "pids.events"].map(|file| watch(&vm, file)),
                machine,
                keeper,
                vm,
                limits,
                missing,
                last: None,
                released: false,
            }),
            Err(error) => {
                if let Err(left) = root.cgroup.remove_tree(&name) {
                    tracing::warn!(error = %left, "failed to remove a half-made cgroup of a machine");
                }
                Err(CgroupError::Fs(error))
            }
        }
    }

    /// `<root>/m-<id>`.
    pub fn path(&self) -> &Path {
        self.machine.path()
    }

    /// The keeper is born here (`CLONE_INTO_CGROUP`). It has no limits.
    pub fn keeper(&self) -> BorrowedFd<'_> {
        self.keeper.as_fd()
    }

    /// QEMU and its helpers are born here.
    pub fn vm(&self) -> BorrowedFd<'_> {
        self.vm.as_fd()
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The limits that this kernel could not be told.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// What the kernel says of the machine's end, now, or as it was when [`Self::end`] removed the cgroups.
    ///
    /// # Errors
    /// When the files can't be read, as when somebody else has removed the cgroups.
    pub fn signs(&self) -> Result<CgroupSigns, CgroupError> {
        match self.last.as_ref().and_then(|last| last.signs) {
            Some(signs) => Ok(signs),
            None => Ok(CgroupSigns::read(&self.vm)?),
        }
    }

    /// Returns when a sign may have changed since this returned last. The kernel also tells of memory reclaimed at the
    /// limit, up to a hundred times a second, so look at [`Self::signs`]. Safe to cancel.
    pub async fn changed(&mut self) {
        let [memory, pids] = &mut self.watches;
        tokio::select! {
            () = changed(memory) => {}
            () = changed(pids) => {}
        }
    }

    /// What the machine has used, now, or as it was when [`Self::end`] removed the cgroups.
    pub fn usage(&self) -> MachineUsage {
        match &self.last {
            Some(last) => last.usage.clone(),
            None => signs::usage(&self.vm, self.limits.memory_max_bytes),
        }
    }

    /// Reads what the machine uses, without holding it.
    ///
    /// # Errors
    /// When its directory can't be opened again.
    pub fn meter(&self) -> Result<Meter, CgroupError> {
        Ok(Meter { vm: self.machine.open_child("vm")?, memory_max_bytes: self.limits.memory_max_bytes })
    }

    /// The most memory that the machine had at once, page cache included; `None` before Linux 5.19 and after the end.
    pub fn memory_peak_bytes(&self) -> Option<u64> {
        signs::memory_peak_bytes(&self.vm)
    }

    /// Kills all processes of the machine, the keeper's among them, waits until none is left, and removes the cgroups.
    /// Idempotent.
    ///
    /// # Errors
    /// [`CgroupFsError::StillPopulated`] after `bound`; it names who is left. It may be tried again.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn end(&mut self, bound: Duration) -> Result<(), CgroupError> {
        if self.released {
            return Ok(());
        }
        let started_at = Instant::now();
        if self.machine.kill().is_ok()
            && let Err(error @ CgroupFsError::StillPopulated { .. }) = self.machine.wait_empty(bound).await
        {
            return Err(error.into());
        }
        // Between the last process and the end of the cgroup: nothing will be added to it. Any error of the above comes
        // again below, unless somebody else has removed the cgroup.
        if self.last.is_none() {
            self.last = Some(Last { signs: CgroupSigns::read(&self.vm).ok(), usage: self.usage() });
        }
        self.root.end_child(&self.name, bound.saturating_sub(started_at.elapsed())).await?;
        self.released = true;
        Ok(())
    }

    /// Leaves the machine to whoever comes next: it lives on, and [`CgroupRoot::discover`] finds it.
    pub fn leave(mut self) {
        self.released = true;
    }
}

impl Drop for MachineCgroup {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        // At once, whatever becomes of the thread.
        let _ = self.machine.kill();
        let (root, name) = (Arc::clone(&self.root), std::mem::take(&mut self.name));
        let path = self.machine.path().to_owned();
        let end = move || {
            // Its own: the runtime around the drop may be the one that is ending.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let ended = match &runtime {
                Ok(runtime) => runtime.block_on(root.end_child(&name, DROP_TIMEOUT)),
                Err(_) => root.remove_tree(&name),
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "failed to remove the cgroups of a machine");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("cgroup-end".into()).spawn(end) {
            tracing::warn!(%error, path = %path.display(), "the cgroups of a machine stay until creel starts again");
        }
    }
}

fn watch(vm: &Cgroup, file: &str) -> Option<Watch> {
    let watch = vm.watch(file);
    watch
        .inspect_err(|error| {
            tracing::warn!(%error, "failed to watch a machine's cgroup: is fs.inotify.max_user_watches too low?");
        })
        .ok()
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
