//! The kit: what creel brings along to run machines. Agent, keeper, vsock helper, a kernel and its modules, in one
//! directory, so that one thing is installed, found, checked and named in errors.
//!
//! ```text
//! bin/creel-agent  bin/creel-keeper  bin/vhost-device-vsock
//! kernel/release                     the kernel's version, one line
//! kernel/vmlinux | kernel/bzImage    (kernel/Image on aarch64)
//! kernel/modules/*.ko  kernel/modules/order
//! ```

mod assemble;
mod modules;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use assemble::{Assembled, KitSources, assemble};

const AGENT: &str = "bin/creel-agent";
const KEEPER: &str = "bin/creel-keeper";
const VSOCK_HELPER: &str = "bin/vhost-device-vsock";
const RELEASE: &str = "kernel/release";
const MODULES: &str = "kernel/modules";
const ORDER: &str = "kernel/modules/order";

/// A complete kit; every path exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kit {
    pub directory: PathBuf,
    pub agent: PathBuf,
    pub keeper: PathBuf,
    pub vsock_helper: PathBuf,
    pub kernel: KitKernel,
    /// In load order.
    pub modules: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KitKernel {
    /// As `uname -r` says it in the guest.
    pub release: String,
    pub path: PathBuf,
    pub format: KernelFormat,
}

/// The three forms a kernel is handed to QEMU in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFormat {
    /// The ELF file, started at its PVH entry.
    Vmlinux,
    BzImage,
    /// aarch64's.
    Image,
}

impl KernelFormat {
    const ALL: [Self; 3] = [Self::Vmlinux, Self::BzImage, Self::Image];

    /// The file's name, in the kit and in images.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage => "bzImage",
            Self::Image => "Image",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("no kit found in {}; run `make kit`, or name one with `kit.dir`", shown(looked_in))]
    NotFound { looked_in: Vec<PathBuf> },
    #[error("the kit in {} lacks {}; run `make kit` to complete it", directory.display(), shown(missing))]
    Incomplete { directory: PathBuf, missing: Vec<PathBuf> },
    #[error("failed to read {} of the kit: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the kit's {} names `{entry}`, which isn't a module's file name; run `make kit`", path.display())]
    BadOrder { path: PathBuf, entry: String },
    #[error("no kernel with its modules found in {} and {}; install the package linux-image-cloud-amd64",
        boot.display(), modules.display())]
    NoKernel { boot: PathBuf, modules: PathBuf },
    #[error("kernel {release} has no module `{module}`, neither built in nor in {}; install another kernel",
        directory.display())]
    NoModule { release: String, module: String, directory: PathBuf },
    #[error("module {} is compressed with {with}, which creel does not unpack; unpack it, or install another kernel",
        path.display())]
    CompressedModule { path: PathBuf, with: &'static str },
    #[error("{} is not a usable kernel: {source}", path.display())]
    BadKernel { path: PathBuf, source: super::kernel::KernelError },
    #[error("failed to make the kit in {}: {}: {source}", dest.display(), path.display())]
    Assemble { dest: PathBuf, path: PathBuf, source: io::Error },
}

impl Kit {
    /// Opens the first of these directories that exists.
    ///
    /// # Errors
    /// When none does, or the one that does lacks a part.
    pub fn discover(looked_in: Vec<PathBuf>) -> Result<Self, KitError> {
        match looked_in.iter().find(|directory| directory.is_dir()) {
            Some(directory) => Self::open(directory),
            None => Err(KitError::NotFound { looked_in }),
        }
    }

    /// Checks the kit in `directory`; names every part that is missing.
    pub fn open(directory: &Path) -> Result<Self, KitError> {
        let directory = directory
            .canonicalize()
            .map_err(|source| KitError::Unreadable { path: directory.to_owned(), source })?;
        let mut missing = Vec::new();
        let mut part = |name: &str| {
            let path = directory.join(name);
            if !path.is_file() {
                missing.push(path.clone());
            }
            path
        };
        let agent = part(AGENT);
        let keeper = part(KEEPER);
        let vsock_helper = part(VSOCK_HELPER);
        let release_file = part(RELEASE);
        let order_file = part(ORDER);
        let kernel_file = |format: KernelFormat| directory.join("kernel").join(format.file_name());
        let format = KernelFormat::ALL.into_iter().find(|format| kernel_file(*format).is_file());
        let path = part(&format!("kernel/{}", format.unwrap_or(KernelFormat::Vmlinux).file_name()));
        let modules = if order_file.is_file() { read_order(&directory)? } else { Vec::new() };
        missing.extend(modules.iter().filter(|module| !module.is_file()).cloned());
        let Some(format) = format.filter(|_| missing.is_empty()) else {
            return Err(KitError::Incomplete { directory, missing });
        };
        let release = read_text(&release_file)?.trim().to_owned();
        let kernel = KitKernel { release, path, format };
        Ok(Self { directory, agent, keeper, vsock_helper, kernel, modules })
    }
}

fn read_order(directory: &Path) -> Result<Vec<PathBuf>, KitError> {
    let path = directory.join(ORDER);
    let text = read_text(&path)?;
    text.lines()
        .map(|entry| match entry {
            "" | "." | ".." => Err(KitError::BadOrder { path: path.clone(), entry: entry.to_owned() }),
            _ if entry.contains('/') => {
                Err(KitError::BadOrder { path: path.clone(), entry: entry.to_owned() })
            }
            _ => Ok(directory.join(MODULES).join(entry)),
        })
        .collect()
}

fn read_text(path: &Path) -> Result<String, KitError> {
    fs::read_to_string(path).map_err(|source| KitError::Unreadable { path: path.to_owned(), source })
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
