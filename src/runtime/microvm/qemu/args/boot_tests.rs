//! Real boots with exactly the rendered arguments, under TCG: what QEMU makes of them shows nowhere else.
//!
//! The guest is Debian's cloud kernel and a shell script. The vsock device is left out, since it needs a helper or
//! `/dev/vhost-vsock`; whole machines are tested elsewhere.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::host::{Exit, Spawn, memfd, spawn, tmpfile, tsc_khz};
use crate::runtime::microvm::qemu::qmp::{Event, Qmp};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const BUSYBOX: &str = "/usr/bin/busybox";
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_mmio",
    "drivers/block/virtio_blk",
    "drivers/char/virtio_console",
    "drivers/misc/pvpanic/pvpanic",
    "drivers/misc/pvpanic/pvpanic-mmio",
];
/// Generous: a boot takes three seconds on an idle machine.
const PATIENT: Duration = Duration::from_secs(120);

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec </dev/null >/dev/kmsg 2>&1
for m in virtio_ring virtio virtio_mmio virtio_blk virtio_console pvpanic pvpanic-mmio; do insmod /$m.ko; done
for b in /sys/block/vd*; do echo "DISK ${b##*/} $(cat $b/serial) ro=$(cat $b/ro) sectors=$(cat $b/size)"; done
echo "HVC says hello" >/dev/hvc0
echo "VOLUME $(dd if=/dev/zero of=/dev/vdb bs=4096 count=4 2>&1 | tail -n 1)"
case " $(cat /proc/cmdline) " in *" act=panic "*) echo c >/proc/sysrq-trigger;; esac
poweroff -f
"#;

/// What a boot needs from Debian's packages, or what is missing.
fn kernel() -> Result<(PathBuf, PathBuf), String> {
    for program in [QEMU, BUSYBOX] {
        if !Path::new(program).exists() {
            return Err(format!("there is no {program}"));
        }
    }
    let boot = std::fs::read_dir("/boot").map_err(|error| error.to_string())?;
    let release = boot
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find_map(|name| {
            name.strip_prefix("vmlinuz-").filter(|r| r.ends_with("-cloud-amd64")).map(str::to_owned)
        })
        .ok_or("there is no /boot/vmlinuz-*-cloud-amd64")?;
    let modules = PathBuf::from(format!("/lib/modules/{release}/kernel"));
    Ok((format!("/boot/vmlinuz-{release}").into(), modules))
}

