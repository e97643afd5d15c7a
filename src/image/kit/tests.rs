use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::image::testing::kit_in;

#[test]
fn a_complete_kit_opens_with_its_modules_in_load_order() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(directory.path());
    let names: Vec<_> = kit.modules.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["b-c.ko", "a.ko"]);
    assert_eq!((kit.kernel.release.as_str(), kit.kernel.format), ("6.1.0-test", KernelFormat::Vmlinux));
}

#[test]
fn every_missing_part_is_named_with_the_remedy() {
    let directory = tempfile::tempdir().expect("temporary directory");
    kit_in(directory.path());
    for name in ["bin/creel-keeper", "kernel/vmlinux", "kernel/modules/a.ko"] {
        fs::remove_file(directory.path().join(name)).expect("was there");
    }
    let error = Kit::open(directory.path()).expect_err("incomplete").to_string();
    let real = directory.path().canonicalize().expect("exists");
    insta::assert_snapshot!(error.replace(&real.display().to_string(), "KIT"), @"the kit in KIT lacks KIT/bin/creel-keeper, KIT/kernel/vmlinux, KIT/kernel/modules/a.ko; run `make kit` to complete it");
}

#[test]
fn the_first_directory_that_exists_is_the_kit() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let place = |name: &str| directory.path().join(name);
    let places = || vec![place("one"), place("two"), place("three")];
    kit_in(&place("three"));
    assert!(Kit::discover(places()).expect("the third place").directory.ends_with("three"));
    kit_in(&place("two"));
    assert!(Kit::discover(places()).expect("the second place").directory.ends_with("two"));
}

#[test]
fn without_a_kit_the_places_and_the_remedy_are_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let elsewhere = directory.path().join("elsewhere");
    let error = Kit::discover(vec![elsewhere.clone()]).expect_err("not there");
    assert!(matches!(&error, KitError::NotFound { looked_in } if *looked_in == [elsewhere]));
    assert!(error.to_string().contains("run `make kit`"), "{error}");
}

#[test]
fn an_order_that_leads_out_of_the_kit_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    kit_in(directory.path());
    fs::write(directory.path().join(ORDER), "../../etc/passwd\n").expect("room");
    assert!(matches!(Kit::open(directory.path()), Err(KitError::BadOrder { .. })));
}

/// What assembling needs of a host, with two kernels, one of which has no modules.
fn sources(host: &Path) -> KitSources {
    let write = |name: &str, content: &str| {
        let path = host.join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("room");
        fs::write(&path, content).expect("room");
        path
    };
    for release in ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.9.0-1-amd64"] {
        write(&format!("modules/{release}/modules.dep"), "kernel/drivers/virtio/virtio_ring.ko:\n");
        write(&format!("modules/{release}/kernel/drivers/virtio/virtio_ring.ko"), release);
        let built_in = "virtio.ko\nvirtio_mmio.ko\nvirtio_blk.ko\nvsock.ko\nvmw_vsock_virtio_transport_common.ko\n\
            vmw_vsock_virtio_transport.ko\nvirtio_console.ko\nerofs.ko\nsquashfs.ko\noverlay.ko\n";
        write(&format!("modules/{release}/modules.builtin"), built_in);
        write(&format!("boot/vmlinuz-{release}"), "");
    }
    write("boot/vmlinuz-7.0.0-1-cloud-amd64", "");
    KitSources {
        agent: write("agent", "agent"),
        keeper: write("keeper", "keeper"),
        vsock_helper: write("helper", "helper"),
        boot_dir: host.join("boot"),
        modules_root: host.join("modules"),
    }
}

/// A bzImage packed by zstd, which is kept as it is.
fn zstd_bzimage() -> Vec<u8> {
    let mut image = vec![0; 1040];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&16u32.to_le_bytes());
    image[1024..1028].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
    image
}

#[test]
fn the_newest_cloud_kernel_with_modules_is_taken() {
    let host = tempfile::tempdir().expect("temporary directory");
    let sources = sources(host.path());
    let kernel = sources.boot_dir.join("vmlinuz-6.1.0-56-cloud-amd64");
    fs::write(kernel, zstd_bzimage()).expect("room");
    let dest = host.path().join("kit");
    for round in ["made", "replaced"] {
        let made = assemble(&sources, &dest).expect(round);
        assert_eq!(made.kit.kernel.release, "6.1.0-56-cloud-amd64");
        let mode = made.kit.agent.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "a program may be run by all");
        let ring = fs::read_to_string(&made.kit.modules[0]).expect("copied");
        assert_eq!((made.kit.modules.len(), ring.as_str()), (1, "6.1.0-56-cloud-amd64"));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(made.kit.kernel.format, KernelFormat::BzImage);
            let why = made.kept_bzimage.expect("kept for a reason").to_string();
            assert!(why.contains("compressed with zstd"), "{why}");
        }
    }
    let left: Vec<_> =
        fs::read_dir(host.path()).expect("readable").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 6, "nothing half-done is left behind: {left:?}");
}

#[test]
fn no_kernel_names_the_package() {
    let host = tempfile::tempdir().expect("temporary directory");
    let sources = sources(host.path());
    fs::remove_dir_all(&sources.modules_root).expect("was there");
    let error = assemble(&sources, &host.path().join("kit")).expect_err("no modules").to_string();
    assert!(error.contains("install the package linux-image-cloud-amd64"), "{error}");
    assert!(!host.path().join("kit").exists());
}

#[test]
fn a_kernel_that_lacks_a_module_is_named() {
    let host = tempfile::tempdir().expect("temporary directory");
    let sources = sources(host.path());
    fs::write(sources.boot_dir.join("vmlinuz-6.1.0-56-cloud-amd64"), zstd_bzimage()).expect("room");
    fs::write(sources.modules_root.join("6.1.0-56-cloud-amd64/modules.builtin"), "").expect("room");
    let error = assemble(&sources, &host.path().join("kit")).expect_err("no virtio").to_string();
    assert!(error.contains("kernel 6.1.0-56-cloud-amd64 has no module `virtio`"), "{error}");
}
