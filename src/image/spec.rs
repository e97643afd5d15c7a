//! `spec.json`: what an image says about itself, in upstream's field names and meanings.
//!
//! Upstream images must boot here unchanged, so the fields, their spelling and their defaults are upstream's. What is
//! ours is how a bad file is reported: every problem at once, each with the field and the remedy.

mod fields;
#[cfg(test)]
mod tests;
mod validate;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The file inside an image's directory that describes it.
pub const SPEC_FILE: &str = "spec.json";

/// A validated image description. Paths are absolute once it was loaded from a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpec {
    pub arch: Arch,
    /// The kernel command line, before creel appends to it.
    pub boot_args: String,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// The read-only root disk; the guest's first block device.
    pub store_disk: PathBuf,
    /// `erofs` or `squashfs`; informational, the boot arguments decide.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub store_disk_type: String,
    pub runner_type: RunnerType,
    pub runner_config: RunnerConfig,
    #[serde(rename = "memoryMiB")]
    pub memory_mib: u32,
    pub vcpus: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<NetworkInterface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSpec>,
    /// The absolute path of the login shell that runs steps.
    pub shell: String,
    /// Only NixOS images have one: the hash part of the system's store path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_config_hash: Option<String>,
}

/// A processor architecture, whatever name it was given under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Arch {
    #[serde(rename = "x86_64")]
    X86_64,
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// Knows both the kernel's and Go's names, as upstream does.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "x86_64" | "amd64" => Some(Self::X86_64),
            "aarch64" | "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The name QEMU uses in `qemu-system-<name>`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The architecture creel itself runs on, if images exist for it.
    pub fn native() -> Option<Self> {
        Self::from_name(std::env::consts::ARCH)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunnerType {
    #[default]
    Qemu,
}

/// QEMU's part of the description. `machine` and `extra_args` are requests, not orders: the runtime decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cpu: String,
    pub machine: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub console: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    #[serde(skip_serializing_if = "VirtioTransport::is_default")]
    pub virtio_transport: VirtioTransport,
}

/// How virtio devices reach the guest: the suffix of QEMU's device names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VirtioTransport {
    /// virtio-mmio, `virtio-blk-device` in QEMU's names.
    #[default]
    Mmio,
    Pci,
}

impl VirtioTransport {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    #[serde(rename = "type")]
    pub kind: NetworkKind,
    pub id: String,
    pub mac: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NetworkKind {
    #[serde(rename = "slirp4netns")]
    Slirp4netns,
}

/// A throw-away writable disk, formatted as ext4 before the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    pub fs_type: VolumeFilesystem,
    /// The disk's file name; creel's volumes have no name on disk, so it serves messages only.
    pub image: String,
    pub image_type: DiskFormat,
    pub mount_point: String,
    /// Always false: upstream reserves the field and refuses true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    #[serde(rename = "sizeMiB")]
    pub size_mib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFilesystem {
    Ext4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    #[default]
    Raw,
}

/// A description that passed, and what in it creel did not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub spec: ImageSpec,
    /// One sentence each. Upstream adds fields, so an unknown one is no error.
    pub warnings: Vec<String>,
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field as a path: `volumes[0].sizeMiB`. Empty when the file as a whole is meant.
    pub field: String,
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "`{}` ", self.field)?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Everything wrong with one image's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    pub image: String,
    pub file: PathBuf,
    pub problems: Vec<Problem>,
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image `{}`: {}", self.image, self.file.display())?;
        if let [only] = self.problems.as_slice() {
            return write!(f, ": {only}");
        }
        write!(f, " has {} problems:", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl ImageSpec {
    /// Reads and checks `file`, the files it names included. `image` is used in messages.
    pub fn load(image: &str, file: &Path) -> Result<Checked, SpecError> {
        let failed = |problems| SpecError { image: image.to_owned(), file: file.to_owned(), problems };
        let text = validate::read_bounded(file).map_err(|problem| failed(vec![problem]))?;
        let base = file.parent().unwrap_or(Path::new("/"));
        let (checked, mut problems) = validate::parse(&text, base).map_err(failed)?;
        problems.extend(validate::missing_files(&checked.spec));
        if problems.is_empty() { Ok(checked) } else { Err(failed(problems)) }
    }

    /// Checks `text` without touching the disk; relative paths are taken from `base`. `image` and `file` are used in
    /// messages.
    pub fn parse(image: &str, file: &Path, text: &[u8], base: &Path) -> Result<Checked, SpecError> {
        let failed = |problems| SpecError { image: image.to_owned(), file: file.to_owned(), problems };
        match validate::parse(text, base).map_err(failed)? {
            (checked, problems) if problems.is_empty() => Ok(checked),
            (_, problems) => Err(failed(problems)),
        }
    }
}
