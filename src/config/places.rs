//! Where creel keeps what: as root in the system's directories, else in the user's.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::settings::Directories;

/// Where packages put images and the kit, and where root's live; anyone may read both.
const SYSTEM_ROOTS: [&str; 2] = ["/var/lib/creel", "/usr/lib/creel"];

/// Why there is no place.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    #[error("there is no directory for creel's {what}: HOME is not set; set it, or {variable}, or `{key}`")]
    NoHome { what: &'static str, variable: &'static str, key: &'static str },
}

/// The directories of this user. None is made by being named here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// Sockets and machines; gone after a reboot.
    pub run: PathBuf,
    /// Images built here, records, logs.
    pub state: PathBuf,
    /// What can be made again.
    pub cache: PathBuf,
    /// Where an image is looked for, in order; the first is where images are built.
    pub images: Vec<PathBuf>,
    /// Where the kit is looked for, in order; the first is where it is put.
    pub kit: Vec<PathBuf>,
}

impl Places {
    pub(super) fn new(environment: &Environment, set: &Directories) -> Result<Self, PlacesError> {
        let euid = environment.euid;
        let system = |path: &str| Some(PathBuf::from(path)).filter(|_| euid == 0);
        let in_home = |below: &str| environment.home.as_ref().map(|home| home.join(below).join("creel"));
        let xdg = |directory: &Option<PathBuf>| directory.as_ref().map(|directory| directory.join("creel"));

        let run =
            set.run.clone().or_else(|| system("/run/creel")).or_else(|| xdg(&environment.xdg_runtime_dir));
        let state = set
            .state
            .clone()
            .or_else(|| system(SYSTEM_ROOTS[0]))
            .or_else(|| xdg(&environment.xdg_state_home))
            .or_else(|| in_home(".local/state"))
            .ok_or(PlacesError::NoHome { what: "state", variable: "XDG_STATE_HOME", key: "state.dir" })?;
        let cache = set
            .cache
            .clone()
            .or_else(|| system("/var/lib/creel/cache"))
            .or_else(|| xdg(&environment.xdg_cache_home))
            .or_else(|| in_home(".cache"))
            .ok_or(PlacesError::NoHome { what: "cache", variable: "XDG_CACHE_HOME", key: "cache.dir" })?;

        Ok(Self {
            run: run.unwrap_or_else(|| format!("/tmp/creel-{euid}").into()),
            images: roots(set.images.as_deref(), &state, "images"),
            kit: roots(set.kit.as_deref(), &state, "kit"),
            state,
            cache,
        })
    }
}

/// The user's own root, then the system's.
fn roots(set: Option<&Path>, state: &Path, name: &str) -> Vec<PathBuf> {
    let own = set.map_or_else(|| state.join(name), Path::to_owned);
    let system = SYSTEM_ROOTS.iter().map(|root| Path::new(root).join(name)).filter(|root| *root != own);
    let system: Vec<_> = system.collect();
    [own].into_iter().chain(system).collect()
}