/// An initramfs in cpio's newc format (kernel: `Documentation/driver-api/early-userspace/buffer-format.rst`).
fn initramfs(modules: &Path) -> File {
    let mut file = memfd::empty("initramfs").expect("made");
    let mut entry = |name: &str, mode: u32, bytes: &[u8]| {
        let sizes = [bytes.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let mut head = format!("070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}", 0, 0, 0, 1, 0);
        sizes.iter().for_each(|size| head.push_str(&format!("{size:08x}")));
        for part in [format!("{head}{name}\0").as_bytes(), bytes] {
            file.write_all(part).expect("written");
            file.write_all(&[0; 3][..part.len().wrapping_neg() % 4]).expect("padded");
        }
    };
    entry("bin", 0o040_755, &[]);
    entry("bin/busybox", 0o100_755, &std::fs::read(BUSYBOX).expect("readable"));
    entry("init", 0o100_755, INIT.as_bytes());
    for module in MODULES {
        let bytes =
            std::fs::read(modules.join(format!("{module}.ko"))).expect("Debian's modules are not compressed");
        entry(&format!("{}.ko", module.rsplit('/').next().expect("a name")), 0o100_644, &bytes);
    }
    entry("TRAILER!!!", 0, &[]);
    file
}

/// What is seen of a boot from outside.
struct Seen {
    console: String,
    events: Vec<Event>,
    exit: Exit,
}

async fn boot(act: &str) -> Option<Seen> {
    let (kernel, modules) = match kernel() {
        Ok(found) => found,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let directory = tempfile::tempdir().expect("a scratch directory");
    let socket = directory.path().join("qmp");
    let disk = |mib: u64| {
        let file = tmpfile::anonymous_file(directory.path()).expect("made");
        file.set_len(mib << 20).expect("sized");
        file
    };
    let read_only = |file: &File| {
        File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).expect("opened again")
    };
    let (store, volume, source) = (disk(1), disk(2), disk(3));
    let (store, source) = (read_only(&store), read_only(&source));
    let (kernel, initrd) = (File::open(kernel).expect("readable"), initramfs(&modules));
    let (mut console, console_write) = std::io::pipe().expect("a pipe");
    let qmp = UnixListener::bind(&socket).expect("bound");
    let null = File::options().read(true).write(true).open("/dev/null").expect("opened");

    let stderr = std::io::stderr();
    let config = QemuConfig {
        cpu: "host".into(),
        extra_args: Vec::new(),
        memory_mib: 256,
        boot_args: format!("earlyprintk=ttyS0 console=hvc0 reboot=t panic=-1 act={act}"),
        accel: Accel::Tcg { tsc_khz: tsc_khz() },
        ..tests::x86_tcg_hybrid()
    };
    let arguments = QemuArgs::render(&config).expect("allowed");
    let is_vsock = |at: usize| arguments.get(at).is_some_and(|argument| argument.contains("vsock0"));
    let without_vsock =
        (0..arguments.len()).filter(|at| !is_vsock(*at) && !is_vsock(at + 1)).map(|at| &arguments[at]);

    let fds: [(BorrowedFd<'_>, RawFd); 10] = [
        (null.as_fd(), 0),
        (null.as_fd(), 1),
        (stderr.as_fd(), 2),
        (kernel.as_fd(), config.fds.kernel.fd().unwrap()),
        (initrd.as_fd(), config.fds.initrd.fd().unwrap()),
        (store.as_fd(), config.fds.store_disk),
        (volume.as_fd(), config.fds.volumes[0]),
        (source.as_fd(), config.fds.source_disk.expect("one")),
        (console_write.as_fd(), config.fds.console),
        (qmp.as_fd(), config.fds.qmp),
    ];
    let mut spec = Spawn::new(Path::new(QEMU)).expect("a path");
    for argument in without_vsock {
        spec = spec.arg(argument).expect("an argument");
    }
    for (fd, number) in fds {
        spec = spec.fd(fd, number);
    }
    let mut child = spawn(&spec).expect("started");
    drop(spec);
    drop((qmp, console_write));
    let reader = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        console.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });

    let watched = async {
        let (_qmp, mut queue) = Qmp::connect(&socket, PATIENT).await.expect("greeted");
        let mut events = Vec::new();
        while let Some(event) = queue.next().await {
            events.push(event);
        }
        (events, child.wait().await.expect("waited for"))
    };
    let outcome = tokio::time::timeout(PATIENT, watched).await;
    if outcome.is_err() {
        child.signal(rustix::process::Signal::KILL).expect("killed");
    }
    let console = reader.await.expect("read").expect("read");
    let (events, exit) = outcome.unwrap_or_else(|_| panic!("the guest did not end; its console:\n{console}"));
    Some(Seen { console, events, exit })
}

#[tokio::test]
async fn a_guest_finds_its_disks_and_consoles_and_powers_off() {
    let Some(seen) = boot("poweroff").await else { return };
    for line in [
        "DISK vda creel-store ro=1 sectors=2048",
        "DISK vdb creel-volume-0 ro=0 sectors=4096",
        "DISK vdc creel-source ro=1 sectors=6144",
        "HVC says hello",
        "VOLUME 4+0 records out",
        "Linux version",
        "tsc: Detected",
    ] {
        assert!(seen.console.contains(line), "`{line}` is not on the console:\n{}", seen.console);
    }
    let off = Event::Shutdown { guest: true, reason: "guest-shutdown".into() };
    assert_eq!((seen.events.last(), seen.exit), (Some(&off), Exit::Code(0)));
}

#[tokio::test]
async fn a_kernel_panic_is_an_event() {
    let Some(seen) = boot("panic").await else { return };
    assert!(seen.console.contains("Kernel panic - not syncing"), "{}", seen.console);
    let end = [
        Event::GuestPanicked { action: "poweroff".into() },
        Event::Shutdown { guest: true, reason: "guest-panic".into() },
    ];
    assert_eq!((seen.events.as_slice(), seen.exit), (&end[..], Exit::Code(0)));
}
