//! What every image has, whatever its root: the limits of its numbers, its `spec.json`, and its files' modes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::{BuildError, BuildEvent};
use crate::image::kit::Kit;
use crate::image::spec::{
    Arch, DiskFormat, ImageSpec, RunnerConfig, RunnerType, SPEC_FILE, VirtioTransport, VolumeFilesystem,
    VolumeSpec,
};

pub(super) const INITRD: &str = "initrd";

/// The numbers that a machine of the image starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) memory_mib: u32,
    pub(super) vcpus: u32,
    /// The disk at `/workspace`.
    pub(super) volume_size_mib: u64,
}

impl Resources {
    pub(super) fn check(self) -> Result<(), BuildError> {
        let refuse = |option, value: String, remedy| Err(BuildError::Option { option, value, remedy });
        // Less than the kernel and its first root take.
        if self.memory_mib < 64 {
            return refuse("memory_mib", self.memory_mib.to_string(), "give it at least 64");
        }
        if self.vcpus == 0 {
            return refuse("vcpus", "0".to_owned(), "give it at least 1");
        }
        // mke2fs makes no ext4 of less, with the journal this one does not have.
        if !(8..=16 << 20).contains(&self.volume_size_mib) {
            return refuse("volume_size_mib", self.volume_size_mib.to_string(), "give it 8 to 16777216");
        }
        Ok(())
    }
}

/// What the description of an image with the agent as its first process depends on.
#[derive(Debug)]
pub(super) struct Description<'a> {
    pub(super) kit: &'a Kit,
    pub(super) resources: Resources,
    pub(super) store_disk: &'static str,
    /// As the agent and the kernel call it.
    pub(super) store_disk_type: &'static str,
    pub(super) shell: &'static str,
    /// A program that becomes PID 1 in the agent's place.
    pub(super) init: Option<&'a str>,
}

impl Description<'_> {
    /// The description, with paths relative to the image's directory.
    pub(super) fn spec(&self) -> ImageSpec {
        let mut boot_args = format!(
            "earlyprintk=ttyS0 console=hvc0 reboot=t panic=-1 quiet creel.root={} creel.volumes=/workspace",
            self.store_disk_type
        );
        if let Some(init) = self.init {
            boot_args.push_str(" creel.init=");
            boot_args.push_str(init);
        }
        ImageSpec {
            arch: Arch::native().unwrap_or(Arch::X86_64),
            boot_args,
            kernel: PathBuf::from(self.kit.kernel.format.file_name()),
            initrd: PathBuf::from(INITRD),
            store_disk: PathBuf::from(self.store_disk),
            store_disk_type: self.store_disk_type.to_owned(),
            runner_type: RunnerType::Qemu,
            runner_config: runner_config(),
            memory_mib: self.resources.memory_mib,
            vcpus: self.resources.vcpus,
            network_interfaces: Vec::new(),
            volumes: vec![VolumeSpec {
                fs_type: VolumeFilesystem::Ext4,
                image: "workspace.img".to_owned(),
                image_type: DiskFormat::Raw,
                mount_point: "/workspace".to_owned(),
                read_only: false,
                size_mib: self.resources.volume_size_mib,
            }],
            shell: self.shell.to_owned(),
            base_config_hash: None,
        }
    }

    pub(super) fn json(&self) -> Result<Vec<u8>, BuildError> {
        let mut text = serde_json::to_vec_pretty(&self.spec())
            .map_err(|error| BuildError::io("write", Path::new(SPEC_FILE))(error.into()))?;
        text.push(b'\n');
        Ok(text)
    }
}

/// What upstream's images ask for, less `mem-merge`, which lets tenants watch each other's memory.
fn runner_config() -> RunnerConfig {
    let (cpu, machine, extra_args): (_, _, &[&str]) = if cfg!(target_arch = "aarch64") {
        ("host", "virt,accel=kvm:tcg,gic-version=max,its=off,msi=off", &[])
    } else {
        let machine = "microvm,accel=kvm:tcg,acpi=on,pcie=off,pic=off,pit=off,rtc=on,usb=off";
        ("host,+x2apic,-sgx", machine, &["-device", "i8042"])
    };
    RunnerConfig {
        cpu: cpu.to_owned(),
        machine: machine.to_owned(),
        console: "hvc0".to_owned(),
        extra_args: extra_args.iter().map(|argument| (*argument).to_owned()).collect(),
        virtio_transport: VirtioTransport::Mmio,
    }
}

/// A directory below the staging directory, with the mode that a root has.
pub(super) fn make_directory(path: &Path) -> Result<(), BuildError> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(BuildError::io("create", path))
}

pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<(), BuildError> {
    fs::write(path, content).map_err(BuildError::io("write", path))?;
    readable(path)
}

pub(super) fn readable(path: &Path) -> Result<(), BuildError> {
    fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(BuildError::io("write", path))
}

pub(super) fn report_size(
    path: &Path,
    file: &'static str,
    on_event: &mut dyn FnMut(BuildEvent),
) -> Result<(), BuildError> {
    let bytes = path.metadata().map_err(BuildError::io("read", path))?.len();
    on_event(BuildEvent::Packed { file, bytes });
    Ok(())
}
