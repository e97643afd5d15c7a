//! QEMU's argument vector. Pure, so that what QEMU is told can be read in a snapshot.
//!
//! Every file is a descriptor that QEMU inherits: in its jail there is nothing to open, and a name can't be swapped
//! between check and use. Three ways of naming one are in use, each because the others do not work there:
//!
//! - `-kernel` and `-initrd` take only paths: in a jail the names that its root has them under, else `/proc/self/fd/N`;
//! - disks and console are `-add-fd` sets opened as `/dev/fdset/K`. Disks need `-blockdev` with `auto-read-only=off`:
//!   `-drive` probes with an access mode that the set does not have, and fails. `locking=off`, since the lock would be
//!   taken on a read-only image that other machines share. The console is opened for appending by two devices, the
//!   UART for early boot and the virtio console after it (each UART byte is an exit), and each gets a duplicate;
//! - sockets are `fd=N`.
//!
//! The order of `virtio-blk` devices is a contract with images: the store is `/dev/vda` and volumes follow; creel's own
//! source disk comes last, and the agent finds it by its serial.
//!
//! Under TCG (figures: QEMU 7.2, Debian 6.1 cloud kernel, 512 MiB, 2 CPUs, to userspace with all modules loaded):
//! `thread=multi` 2.40 s against 2.76 s with `single`; `tb-size` makes no difference to a boot from 64 MiB up but is
//! bounded, since its default is up to 1 GiB beside the guest's memory; `cryptomgr.notests` saves 0.34 s of 2.49 s; an
//! ELF kernel instead of the bzImage about 0.4 s. `-cpu qemu64` would save 0.2 s but takes SSE4 and AVX from the steps.
//! The others tried (`quiet`, no UART, no `virtio-rng`, `i8042.*`, `tsc=reliable`, `no_timer_check`, `mitigations=off`,
//! `pci=off`) are within the noise.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use creel_proto::names::disks;
use thiserror::Error;

use crate::image::{Arch, VirtioTransport};
use crate::runtime::microvm::qemu::accel::Accel;
use crate::runtime::microvm::qemu::extra::{self, ExtraArgError};
use crate::runtime::microvm::qemu::machine::{Machine, MachineError, MachineType};

/// What TCG may use for translated code, in MiB, beside the guest's memory: count it into the machine's limit.
pub const TCG_CODE_CACHE_MIB: u32 = 256;

/// The first CID that is neither reserved nor the host's (vsock(7)).
const FIRST_GUEST_CID: u32 = 3;

/// A machine to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuConfig {
    pub arch: Arch,
    /// `runnerConfig.machine`.
    pub machine: String,
    /// `runnerConfig.cpu`; `host` if empty. Under TCG creel chooses.
    pub cpu: String,
    /// `runnerConfig.console`; `hvc0` adds a virtio console.
    pub console: String,
    /// `runnerConfig.extraArgs`.
    pub extra_args: Vec<String>,
    pub virtio_transport: VirtioTransport,
    pub memory_mib: u32,
    pub vcpus: u32,
    /// The image's kernel command line, to which creel appends.
    pub boot_args: String,
    pub accel: Accel,
    /// The vsock port on which creel awaits the agent.
    pub agent_port: u32,
    pub fds: QemuFds,
}

/// QEMU's descriptors, by the numbers that they have in QEMU: 3 or more, each used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuFds {
    /// An ELF kernel with a PVH note (faster), or a bzImage.
    pub kernel: BootFile,
    pub initrd: BootFile,
    /// Open for reading only.
    pub store_disk: RawFd,
    /// Open for reading and writing; thrown away after the machine's end.
    pub volumes: Vec<RawFd>,
    /// Open for reading only; its size is a multiple of 512 bytes.
    pub source_disk: Option<RawFd>,
    /// The write end of a pipe.
    pub console: RawFd,
    /// A listening unix stream socket.
    pub qmp: RawFd,
    pub vsock: Vsock,
}

