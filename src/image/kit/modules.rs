//! Which module files a guest needs, and in which order they load. Reads what depmod wrote (modules.dep(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::KitError;

/// What a guest loads, in this order: bus, disks, vsock, console, file systems, and what the host learns from.
const REQUIRED: [&str; 11] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_blk",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "virtio_console",
    "erofs",
    "squashfs",
    "overlay",
];
/// Worth having where the kernel has them: other machine types, early entropy, and the panic notifier by which QEMU
/// tells a guest's panic from a reset.
const OPTIONAL: [&str; 3] = ["virtio_pci", "virtio_rng", "pvpanic_mmio"];

/// depmod's tables of one kernel.
#[derive(Debug, Default)]
pub(super) struct ModuleIndex {
    /// By module name, `-` written as `_`: file and dependencies, relative to the modules' directory.
    loadable: BTreeMap<String, (String, Vec<String>)>,
    built_in: BTreeSet<String>,
}

impl ModuleIndex {
    /// Reads `modules.dep` and `modules.builtin` of a kernel's directory.
    pub(super) fn read(directory: &Path) -> Result<Self, KitError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| KitError::Unreadable { path, source })
        };
        Ok(Self::parse(&read("modules.dep")?, &read("modules.builtin")?))
    }

    pub(super) fn parse(dependencies: &str, built_in: &str) -> Self {
        let mut index = Self::default();
        for line in dependencies.lines() {
            if let Some((file, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                index.loadable.insert(module_name(file), (file.to_owned(), needs));
            }
        }
        index.built_in = built_in.lines().map(module_name).collect();
        index
    }

    /// The files a guest needs, each after those it depends on, relative to the modules' directory. An `Err` is the
    /// name of a module that is neither loadable nor built in.
    pub(super) fn load_order(&self) -> Result<Vec<String>, String> {
        let mut order = Vec::new();
        for name in REQUIRED {
            if !self.built_in.contains(name) && !self.visit(name, &mut order) {
                return Err(name.to_owned());
            }
        }
        for name in OPTIONAL {
            self.visit(name, &mut order);
        }
        Ok(order)
    }

    /// Appends a module's dependencies, then itself; false if there is no such file.
    fn visit(&self, name: &str, order: &mut Vec<String>) -> bool {
        let Some((file, needs)) = self.loadable.get(name) else { return false };
        if order.contains(file) {
            return true;
        }
        // depmod lists all of them, transitive ones included, the last to be loaded first.
        for need in needs.iter().rev().filter(|need| *need != file) {
            if !order.contains(need) {
                order.push(need.clone());
            }
        }
        order.push(file.clone());
        true
    }
}

/// Refuses what the guest could not load as it is.
pub(super) fn check_plain(path: &Path) -> Result<(), KitError> {
    let with = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return Ok(()),
    };
    Err(KitError::CompressedModule { path: PathBuf::from(path), with })
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko` is the module `virtio_rng`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split_once(".ko").map_or(name, |(stem, _)| stem).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/net/vmw_vsock/vsock.ko:
kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko: kernel/net/vmw_vsock/vsock.ko
kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko: kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko \
kernel/net/vmw_vsock/vsock.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/virtio_console.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
";

    #[test]
    fn every_module_follows_what_it_needs() {
        let built_in = "kernel/fs/squashfs/squashfs.ko\nkernel/fs/overlayfs/overlay.ko\n";
        let order = ModuleIndex::parse(DEPENDENCIES, built_in).load_order().expect("all there");
        let names: Vec<String> = order.iter().map(|file| module_name(file)).collect();
        assert_eq!(
            names.join(" "),
            "virtio_ring virtio virtio_mmio virtio_blk vsock vmw_vsock_virtio_transport_common \
             vmw_vsock_virtio_transport virtio_console libcrc32c erofs virtio_rng"
        );
    }

    #[test]
    fn a_required_module_that_is_nowhere_is_named() {
        let built_in = "kernel/fs/squashfs/squashfs.ko\n";
        assert_eq!(ModuleIndex::parse(DEPENDENCIES, built_in).load_order(), Err("overlay".to_owned()));
    }

    #[test]
    fn a_compressed_module_is_refused_by_name() {
        let error =
            check_plain(Path::new("/lib/modules/6.1/kernel/fs/erofs/erofs.ko.zst")).expect_err("compressed");
        assert!(error.to_string().contains("erofs.ko.zst is compressed with zstd"), "{error}");
    }
}
