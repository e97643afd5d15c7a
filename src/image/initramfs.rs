//! The guest's first root: the agent as `/init`, and the modules it loads before it can reach its disks and us.
//!
//! Not compressed: it is mostly the modules, and unpacking costs an emulated guest more than reading.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::cpio::Archive;
use super::kit::Kit;

/// Where the agent finds its modules.
pub const MODULES_DIRECTORY: &str = "/modules";
/// Their load order, one name a line: `virtio_ring` for `/modules/virtio_ring.ko`.
pub const MODULES_ORDER: &str = "/modules/order";

#[derive(Debug, thiserror::Error)]
#[error("failed to put {} into the initramfs: {source}", path.display())]
pub struct InitramfsError {
    path: PathBuf,
    source: io::Error,
}

/// Packs a kit's agent and modules.
pub fn initramfs(kit: &Kit) -> Result<Vec<u8>, InitramfsError> {
    let read =
        |path: &PathBuf| fs::read(path).map_err(|source| InitramfsError { path: path.clone(), source });
    let mut archive = Archive::new();
    for directory in ["proc", "sys", "dev", "run", "mnt"] {
        archive.directory(directory, 0o755);
    }
    // The kernel opens it for init before anything is mounted.
    archive.char_device("dev/console", 0o600, 5, 1);
    // With `console=hvc0` there is no console yet when init starts; a Rust program without standard streams opens
    // this one in their place, or aborts.
    archive.char_device("dev/null", 0o666, 1, 3);
    archive.file("init", 0o755, read(&kit.agent)?);

    let mut order = String::new();
    for module in &kit.modules {
        let name = module.file_stem().unwrap_or_default().to_string_lossy();
        archive.file(&format!("{MODULES_DIRECTORY}/{name}.ko"), 0o644, read(module)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file(MODULES_ORDER, 0o644, order);

    let mut packed = Vec::new();
    archive.write(&mut packed).map_err(|source| InitramfsError { path: kit.agent.clone(), source })?;
    Ok(packed)
}
