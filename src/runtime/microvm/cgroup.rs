//! A machine's cgroups as a lease: `<root>/m-<id>/{keeper,vm}`.
//!
//! The root is the delegated subtree of `creel-machines.service`, the holder, so that a restart of creeld touches no
//! machine. `vm` carries the limits and takes QEMU and its helpers. `keeper` carries none: the keeper has to outlive an
//! OOM kill of the whole of `vm`, to write down how QEMU ended. Both are made, and limited, before the first process is
//! born into them.
//!
//! - `limits` is what a machine may use; - `signs` what the kernel says of its end, and what it has used; - `machine` is
//!   the lease.

mod limits;
mod machine;
mod signs;

pub use limits::{Limits, Missing};
pub use machine::{MachineCgroup, Meter};
pub use signs::CgroupSigns;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use crate::host::{Cgroup, CgroupFsError};
use crate::runtime::microvm::directory::is_id;

const PREFIX: &str = "m-";

/// What the limits of a machine are made of.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Why a machine's cgroups can't be had.
#[derive(Debug, Error)]
pub enum CgroupError {
    #[error(
        "`{path}` does not exist: creel-machines.service is not running; run `systemctl start \
         creel-machines.service`"
    )]
    NotThere { path: PathBuf },
    #[error(
        "`{path}` is not offered the controllers {controllers}: creel needs cgroup v2 alone (boot with \
         `systemd.unified_cgroup_hierarchy=1` and without `cgroup_disable=`), and `Delegate=yes` on \
         creel-machines.service"
    )]
    NotOffered { path: PathBuf, controllers: String },
    #[error(
        "`{path}/cgroup.subtree_control` lacks the controllers {controllers}: creel-machines.service enables them \
         when it starts; with no machine running, run `systemctl restart creel-machines.service`"
    )]
    NotEnabled { path: PathBuf, controllers: String },
    #[error(
        "`{path}` can't be written to: creeld must be root, or own it, and its unit must not set \
         `ProtectControlGroups=`"
    )]
    NotWritable {
        path: PathBuf,
        #[source]
        source: CgroupFsError,
    },
    #[error("`{id}` is no machine id: it must be 1 to 64 of a-z, 0-9 and `-`")]
    BadId { id: String },
    #[error("machine `{id}` already has a cgroup")]
    Exists { id: String },
    #[error(transparent)]
    Fs(#[from] CgroupFsError),
}

/// The cgroup that all machines live in.
#[derive(Debug, Clone)]
pub struct CgroupRoot {
    cgroup: Arc<Cgroup>,
}

impl CgroupRoot {
    /// Opens it and proves that machines can be made and limited in it.
    ///
    /// # Errors
    /// What is missing, and the remedy.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        match Cgroup::open(path) {
            Ok(cgroup) => Self::proven(cgroup),
            Err(error) if error.errno() == Some(Errno::NOENT) => {
                Err(CgroupError::NotThere { path: path.into() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens it to find and end what lives in it, whatever it lacks for new machines. `None` where there is none.
    ///
    /// # Errors
    /// When it can't be opened, or is no cgroup v2.
    pub fn find(path: &Path) -> Result<Option<Self>, CgroupError> {
        match Cgroup::open(path) {
            Ok(cgroup) => Ok(Some(Self { cgroup: Arc::new(cgroup) })),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn proven(cgroup: Cgroup) -> Result<Self, CgroupError> {
        let path = cgroup.path().to_owned();
        if let Some(controllers) = lacking(&cgroup.controllers()?) {
            return Err(CgroupError::NotOffered { path, controllers });
        }
        if let Some(controllers) = lacking(&cgroup.enabled_controllers()?) {
            return Err(CgroupError::NotEnabled { path, controllers });
        }
        cgroup.check_writable().map_err(|source| CgroupError::NotWritable { path, source })?;
        Ok(Self { cgroup: Arc::new(cgroup) })
    }

    pub fn path(&self) -> &Path {
        self.cgroup.path()
    }

    /// Ids of the machines that have a cgroup here, living or dead, sorted.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn discover(&self) -> Result<Vec<String>, CgroupError> {
        let id_of = |name: &String| name.strip_prefix(PREFIX).filter(|id| is_id(id)).map(str::to_owned);
        Ok(self.cgroup.children()?.iter().filter_map(id_of).collect())
    }

    /// Kills whatever lives in a machine's cgroups and removes them. None there is no error.
    ///
    /// # Errors
    /// [`CgroupFsError::StillPopulated`] after `bound`. It may be tried again.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn reclaim(&self, id: &str, bound: Duration) -> Result<(), CgroupError> {
        Ok(self.cgroup.end_child(&name_of(id)?, bound).await?)
    }
}

fn name_of(id: &str) -> Result<String, CgroupError> {
    if is_id(id) { Ok(format!("{PREFIX}{id}")) } else { Err(CgroupError::BadId { id: id.into() }) }
}

/// Those that are needed and not among `present`, for a person to read.
fn lacking(present: &[String]) -> Option<String> {
    let lacking: Vec<&str> =
        CONTROLLERS.into_iter().filter(|name| !present.iter().any(|other| other == name)).collect();
    (!lacking.is_empty()).then(|| lacking.join(", "))
}

#[cfg(test)]
mod tests;
