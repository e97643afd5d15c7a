use super::*;

/// One option a line, as a person would write it.
fn lines(config: &QemuConfig) -> String {
    let mut text = String::new();
    for argument in QemuArgs::render(config).expect("allowed") {
        let separator = if argument.starts_with('-') { '\n' } else { ' ' };
        text.push(separator);
        text.push_str(&argument);
    }
    text.trim_start().to_owned()
}

fn x86() -> QemuConfig {
    QemuConfig {
        arch: Arch::X86_64,
        machine: "microvm,accel=kvm:tcg,acpi=on,mem-merge=on,pcie=off,pic=off,pit=off,rtc=on,usb=off".into(),
        cpu: "host,+x2apic,-sgx".into(),
        console: "hvc0".into(),
        extra_args: vec!["-device".into(), "i8042".into()],
        virtio_transport: VirtioTransport::Mmio,
        memory_mib: 4096,
        vcpus: 2,
        boot_args: "earlyprintk=ttyS0 console=hvc0 reboot=t panic=-1 root=/dev/vda".into(),
        accel: Accel::Kvm,
        agent_port: 824,
        fds: QemuFds {
            kernel: BootFile::Fd(3),
            initrd: BootFile::Fd(4),
            store_disk: 5,
            volumes: vec![6],
            source_disk: Some(7),
            console: 8,
            qmp: 9,
            vsock: Vsock::Kernel { vhostfd: 10, cid: 42 },
        },
    }
}

pub(super) fn x86_tcg_hybrid() -> QemuConfig {
    let mut config = x86();
    config.accel = Accel::Tcg { tsc_khz: Some(2_596_150) };
    config.fds.vsock = Vsock::Hybrid { chardev: 10 };
    config
}

fn arm() -> QemuConfig {
    QemuConfig {
        arch: Arch::Aarch64,
        machine: "virt,accel=kvm:tcg,gic-version=max,its=off,msi=off,mem-merge=on".into(),
        cpu: "host".into(),
        extra_args: Vec::new(),
        boot_args: "console=hvc0 reboot=t panic=-1".into(),
        ..x86()
    }
}