/// A file that QEMU takes by its path alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootFile {
    /// Open in QEMU, by `/proc/self/fd`.
    Fd(RawFd),
    /// In QEMU's root directory, which has no /proc.
    Path(&'static str),
}

impl BootFile {
    fn fd(self) -> Option<RawFd> {
        match self {
            Self::Fd(fd) => Some(fd),
            Self::Path(_) => None,
        }
    }
}

impl std::fmt::Display for BootFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fd(fd) => write!(f, "/proc/self/fd/{fd}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// How the guest's vsock reaches the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vsock {
    /// `chardev` is a unix stream socket connected to a vhost-user helper, which knows the CID. Guest memory is shared
    /// with the helper.
    Hybrid { chardev: RawFd },
    /// `vhostfd` is `/dev/vhost-vsock`, not yet given a CID or given this one.
    Kernel { vhostfd: RawFd, cid: u32 },
}

/// Why a machine can't be described to QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArgsError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Extra(#[from] ExtraArgError),
    #[error("cpu `{cpu}` holds something that is no part of a CPU model: correct `runnerConfig.cpu`")]
    Cpu { cpu: String },
    #[error("the boot arguments hold a control character: correct `bootArgs`")]
    BootArgs,
    #[error("a machine needs memory and CPUs, not {memory_mib} MiB and {vcpus}")]
    Size { memory_mib: u32, vcpus: u32 },
    #[error("the machine needs {needed} virtio devices and has room for {slots}: use fewer volumes")]
    Slots { needed: usize, slots: usize },
    #[error("virtio over PCI needs a PCI bus: put `pcie=on` into `runnerConfig.machine`")]
    NoPci,
    #[error("vsock CID {cid} is reserved: guests have {FIRST_GUEST_CID} and above")]
    Cid { cid: u32 },
    #[error("descriptor {fd} can't be the {what}: descriptors 0 to 2 are the standard streams")]
    Descriptor { what: &'static str, fd: RawFd },
    #[error("descriptor {fd} is both the {first} and the {second}")]
    DescriptorTwice { fd: RawFd, first: &'static str, second: &'static str },
}

/// Renders a [`QemuConfig`].
#[derive(Debug)]
pub struct QemuArgs {
    arguments: Vec<String>,
    /// `device` or `pci`: how virtio device names end.
    suffix: &'static str,
    virtio_devices: usize,
}

impl QemuArgs {
    /// The arguments after the program's name.
    ///
    /// # Errors
    /// When the image asks for what it may not have, or the configuration contradicts itself.
    pub fn render(config: &QemuConfig) -> Result<Vec<String>, ArgsError> {
        let machine = Machine::parse(config.arch, &config.machine)?;
        let extra = extra::allowed(&config.extra_args)?;
        check(config)?;
        if config.virtio_transport == VirtioTransport::Pci && !machine.has_pci() {
            return Err(ArgsError::NoPci);
        }
        let suffix = match config.virtio_transport {
            VirtioTransport::Mmio => "device",
            VirtioTransport::Pci => "pci",
        };
        let mut args = Self { arguments: Vec::new(), suffix, virtio_devices: 0 };
        args.processor_and_memory(config, &machine);
        args.walls();
        args.boot(config);
        args.control(config);
        args.console(config, &machine);
        args.disks(config);
        args.devices(config, &machine);
        args.virtio_devices += extra.iter().filter(|argument| argument.starts_with("virtio-")).count();
        args.arguments.extend(extra);
        if config.virtio_transport == VirtioTransport::Mmio && args.virtio_devices > machine.mmio_slots() {
            return Err(ArgsError::Slots { needed: args.virtio_devices, slots: machine.mmio_slots() });
        }
        Ok(args.arguments)
    }

