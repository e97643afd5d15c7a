//! The values that can be configured, and their defaults. A value is here only if something reads it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::places::Places;
use super::units::{ByteSize, Period};

/// How QEMU runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM if a trial boot proves it, else TCG.
    #[default]
    Auto,
    Kvm,
    Tcg,
}

impl Accel {
    const NAMES: [(Self, &str); 3] = [(Self::Auto, "auto"), (Self::Kvm, "kvm"), (Self::Tcg, "tcg")];
}

impl FromStr for Accel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(accel, _)| *accel).ok_or_else(|| format!("`{text}` is none of `auto`, `kvm`, `tcg`"))
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(accel, _)| accel == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// How a guest's vsock reaches creel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Unix sockets in the machine's directory, through a helper process.
    #[default]
    Hybrid,
    /// AF_VSOCK, through the kernel's vhost-vsock.
    Kernel,
}

impl Transport {
    const NAMES: [(Self, &str); 2] = [(Self::Hybrid, "hybrid"), (Self::Kernel, "kernel")];
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found
            .map(|(transport, _)| *transport)
            .ok_or_else(|| format!("`{text}` is neither `hybrid` nor `kernel`"))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(transport, _)| transport == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// The whole configuration, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub machine: Machine,
    pub images: Images,
    pub engine: Engine,
    pub logs: Logs,
    pub qemu: Qemu,
    /// The directories: defaults for this user, and what is set by `run.dir`, `state.dir`, `cache.dir`, `images.dir`
    /// and `kit.dir`.
    pub places: Places,
    pub(super) directories: Directories,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub accel: Accel,
    pub transport: Transport,
    /// From the start of QEMU to the agent's Hello.
    pub agent_timeout: Period,
    /// From the request to power off to the end of QEMU by force.
    pub shutdown_timeout: Period,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// The image of a workflow that names none.
    pub default: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// The steps of a workflow together, when `--timeout` says nothing.
    pub workflow_timeout: Period,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Kept of one step's output: the first half and the last.
    pub max_step: ByteSize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// None: `qemu-system-<architecture>` on `PATH`.
    pub path: Option<PathBuf>,
}

/// Directories as they are set, before [`Places`] puts defaults in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Directories {
    pub(super) run: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    pub(super) cache: Option<PathBuf>,
    pub(super) images: Option<PathBuf>,
    pub(super) kit: Option<PathBuf>,
}

impl Config {
    /// Every default but the directories', which depend on the user.
    pub(super) fn defaults() -> Self {
        Self {
            machine: Machine {
                accel: Accel::Auto,
                // Needs neither root nor a kernel module, and two runs do not meet on a port.
                transport: Transport::Hybrid,
                // TCG on a loaded host boots in seconds, not in a minute; NixOS images take longer.
                agent_timeout: Period::from_secs(2 * 60),
                shutdown_timeout: Period::from_secs(10),
            },
            images: Images { default: "tiny".to_owned() },
            // Upstream's five minutes suit a shared spindle. At a person's own machine they would cut builds short.
            engine: Engine { workflow_timeout: Period::from_secs(60 * 60) },
            logs: Logs { max_step: ByteSize::from_mib(64) },
            qemu: Qemu { path: None },
            places: Places::default(),
            directories: Directories::default(),
        }
    }
}
