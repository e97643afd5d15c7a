//! `creel debug`: parts of creel, alone.

use std::path::{Path, PathBuf};

use super::failure::{Failure, with_causes};
use crate::exit::Exit;
use crate::image::{KitSources, assemble};

/// `creel debug kit`: what `make kit` calls.
pub(super) fn kit(
    output: &Path,
    agent: PathBuf,
    keeper: PathBuf,
    vsock_helper: PathBuf,
) -> Result<Exit, Failure> {
    let sources = KitSources {
        agent,
        keeper,
        vsock_helper,
        boot_dir: PathBuf::from("/boot"),
        modules_root: PathBuf::from("/lib/modules"),
    };
    let assembled = assemble(&sources, output).map_err(|error| Failure::host(with_causes(&error)))?;
    let kit = assembled.kit;
    println!(
        "kit {}: kernel {} as {}, {} modules",
        kit.directory.display(),
        kit.kernel.release,
        kit.kernel.format.file_name(),
        kit.modules.len()
    );
    if let Some(why) = assembled.kept_bzimage {
        eprintln!("note: the kernel stays a bzImage, which boots a little slower: {why}");
    }
    Ok(Exit::Success)
}
