//! What is measured: the programs and the kit, as they are built.

use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::row::{Failed, Trying as _};

/// Paths of what exists.
#[derive(Debug, Clone)]
pub struct Programs {
    pub creel: PathBuf,
    pub creeld: PathBuf,
    pub kit: PathBuf,
    /// The bench itself.
    pub own: PathBuf,
}

impl Programs {
    /// As named, or beside this program.
    ///
    /// # Errors
    /// Names what is missing and how to build it.
    pub fn find(args: &Args) -> Result<Self, Failed> {
        let own = std::env::current_exe().trying("find this program")?;
        let directory = match &args.programs {
            Some(directory) => directory.clone(),
            None => own.parent().map(Path::to_owned).unwrap_or_default(),
        };
        let named = || std::env::var_os("CREEL_KIT__DIR").map(PathBuf::from);
        let kit = args.kit.clone().or_else(named).unwrap_or_else(|| directory.join("../kit"));
        let found = |path: PathBuf| {
            let canonical = path.canonicalize();
            canonical.map_err(|_| Failed::new(format!("there is no `{}`; run `make kit`", path.display())))
        };
        Ok(Self {
            creel: found(directory.join("creel"))?,
            creeld: found(directory.join("creeld"))?,
            kit: found(kit)?,
            own,
        })
    }
}

/// The first of `directories` and then of `PATH` that has `name`.
pub fn installed(name: &str, directories: &[&str]) -> Option<PathBuf> {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let directories = directories.iter().map(PathBuf::from).chain(std::env::split_paths(&search_path));
    directories.map(|directory| directory.join(name)).find(|path| path.is_file())
}
