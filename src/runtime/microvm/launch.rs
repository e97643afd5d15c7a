//! Describes a machine's processes: the vsock helper, then QEMU.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::jail::{INITRD, KERNEL, MachineJail};
use super::keeper::{ConsoleSizes, Output, ProcessSpec, ReadySpec};
use super::qemu::{Accel, ArgsError, BootFile, Qemu, QemuArgs, QemuConfig, QemuFds, Vsock};
use super::vsock::{GuestEnd, VSOCK_PREFIX};
use crate::image::{ImageSpec, Kit};

/// The name under which the keeper records QEMU's end.
pub(super) const QEMU: &str = "qemu";

/// The name of the hybrid transport's helper, in records and in verdicts.
const VSOCK_HELPER: &str = "vsock";

/// The helper's vhost-user socket, in the machine's directory or its jail's root.
const VHOST_USER_SOCKET: &str = "sockets/vhost-user";

/// How much of one connection's the helper holds for a host that does not read, which is the guest's credit: as much as the
/// kernel's own vsock gives (`VIRTIO_VSOCK_DEFAULT_BUF_SIZE`). Its own default, a single packet, makes each wait for the last.
const HELPER_BUFFER_BYTES: u32 = 256 << 10;

/// How long the helper may take until it listens.
const HELPER_READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Kept of the guest's console: its first words, and its last.
pub(super) const CONSOLE_SIZES: ConsoleSizes = ConsoleSizes { head_bytes: 64 * 1024, tail_bytes: 192 * 1024 };

/// Each machine has a helper of its own, so every guest can have the same CID.
const HYBRID_GUEST_CID: u32 = 3;

/// The descriptors that go to QEMU, and to nobody else.
#[derive(Debug)]
pub(super) struct Disks {
    pub kernel: File,
    pub initrd: File,
    pub store: OwnedFd,
    pub volumes: Vec<OwnedFd>,
    pub source: Option<OwnedFd>,
    pub qmp: OwnedFd,
}

/// What a machine is made of, beside its disks.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub kit: &'a Kit,
    pub qemu: &'a Qemu,
    pub spec: &'a ImageSpec,
    pub accel: Accel,
    pub memory_mib: u32,
    pub vcpus: u32,
    pub agent_port: u32,
    pub jail: Option<&'a MachineJail>,
}

/// Of those that QEMU may write to: its volumes, and its memory where it shares that with the helper (memfd_create(2)).
fn longest_file(volumes: &[OwnedFd], shared_mib: u32) -> u64 {
    let length =
        |disk: &OwnedFd| rustix::fs::fstat(disk).ok().and_then(|status| u64::try_from(status.st_size).ok());
    let longest = volumes.iter().filter_map(length).max();
    longest.unwrap_or(0).max(u64::from(shared_mib) << 20)
}

impl Launch<'_> {
    /// The processes in start order.
    ///
    /// # Errors
    /// When the image asks QEMU for what it may not have.
    pub(super) fn processes(&self, disks: Disks, guest_end: GuestEnd) -> Result<Vec<ProcessSpec>, ArgsError> {
        let helper = matches!(guest_end, GuestEnd::Hybrid).then(|| self.vsock_helper());
        let qemu = self.qemu(disks, guest_end)?;
        Ok(helper.into_iter().chain([qemu]).collect())
    }

    fn vsock_helper(&self) -> ProcessSpec {
        let mut helper = ProcessSpec::new(VSOCK_HELPER, &self.kit.vsock_helper);
        helper.jail = self.jail.map(MachineJail::of_helper);
        // Its working directory is the machine's, or the jail's root, and the directory of sockets is in either.
        helper.args([
            format!("--guest-cid={HYBRID_GUEST_CID}"),
            format!("--socket={VHOST_USER_SOCKET}"),
            format!("--uds-path={VSOCK_PREFIX}"),
            format!("--tx-buffer-size={HELPER_BUFFER_BYTES}"),
        ]);
        helper.stdout = Output::Log;
        helper.stderr = Output::Log;
        helper.ready =
            Some(ReadySpec { socket: VHOST_USER_SOCKET.to_owned(), timeout: HELPER_READY_TIMEOUT });
        helper
    }

    fn qemu(&self, disks: Disks, guest_end: GuestEnd) -> Result<ProcessSpec, ArgsError> {
        let mut qemu = ProcessSpec::new(QEMU, &self.qemu.path);
        let shared_mib = if matches!(guest_end, GuestEnd::Hybrid) { self.memory_mib } else { 0 };
        qemu.jail = self.jail.map(|jail| jail.of_qemu(longest_file(&disks.volumes, shared_mib)));
        // In a jail by the names that they have there.
        let mut boot = |file: File, at| match self.jail {
            Some(_) => BootFile::Path(at),
            None => BootFile::Fd(qemu.pass(file)),
        };
        let (kernel, initrd) = (boot(disks.kernel, KERNEL), boot(disks.initrd, INITRD));
        let fds = QemuFds {
            kernel,
            initrd,
            store_disk: qemu.pass(disks.store),
            volumes: disks.volumes.into_iter().map(|volume| qemu.pass(volume)).collect(),
            source_disk: disks.source.map(|source| qemu.pass(source)),
            console: qemu.pass_console(),
            qmp: qemu.pass(disks.qmp),
            vsock: match guest_end {
                GuestEnd::Hybrid => Vsock::Hybrid { chardev: qemu.pass_ready_socket_of(VSOCK_HELPER) },
                GuestEnd::Kernel { vhost, cid } => Vsock::Kernel { vhostfd: qemu.pass(vhost), cid },
            },
        };
        let runner = &self.spec.runner_config;
        let config = QemuConfig {
            arch: self.spec.arch,
            machine: runner.machine.clone(),
            cpu: runner.cpu.clone(),
            console: runner.console.clone(),
            extra_args: runner.extra_args.clone(),
            virtio_transport: runner.virtio_transport,
            memory_mib: self.memory_mib,
            vcpus: self.vcpus,
            boot_args: self.spec.boot_args.clone(),
            accel: self.accel,
            agent_port: self.agent_port,
            fds,
        };
        qemu.args(QemuArgs::render(&config)?);
        // QEMU says on stderr what it can't say on QMP; the console is where a person looks.
        qemu.stdout = Output::Console;
        qemu.stderr = Output::Console;
        qemu.ends_machine = true;
        Ok(qemu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_may_become_longer_than_the_longest_is() {
        let file = |bytes| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(bytes).unwrap();
            OwnedFd::from(file)
        };
        let volumes = [file(1 << 20), file(5 << 20)];
        assert_eq!(longest_file(&volumes, 0), 5 << 20);
        assert_eq!(longest_file(&volumes, 6), 6 << 20);
        assert_eq!(longest_file(&[], 0), 0);
    }
}
