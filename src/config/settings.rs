//! The values that can be configured, and their defaults. A value is here only if something reads it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use creel_proto::names::ports;

use super::observe::{LogFilter, LogFormat, MetricsAddress};
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
    /// `Kernel` in creeld where the kernel has vhost-vsock, else `Hybrid`: two creels can't share the kernel's ports.
    #[default]
    Auto,
    /// Unix sockets in the machine's directory, through a helper process.
    Hybrid,
    /// AF_VSOCK, through the kernel's vhost-vsock.
    Kernel,
}

impl Transport {
    const NAMES: [(Self, &str); 3] =
        [(Self::Auto, "auto"), (Self::Hybrid, "hybrid"), (Self::Kernel, "kernel")];
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found
            .map(|(transport, _)| *transport)
            .ok_or_else(|| format!("`{text}` is none of `auto`, `hybrid`, `kernel`"))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(transport, _)| transport == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// Whether a machine of creeld may go without a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupMode {
    /// No cgroup, no machine.
    #[default]
    Required,
    /// Where there is none, machines run without and creel says what is missing.
    Auto,
}

impl CgroupMode {
    const NAMES: [(Self, &str); 2] = [(Self::Required, "required"), (Self::Auto, "auto")];
}

impl FromStr for CgroupMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(mode, _)| *mode).ok_or_else(|| format!("`{text}` is neither `required` nor `auto`"))
    }
}

impl fmt::Display for CgroupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(mode, _)| mode == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// Whether a machine may have less of a jail than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JailMode {
    /// All layers, or no machine.
    Required,
    /// The layers that this host and user can have.
    Auto,
    /// None: for tests of QEMU itself.
    Off,
}

impl JailMode {
    const NAMES: [(Self, &str); 3] = [(Self::Required, "required"), (Self::Auto, "auto"), (Self::Off, "off")];
}

impl FromStr for JailMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(mode, _)| *mode).ok_or_else(|| format!("`{text}` is none of `required`, `auto`, `off`"))
    }
}

impl fmt::Display for JailMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(mode, _)| mode == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    /// None: `Required` in creeld, `Auto` in an embedded run, which is a person's.
    pub mode: Option<JailMode>,
    /// The users that machines of root run as.
    pub first_uid: u32,
    pub uid_count: u32,
}

/// The whole configuration, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub daemon: Daemon,
    pub cgroups: Cgroups,
    pub vsock_ports: VsockPorts,
    pub machine: Machine,
    pub jail: Jail,
    pub images: Images,
    pub engine: Engine,
    pub scheduler: Scheduler,
    pub logs: Logs,
    pub qemu: Qemu,
    /// The directories: defaults for this user, and what is set by `run.dir`, `state.dir`, `cache.dir`, `images.dir`
    /// and `kit.dir`.
    pub places: Places,
    pub(super) directories: Directories,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    pub socket: PathBuf,
    pub max_machines: u32,
    pub log: LogFilter,
    pub log_format: LogFormat,
    pub metrics: MetricsAddress,
}

/// Limits of creeld's machines on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    pub mode: CgroupMode,
    /// The delegated cgroup of creel-machines.service.
    pub root: PathBuf,
    /// What QEMU and its helpers take beside the guest's memory.
    pub memory_overhead: ByteSize,
    pub max_pids: u32,
    /// `cpu.weight` and `io.weight` (Documentation/admin-guide/cgroup-v2.rst).
    pub cpu_weight: u16,
    pub io_weight: u16,
}

/// The ports that guests dial on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VsockPorts {
    pub agent: u32,
    pub nix_read: u32,
    pub nix_upload: u32,
    pub dns: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub accel: Accel,
    /// Whether creeld may emulate guests. An embedded run may, with a warning.
    pub allow_tcg: bool,
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
pub struct Scheduler {
    /// How many workflows run at once. None: one a CPU.
    pub slots: Option<u32>,
}

impl Scheduler {
    /// How many workflows run at once on this host.
    pub fn slots(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        self.slots.and_then(|slots| usize::try_from(slots).ok()).unwrap_or_else(cpus)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Kept of one step's output: the first half and the last.
    pub max_step: ByteSize,
    /// Bounds on the records and logs of runs: from a run's end; of all together; how many.
    pub keep_for: Period,
    pub max_total: ByteSize,
    pub max_runs: u32,
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
            daemon: Daemon {
                socket: "/run/creel/creel.sock".into(),
                max_machines: 64,
                log: LogFilter::default(),
                log_format: LogFormat::Auto,
                metrics: MetricsAddress::Off,
            },
            cgroups: Cgroups {
                mode: CgroupMode::Required,
                root: "/sys/fs/cgroup/creel.slice/creel-machines.service".into(),
                memory_overhead: ByteSize::from_mib(160),
                max_pids: 512,
                cpu_weight: 100,
                io_weight: 100,
            },
            vsock_ports: VsockPorts {
                agent: ports::AGENT,
                nix_read: ports::NIX_READ,
                nix_upload: ports::NIX_UPLOAD,
                dns: ports::DNS,
            },
            machine: Machine {
                accel: Accel::Auto,
                allow_tcg: false,
                transport: Transport::Auto,
                // TCG on a loaded host boots in seconds, not in a minute; NixOS images take longer.
                agent_timeout: Period::from_secs(2 * 60),
                shutdown_timeout: Period::from_secs(10),
            },
            // systemd's table of users (docs/UIDS-GIDS.md) leaves these to nobody.
            jail: Jail { mode: None, first_uid: 2_000_000_000, uid_count: 65_536 },
            images: Images { default: "tiny".to_owned() },
            // Upstream's five minutes suit a shared spindle. At a person's own machine they would cut builds short.
            engine: Engine { workflow_timeout: Period::from_secs(60 * 60) },
            scheduler: Scheduler { slots: None },
            logs: Logs {
                max_step: ByteSize::from_mib(64),
                keep_for: Period::from_secs(30 * 24 * 60 * 60),
                max_total: ByteSize::from_mib(2048),
                max_runs: 1000,
            },
            qemu: Qemu { path: None },
            places: Places::default(),
            directories: Directories::default(),
        }
    }
}
