//! The events that creel acts on.

use serde_json::{Map, Value};

use crate::runtime::microvm::qemu::qmp::line::text;

/// Something that happened in QEMU, unasked. Texts are QEMU's own words, cut to 256 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The machine is about to end. `guest`: the guest's doing. `reason`: QAPI's `ShutdownCause`.
    Shutdown { guest: bool, reason: String },
    /// The machine was reset and goes on; not with `-no-reboot`.
    Reset { guest: bool, reason: String },
    /// The guest was asked to power off.
    Powerdown,
    /// The guest's kernel panicked and said so through pvpanic. `action`: what QEMU does about it.
    GuestPanicked { action: String },
    /// A disk failed. `device` is the disk's node name (`store`, `volume-0`, `source`), `no_space` that the host's disk
    /// is full, `operation` `read` or `write`, `action` `stop`, `report` or `ignore`.
    BlockIoError { device: String, no_space: bool, reason: String, operation: String, action: String },
    /// The CPUs were stopped.
    Stop,
    /// The CPUs go on.
    Resume,
    /// Any other, by name.
    Other(String),
}

impl Event {
    pub(super) fn from_parts(name: &str, data: &Map<String, Value>) -> Self {
        let flag = |member: &str| data.get(member).and_then(Value::as_bool).unwrap_or(false);
        match name {
            "SHUTDOWN" => Self::Shutdown { guest: flag("guest"), reason: text(data, "reason") },
            "RESET" => Self::Reset { guest: flag("guest"), reason: text(data, "reason") },
            "POWERDOWN" => Self::Powerdown,
            "GUEST_PANICKED" => Self::GuestPanicked { action: text(data, "action") },
            "BLOCK_IO_ERROR" => Self::BlockIoError {
                // `device` is empty for disks made with `-blockdev`, as all of creel's are.
                device: ["node-name", "device"]
                    .map(|member| text(data, member))
                    .into_iter()
                    .find(|name| !name.is_empty())
                    .unwrap_or_default(),
                no_space: flag("nospace"),
                reason: text(data, "reason"),
                operation: text(data, "operation"),
                action: text(data, "action"),
            },
            "STOP" => Self::Stop,
            "RESUME" => Self::Resume,
            other => Self::Other(other.to_owned()),
        }
    }

    /// It says how the machine ends; there are only so many of these in a machine's life.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Shutdown { .. } | Self::GuestPanicked { .. })
    }
}
