//! A boot, step by step.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::Mode;

use super::modules::{self, ModuleError};
use super::mounts::{self, MountError};
use super::root::{self, RootError};
use super::thrashing;
use super::workspace::{self, WorkspaceError};
use crate::cmdline::{Cmdline, CmdlineError};
use crate::{log, sys};

const DEFAULT_HOSTNAME: &str = "creel";

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("failed to open /dev/kmsg: {0}")]
    KernelLog(#[source] io::Error),
    #[error("failed to read /proc/cmdline: {0}")]
    ReadCmdline(#[source] io::Error),
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("failed to bring up the loopback interface: {0}")]
    Loopback(#[source] io::Error),
    #[error("failed to set the host name to `{name}`: {source}")]
    Hostname { name: String, source: io::Error },
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error("failed to start the image's init `{init}`: {source}")]
    ImageInit { init: PathBuf, source: io::Error },
}

/// A booted machine.
#[derive(Debug)]
pub struct Booted {
    /// Where volumes are mounted, in order.
    pub volumes: Vec<PathBuf>,
}

/// Boots. With `creel.init=` this does not return: the image's init takes over.
pub fn boot() -> Result<Booted, BootError> {
    rustix::process::umask(Mode::from_bits_truncate(0o022));
    mounts::kernel_file_systems()?;
    log::to_kernel_log().map_err(BootError::KernelLog)?;
    thrashing::prevent();
    let line = fs::read_to_string("/proc/cmdline").map_err(BootError::ReadCmdline)?;
    let cmdline = Cmdline::parse(&line);
    let volumes = cmdline.volumes()?;

    modules::load_all()?;
    if let Some(store_type) = cmdline.root()? {
        root::switch_to_store(store_type)?;
    }
    root::mount_volumes(&volumes)?;

    if let Some(init) = cmdline.init()? {
        workspace::prepare_if_possible();
        let Err(error) = become_image_init(init);
        return Err(error);
    }

    mounts::runtime_file_systems()?;
    sys::loopback_up().map_err(BootError::Loopback)?;
    let name = cmdline.hostname()?.unwrap_or(DEFAULT_HOSTNAME);
    rustix::system::sethostname(name.as_bytes())
        .map_err(|errno| BootError::Hostname { name: name.to_owned(), source: errno.into() })?;
    workspace::prepare()?;
    Ok(Booted { volumes })
}

fn become_image_init(init: PathBuf) -> Result<Infallible, BootError> {
    let source = Command::new(&init).exec();
    Err(BootError::ImageInit { init, source })
}
