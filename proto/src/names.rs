//! Names that both ends of a contract must spell alike.

/// The version of `spindle.agent.v1` that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The user that steps run as when a request names none.
pub const DEFAULT_USER: &str = "spindle-workflow";

/// Where the agent port is looked up when neither environment nor kernel command line names one.
pub const DEFAULT_AGENT_PORT: u32 = 10240;

/// creel's vsock ports on the host. Below 1024, so that binding them takes `CAP_NET_BIND_SERVICE`
/// (vsock(7)): no ordinary local process can stand in for creel.
pub mod ports {
    /// The agent dials this one.
    pub const AGENT: u32 = 824;
    /// Nix cache, read.
    pub const NIX_READ: u32 = 825;
    /// Nix cache, upload.
    pub const NIX_UPLOAD: u32 = 826;
    /// DNS.
    pub const DNS: u32 = 827;
}

/// Ids of exchanges of which a connection has only one.
pub mod ids {
    pub const HELLO: &str = "hello";
    pub const INIT: &str = "init";
    pub const CACHE_DRAIN: &str = "cache-drain";
    pub const POWEROFF: &str = "poweroff";
    pub const PTY: &str = "pty";
    pub const BUILT_PATHS: &str = "built-paths";
    /// `creel.source.1`.
    pub const SOURCE: &str = "source";
    /// `creel.resume.1`.
    pub const RESUME: &str = "resume";
    /// `creel.heartbeat.1`.
    pub const HEARTBEAT: &str = "heartbeat";
}

/// creel's extensions of version 1. A side uses one only when both have named it.
pub mod extensions {
    /// Output as bytes with offsets, and an exit that says signal, OOM and usage.
    pub const OUTPUT_1: &str = "creel.output.1";
    /// The source disk and its unpacking.
    pub const SOURCE_1: &str = "creel.source.1";
    /// Signals to execs, and their cancellation.
    pub const SIGNAL_1: &str = "creel.signal.1";
    /// Execs with input, terminals and credit for each stream, known by their ids across connections.
    pub const EXEC_2: &str = "creel.exec.2";
    /// A new connection goes on where the last one broke, if it can prove who it is.
    pub const RESUME_1: &str = "creel.resume.1";
    /// Pings, to tell an agent that is busy from one that is gone.
    pub const HEARTBEAT_1: &str = "creel.heartbeat.1";
    /// File trees in and out as tar archives.
    pub const FILES_1: &str = "creel.files.1";
}

/// What a guest finds by virtio-blk serial (`/sys/block/<dev>/serial`, at most 20 bytes: virtio 1.2,
/// section 5.2.6).
pub mod disks {
    /// The image's read-only store disk.
    pub const STORE: &str = "creel-store";
    /// The tar archive with the workflow's source tree.
    pub const SOURCE: &str = "creel-source";
    /// Prefix of volume n of the image, n from 0: `creel-volume-0`.
    pub const VOLUME_PREFIX: &str = "creel-volume-";
}