    fn processor_and_memory(&mut self, config: &QemuConfig, machine: &Machine) {
        self.option("-machine", machine.render(&config.accel, "mem"));
        match config.accel {
            Accel::Kvm => {
                self.option("-accel", "kvm");
                self.option("-cpu", if config.cpu.is_empty() { "host" } else { &config.cpu });
            }
            Accel::Tcg { .. } => {
                self.option("-accel", format!("tcg,thread=multi,tb-size={TCG_CODE_CACHE_MIB}"));
                // Pointer authentication by its own cipher is slow to emulate (QEMU: docs/system/arm/cpu-features.rst).
                let models = [(Arch::X86_64, "max"), (Arch::Aarch64, "max,pauth-impdef=on")];
                self.option(
                    "-cpu",
                    models.into_iter().find(|(arch, _)| *arch == config.arch).map_or("max", |m| m.1),
                );
            }
        }
        self.option("-smp", config.vcpus.to_string());
        self.option("-m", format!("{}M", config.memory_mib));
        // A vhost-user helper maps the guest's memory; with the kernel's vhost nobody else needs to.
        let kind = match config.fds.vsock {
            Vsock::Hybrid { .. } => "memory-backend-memfd,share=on",
            Vsock::Kernel { .. } => "memory-backend-ram,share=off",
        };
        self.option("-object", format!("{kind},id=mem,size={}M,merge=off,dump=off", config.memory_mib));
    }

    fn walls(&mut self) {
        self.flags(&["-nodefaults", "-no-user-config", "-no-reboot"]);
        self.option("-display", "none");
        self.option("-monitor", "none");
        self.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    }

    fn boot(&mut self, config: &QemuConfig) {
        self.option("-kernel", config.fds.kernel.to_string());
        self.option("-initrd", config.fds.initrd.to_string());
        self.option("-append", command_line(config));
    }

    fn control(&mut self, config: &QemuConfig) {
        self.option("-chardev", format!("socket,id=qmp0,fd={},server=on,wait=off", config.fds.qmp));
        self.option("-mon", "chardev=qmp0,mode=control");
    }

    fn console(&mut self, config: &QemuConfig, machine: &Machine) {
        let fd = config.fds.console;
        self.option("-add-fd", format!("fd={fd},set={fd}"));
        if machine.has_serial() {
            self.option("-chardev", format!("file,id=serial0,path=/dev/fdset/{fd},append=on"));
            self.option("-serial", "chardev:serial0");
        }
        if config.console == "hvc0" {
            self.option("-chardev", format!("file,id=hvc0,path=/dev/fdset/{fd},append=on"));
            self.virtio("serial", "");
            self.option("-device", "virtconsole,chardev=hvc0");
        }
    }

    fn disks(&mut self, config: &QemuConfig) {
        self.disk("store", config.fds.store_disk, disks::STORE, Access::ReadOnly);
        for (n, fd) in config.fds.volumes.iter().enumerate() {
            self.disk(
                &format!("volume-{n}"),
                *fd,
                &format!("{}{n}", disks::VOLUME_PREFIX),
                Access::ThrowAway,
            );
        }
        if let Some(fd) = config.fds.source_disk {
            self.disk("source", fd, disks::SOURCE, Access::ReadOnly);
        }
    }

    fn disk(&mut self, node: &str, fd: RawFd, serial: &str, access: Access) {
        // Threads, since the jail forbids io_uring. What is thrown away need not survive a power cut: no flushes.
        let access = match access {
            Access::ReadOnly => "read-only=on",
            Access::ThrowAway => "read-only=off,discard=unmap,cache.no-flush=on",
        };
        self.option("-add-fd", format!("fd={fd},set={fd}"));
        self.option(
            "-blockdev",
            format!(
                "driver=file,node-name={node}-file,filename=/dev/fdset/{fd},auto-read-only=off,locking=off,\
                 aio=threads,cache.direct=off,{access}"
            ),
        );
        self.option("-blockdev", format!("driver=raw,node-name={node},file={node}-file,{access}"));
        // `enospc` stops the machine on a full host disk only, and QMP says so; all other errors go to the guest.
        self.virtio("blk", &format!(",drive={node},serial={serial},werror=enospc,rerror=report"));
    }

