//! Loads the kernel modules that came with the initramfs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

const DIRECTORY: &str = "/modules";

#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("failed to read `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to load kernel module `{path}`: {source}")]
    Load { path: PathBuf, source: io::Error },
}

/// Loads the modules named in `/modules/order`, in that order, and frees the memory of their files. Without
/// such a list there is nothing to do: all that is needed is built into the kernel.
pub fn load_all() -> Result<(), ModuleError> {
    let directory = Path::new(DIRECTORY);
    let order = directory.join("order");
    let names = match fs::read_to_string(&order) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ModuleError::Read { path: order, source }),
    };
    for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
        load(directory.join(format!("{name}.ko")))?;
    }
    // An initramfs is memory. Not being able to free it is no reason to fail.
    let _ = fs::remove_dir_all(directory);
    Ok(())
}

fn load(path: PathBuf) -> Result<(), ModuleError> {
    let module = match File::open(&path) {
        Ok(module) => module,
        Err(source) => return Err(ModuleError::Read { path, source }),
    };
    match rustix::system::finit_module(&module, c"", 0) {
        // Built in, or loaded already.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(ModuleError::Load { path, source: errno.into() }),
    }
}
