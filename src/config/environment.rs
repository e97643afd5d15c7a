//! What of the process environment the configuration looks at. Tests hand in their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Who runs creel, and the variables that say where its files are and what differs from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The effective uid; 0 uses the system's places.
    pub euid: u32,
    pub home: Option<PathBuf>,
    /// Relative XDG paths are to be ignored (XDG Base Directory Specification), and never come in here.
    pub xdg_config_home: Option<PathBuf>,
    pub xdg_state_home: Option<PathBuf>,
    pub xdg_cache_home: Option<PathBuf>,
    pub xdg_runtime_dir: Option<PathBuf>,
    /// Variables that begin with `CREEL_`, whole names.
    pub creel: BTreeMap<String, OsString>,
}

impl Environment {
    /// That of this process.
    pub fn from_process() -> Self {
        Self::of(rustix::process::geteuid().as_raw(), std::env::vars_os())
    }

    /// That of the user `euid` with `variables`.
    pub fn of(euid: u32, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self { euid, ..Self::default() };
        for (name, value) in variables {
            let path = || Some(PathBuf::from(&value)).filter(|path| path.is_absolute());
            // A name that is no UTF-8 is none of ours.
            match name.to_str() {
                Some("HOME") => environment.home = path(),
                Some("XDG_CONFIG_HOME") => environment.xdg_config_home = path(),
                Some("XDG_STATE_HOME") => environment.xdg_state_home = path(),
                Some("XDG_CACHE_HOME") => environment.xdg_cache_home = path(),
                Some("XDG_RUNTIME_DIR") => environment.xdg_runtime_dir = path(),
                Some(name) if name.starts_with("CREEL_") => {
                    environment.creel.insert(name.to_owned(), value);
                }
                _ => {}
            }
        }
        environment
    }

    /// Where the configuration is read from when nobody names a file.
    pub fn config_file(&self) -> Option<PathBuf> {
        if self.euid == 0 {
            return Some("/etc/creel/creel.toml".into());
        }
        let home = || self.home.as_ref().map(|home| home.join(".config"));
        self.xdg_config_home.clone().or_else(home).map(|directory| directory.join("creel/creel.toml"))
    }
}