#[test]
fn microvm_under_kvm_with_kernel_vsock() {
    insta::assert_snapshot!(lines(&x86()), @r#"
    -machine microvm,acpi=on,pcie=off,pic=off,pit=off,rtc=on,usb=off,mem-merge=off,dump-guest-core=off,memory-backend=mem
    -accel kvm
    -cpu host,+x2apic,-sgx
    -smp 2
    -m 4096M
    -object memory-backend-ram,share=off,id=mem,size=4096M,merge=off,dump=off
    -nodefaults
    -no-user-config
    -no-reboot
    -display none
    -monitor none
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
    -kernel /proc/self/fd/3
    -initrd /proc/self/fd/4
    -append earlyprintk=ttyS0 console=hvc0 reboot=t panic=-1 root=/dev/vda shuttle.vsock_port=824
    -chardev socket,id=qmp0,fd=9,server=on,wait=off
    -mon chardev=qmp0,mode=control
    -add-fd fd=8,set=8
    -chardev file,id=serial0,path=/dev/fdset/8,append=on
    -serial chardev:serial0
    -chardev file,id=hvc0,path=/dev/fdset/8,append=on
    -device virtio-serial-device
    -device virtconsole,chardev=hvc0
    -add-fd fd=5,set=5
    -blockdev driver=file,node-name=store-file,filename=/dev/fdset/5,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=on
    -blockdev driver=raw,node-name=store,file=store-file,read-only=on
    -device virtio-blk-device,drive=store,serial=creel-store,werror=enospc,rerror=report
    -add-fd fd=6,set=6
    -blockdev driver=file,node-name=volume-0-file,filename=/dev/fdset/6,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=off,discard=unmap,cache.no-flush=on
    -blockdev driver=raw,node-name=volume-0,file=volume-0-file,read-only=off,discard=unmap,cache.no-flush=on
    -device virtio-blk-device,drive=volume-0,serial=creel-volume-0,werror=enospc,rerror=report
    -add-fd fd=7,set=7
    -blockdev driver=file,node-name=source-file,filename=/dev/fdset/7,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=on
    -blockdev driver=raw,node-name=source,file=source-file,read-only=on
    -device virtio-blk-device,drive=source,serial=creel-source,werror=enospc,rerror=report
    -device virtio-rng-device
    -device pvpanic
    -device vhost-vsock-device,vhostfd=10,guest-cid=42
    -device i8042
    "#);
}

#[test]
fn microvm_under_tcg_with_hybrid_vsock() {
    insta::assert_snapshot!(lines(&x86_tcg_hybrid()), @r#"
    -machine microvm,acpi=on,pcie=off,usb=off,mem-merge=off,dump-guest-core=off,memory-backend=mem
    -accel tcg,thread=multi,tb-size=256
    -cpu max
    -smp 2
    -m 4096M
    -object memory-backend-memfd,share=on,id=mem,size=4096M,merge=off,dump=off
    -nodefaults
    -no-user-config
    -no-reboot
    -display none
    -monitor none
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
    -kernel /proc/self/fd/3
    -initrd /proc/self/fd/4
    -append earlyprintk=ttyS0 console=hvc0 reboot=t panic=-1 root=/dev/vda shuttle.vsock_port=824 cryptomgr.notests tsc_early_khz=2596150
    -chardev socket,id=qmp0,fd=9,server=on,wait=off
    -mon chardev=qmp0,mode=control
    -add-fd fd=8,set=8
    -chardev file,id=serial0,path=/dev/fdset/8,append=on
    -serial chardev:serial0
    -chardev file,id=hvc0,path=/dev/fdset/8,append=on
    -device virtio-serial-device
    -device virtconsole,chardev=hvc0
    -add-fd fd=5,set=5
    -blockdev driver=file,node-name=store-file,filename=/dev/fdset/5,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=on
    -blockdev driver=raw,node-name=store,file=store-file,read-only=on
    -device virtio-blk-device,drive=store,serial=creel-store,werror=enospc,rerror=report
    -add-fd fd=6,set=6
    -blockdev driver=file,node-name=volume-0-file,filename=/dev/fdset/6,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=off,discard=unmap,cache.no-flush=on
    -blockdev driver=raw,node-name=volume-0,file=volume-0-file,read-only=off,discard=unmap,cache.no-flush=on
    -device virtio-blk-device,drive=volume-0,serial=creel-volume-0,werror=enospc,rerror=report
    -add-fd fd=7,set=7
    -blockdev driver=file,node-name=source-file,filename=/dev/fdset/7,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=on
    -blockdev driver=raw,node-name=source,file=source-file,read-only=on
    -device virtio-blk-device,drive=source,serial=creel-source,werror=enospc,rerror=report
    -device virtio-rng-device
    -device pvpanic
    -chardev socket,id=vsock0,fd=10
    -device vhost-user-vsock-device,chardev=vsock0
    -device i8042
    "#);
}

#[test]
fn virt_under_kvm_with_kernel_vsock() {
    insta::assert_snapshot!(lines(&arm()), @r#"
    -machine virt,gic-version=max,its=off,msi=off,mem-merge=off,dump-guest-core=off,memory-backend=mem
    -accel kvm
    -cpu host
    -smp 2
    -m 4096M
    -object memory-backend-ram,share=off,id=mem,size=4096M,merge=off,dump=off
    -nodefaults
    -no-user-config
    -no-reboot
    -display none
    -monitor none
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
    -kernel /proc/self/fd/3
    -initrd /proc/self/fd/4
    -append console=hvc0 reboot=t panic=-1 shuttle.vsock_port=824
    -chardev socket,id=qmp0,fd=9,server=on,wait=off
    -mon chardev=qmp0,mode=control
    -add-fd fd=8,set=8
    -chardev file,id=serial0,path=/dev/fdset/8,append=on
    -serial chardev:serial0
    -chardev file,id=hvc0,path=/dev/fdset/8,append=on
    -device virtio-serial-device
    -device virtconsole,chardev=hvc0
    -add-fd fd=5,set=5
    -blockdev driver=file,node-name=store-file,filename=/dev/fdset/5,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=on
    -blockdev driver=raw,node-name=store,file=store-file,read-only=on
    -device virtio-blk-device,drive=store,serial=creel-store,werror=enospc,rerror=report
    -add-fd fd=6,set=6
    -blockdev driver=file,node-name=volume-0-file,filename=/dev/fdset/6,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=off,discard=unmap,cache.no-flush=on
    -blockdev driver=raw,node-name=volume-0,file=volume-0-file,read-only=off,discard=unmap,cache.no-flush=on
    -device virtio-blk-device,drive=volume-0,serial=creel-volume-0,werror=enospc,rerror=report
    -add-fd fd=7,set=7
    -blockdev driver=file,node-name=source-file,filename=/dev/fdset/7,auto-read-only=off,locking=off,aio=threads,cache.direct=off,read-only=on
    -blockdev driver=raw,node-name=source,file=source-file,read-only=on
    -device virtio-blk-device,drive=source,serial=creel-source,werror=enospc,rerror=report
    -device virtio-rng-device
    -device pvpanic-pci
    -global virtio-mmio.force-legacy=false
    -device vhost-vsock-device,vhostfd=10,guest-cid=42
    "#);
}

#[test]
fn virt_under_tcg_differs_in_processor_machine_and_boot_arguments() {
    let tcg = QemuConfig { accel: Accel::Tcg { tsc_khz: Some(1) }, ..arm() };
    let (kvm, tcg) = (lines(&arm()), lines(&tcg));
    let changed: Vec<_> = tcg.lines().filter(|line| !kvm.lines().any(|other| other == *line)).collect();
    assert_eq!(
        changed,
        [
            "-machine virt,its=off,msi=off,mem-merge=off,dump-guest-core=off,memory-backend=mem",
            "-accel tcg,thread=multi,tb-size=256",
            "-cpu max,pauth-impdef=on",
            "-append console=hvc0 reboot=t panic=-1 shuttle.vsock_port=824 cryptomgr.notests",
        ]
    );
}

#[test]
fn the_serial_port_alone_is_a_console_too() {
    let text = lines(&QemuConfig { console: "ttyS0".into(), ..x86() });
    assert!(text.contains("\n-serial chardev:serial0"));
    assert!(!text.contains("virtconsole"));
    let text = lines(&QemuConfig { machine: "microvm,isa-serial=off".into(), ..x86() });
    assert!(!text.contains("serial0"));
    assert!(text.contains("virtconsole,chardev=hvc0"));
}

#[test]
fn pci_needs_a_bus_and_renames_the_devices() {
    let pci = QemuConfig { virtio_transport: VirtioTransport::Pci, ..x86() };
    assert_eq!(QemuArgs::render(&pci).expect_err("no bus"), ArgsError::NoPci);
    let text = lines(&QemuConfig { machine: "microvm,pcie=on".into(), ..pci });
    for device in
        ["virtio-blk-pci,drive=store", "virtio-serial-pci", "virtio-rng-pci", "vhost-vsock-pci,vhostfd=10"]
    {
        assert!(text.contains(device), "{device} is missing in\n{text}");
    }
}

#[test]
fn no_machine_ever_has_a_network() {
    for config in [x86(), x86_tcg_hybrid(), arm()] {
        let text = lines(&config);
        assert!(!text.contains("netdev") && !text.contains("-nic") && !text.contains("virtio-net"));
    }
}

#[test]
fn init_s_own_arguments_stay_behind_the_dashes() {
    let text = lines(&QemuConfig { boot_args: "quiet -- single".into(), ..x86() });
    assert!(text.contains("-append quiet shuttle.vsock_port=824 -- single"), "{text}");
}

#[test]
fn contradictions_are_named() {
    let error = |change: fn(&mut QemuConfig)| {
        let mut config = x86();
        change(&mut config);
        QemuArgs::render(&config).expect_err("refused").to_string()
    };
    assert_eq!(
        error(|c| c.cpu = "host\" -netdev user".into()),
        "cpu `host\" -netdev user` holds something that is no part of a CPU model: correct `runnerConfig.cpu`"
    );
    assert_eq!(
        error(|c| c.boot_args = "a\0b".into()),
        "the boot arguments hold a control character: correct `bootArgs`"
    );
    assert_eq!(error(|c| c.fds.qmp = 5), "descriptor 5 is both the store disk and the QMP socket");
    assert_eq!(
        error(|c| c.fds.console = 1),
        "descriptor 1 can't be the console: descriptors 0 to 2 are the standard streams"
    );
    assert_eq!(
        error(|c| c.fds.vsock = Vsock::Kernel { vhostfd: 10, cid: 2 }),
        "vsock CID 2 is reserved: guests have 3 and above"
    );
    assert_eq!(
        error(|c| c.fds.volumes = (20..50).collect()),
        "the machine needs 35 virtio devices and has room for 24: use fewer volumes"
    );
}
