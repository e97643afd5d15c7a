//! Puts a kit together from what is built here and the kernel that is installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::modules::{ModuleIndex, check_plain};
use super::{AGENT, KEEPER, KernelFormat, Kit, KitError, MODULES, ORDER, RELEASE, VSOCK_HELPER};
use crate::image::kernel::{KernelError, vmlinux_from_bzimage};
use crate::image::staging::{StagingDir, copy_with_mode};

/// Where the parts come from.
#[derive(Debug, Clone)]
pub struct KitSources {
    pub agent: PathBuf,
    pub keeper: PathBuf,
    pub vsock_helper: PathBuf,
    /// Holds `vmlinuz-<release>`; usually `/boot`.
    pub boot_dir: PathBuf,
    /// Holds `<release>/modules.dep`; usually `/lib/modules`.
    pub modules_root: PathBuf,
}

/// A kit that was just made.
#[derive(Debug)]
pub struct Assembled {
    pub kit: Kit,
    /// Why the kernel stays a bzImage, which boots a little slower, if it does.
    pub kept_bzimage: Option<KernelError>,
}

/// Makes the kit in `dest`, replacing what is there in one step.
pub fn assemble(sources: &KitSources, dest: &Path) -> Result<Assembled, KitError> {
    let failed = |path: &Path| {
        let (dest, path) = (dest.to_owned(), path.to_owned());
        move |source: io::Error| KitError::Assemble { dest, path, source }
    };
    let installed = newest_kernel(&sources.boot_dir, &sources.modules_root)?;
    // `dest` may be relative to the working directory, with no parent of its own to speak of.
    let parent = match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed(parent))?;
    let staging = StagingDir::new(parent).map_err(failed(parent))?;
    let root = staging.path().join("kit");
    for directory in ["bin", MODULES] {
        fs::create_dir_all(root.join(directory)).map_err(failed(&root))?;
    }
    for (source, name) in
        [(&sources.agent, AGENT), (&sources.keeper, KEEPER), (&sources.vsock_helper, VSOCK_HELPER)]
    {
        copy_with_mode(source, &root.join(name), 0o755).map_err(failed(source))?;
    }
    fs::write(root.join(RELEASE), format!("{}\n", installed.release)).map_err(failed(&root))?;
    let kept_bzimage = write_kernel(&installed, &root, dest)?;
    write_modules(&installed, &root, dest)?;
    staging.publish(&root, dest).map_err(failed(dest))?;
    Ok(Assembled { kit: Kit::open(dest)?, kept_bzimage })
}

struct InstalledKernel {
    release: String,
    image: PathBuf,
    modules: PathBuf,
}

/// The newest cloud kernel whose modules are there, else the newest of any kind: the cloud flavour has what a guest
/// needs and little else.
fn newest_kernel(boot: &Path, modules_root: &Path) -> Result<InstalledKernel, KitError> {
    let unreadable = |source| KitError::Unreadable { path: boot.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(boot).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(release) = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")) else { continue };
        let modules = modules_root.join(release);
        if modules.join("modules.dep").is_file() {
            found.push(InstalledKernel { release: release.to_owned(), image: boot.join(&name), modules });
        }
    }
    found
        .into_iter()
        .max_by_key(|kernel| (kernel.release.contains("-cloud-"), version_key(&kernel.release)))
        .ok_or_else(|| KitError::NoKernel { boot: boot.to_owned(), modules: modules_root.to_owned() })
}

/// Orders `6.1.0-9` before `6.1.0-56`: numbers by value, whatever separates them.
fn version_key(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn write_kernel(
    installed: &InstalledKernel,
    root: &Path,
    dest: &Path,
) -> Result<Option<KernelError>, KitError> {
    let image = fs::read(&installed.image)
        .map_err(|source| KitError::Unreadable { path: installed.image.clone(), source })?;
    let (format, content, kept) = if cfg!(target_arch = "x86_64") {
        match vmlinux_from_bzimage(&image) {
            Ok(vmlinux) => (KernelFormat::Vmlinux, vmlinux, None),
            Err(source @ (KernelError::NotBzImage(_) | KernelError::Damaged(_))) => {
                return Err(KitError::BadKernel { path: installed.image.clone(), source });
            }
            Err(reason) => (KernelFormat::BzImage, image, Some(reason)),
        }
    } else {
        (KernelFormat::Image, image, None)
    };
    let path = root.join("kernel").join(format.file_name());
    fs::write(&path, content).map_err(|source| KitError::Assemble { dest: dest.to_owned(), path, source })?;
    Ok(kept)
}

fn write_modules(installed: &InstalledKernel, root: &Path, dest: &Path) -> Result<(), KitError> {
    let failed = |path: PathBuf| move |source| KitError::Assemble { dest: dest.to_owned(), path, source };
    let order = ModuleIndex::read(&installed.modules)?.load_order().map_err(|module| KitError::NoModule {
        release: installed.release.clone(),
        module,
        directory: installed.modules.clone(),
    })?;
    let mut listing = String::new();
    for file in order {
        let source = installed.modules.join(&file);
        check_plain(&source)?;
        let name = file.rsplit('/').next().unwrap_or(&file);
        copy_with_mode(&source, &root.join(MODULES).join(name), 0o644).map_err(failed(source.clone()))?;
        listing.push_str(name);
        listing.push('\n');
    }
    let path = root.join(ORDER);
    fs::write(&path, listing).map_err(failed(path.clone()))
}