    fn devices(&mut self, config: &QemuConfig, machine: &Machine) {
        self.virtio("rng", "");
        match machine.kind() {
            MachineType::Microvm => self.option("-device", "pvpanic"),
            MachineType::Virt => {
                self.option("-device", "pvpanic-pci");
                // This board's virtio-mmio is of the legacy kind unless told otherwise, and vsock needs virtio 1.
                self.option("-global", "virtio-mmio.force-legacy=false");
            }
        }
        match config.fds.vsock {
            Vsock::Hybrid { chardev } => {
                self.option("-chardev", format!("socket,id=vsock0,fd={chardev}"));
                let device = format!("vhost-user-vsock-{},chardev=vsock0", self.suffix);
                self.option("-device", device);
            }
            Vsock::Kernel { vhostfd, cid } => {
                let device = format!("vhost-vsock-{},vhostfd={vhostfd},guest-cid={cid}", self.suffix);
                self.option("-device", device);
            }
        }
        self.virtio_devices += 1;
    }

    fn virtio(&mut self, kind: &str, properties: &str) {
        self.option("-device", format!("virtio-{kind}-{}{properties}", self.suffix));
        self.virtio_devices += 1;
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.arguments.extend([name.to_owned(), value.into()]);
    }

    fn flags(&mut self, flags: &[&str]) {
        self.arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }
}

#[derive(Debug, Clone, Copy)]
enum Access {
    ReadOnly,
    ThrowAway,
}

/// The image's arguments with creel's behind them, but before a ` -- `, after which all belongs to init.
fn command_line(config: &QemuConfig) -> String {
    let mut own = format!("shuttle.vsock_port={}", config.agent_port);
    if let Accel::Tcg { tsc_khz } = config.accel {
        // A self-test of every cipher at each boot: emulated, it is a seventh of the boot.
        own.push_str(" cryptomgr.notests");
        if let (Arch::X86_64, Some(khz)) = (config.arch, tsc_khz) {
            own.push_str(&format!(" tsc_early_khz={khz}"));
        }
    }
    match config.boot_args.split_once(" -- ") {
        Some((kernel, init)) => format!("{} {own} -- {init}", kernel.trim()),
        None => format!("{} {own}", config.boot_args.trim()).trim_start().to_owned(),
    }
}

fn check(config: &QemuConfig) -> Result<(), ArgsError> {
    let model = |c: char| c.is_ascii_alphanumeric() || "+-_.,=".contains(c);
    if !config.cpu.chars().all(model) {
        return Err(ArgsError::Cpu { cpu: config.cpu.clone() });
    }
    if config.boot_args.chars().any(char::is_control) {
        return Err(ArgsError::BootArgs);
    }
    if config.memory_mib == 0 || config.vcpus == 0 {
        return Err(ArgsError::Size { memory_mib: config.memory_mib, vcpus: config.vcpus });
    }
    if let Vsock::Kernel { cid, .. } = config.fds.vsock
        && cid < FIRST_GUEST_CID
    {
        return Err(ArgsError::Cid { cid });
    }
    check_descriptors(&config.fds)
}

fn check_descriptors(fds: &QemuFds) -> Result<(), ArgsError> {
    let vsock = match fds.vsock {
        Vsock::Hybrid { chardev } => chardev,
        Vsock::Kernel { vhostfd, .. } => vhostfd,
    };
    let boot = [("kernel", fds.kernel.fd()), ("initrd", fds.initrd.fd())];
    let boot = boot.into_iter().filter_map(|(what, fd)| Some((what, fd?)));
    let single =
        [("store disk", fds.store_disk), ("console", fds.console), ("QMP socket", fds.qmp), ("vsock", vsock)];
    let volumes = fds.volumes.iter().map(|fd| ("volume", *fd));
    let source = fds.source_disk.iter().map(|fd| ("source disk", *fd));
    let mut seen = BTreeMap::new();
    for (what, fd) in boot.chain(single).chain(volumes).chain(source) {
        if fd < 3 {
            return Err(ArgsError::Descriptor { what, fd });
        }
        if let Some(first) = seen.insert(fd, what) {
            return Err(ArgsError::DescriptorTwice { fd, first, second: what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod boot_tests;
#[cfg(test)]
mod tests;
