//! What machines hold of the host as the host itself shows it: for metrics, where what a fault has left behind must be
//! seen.

use std::path::Path;

use super::cgroup::CgroupRoot;
use super::directory::RunDir;

/// How many there are of each. Zero where they can't be looked at, which the makers of machines complain about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// `m-<id>` in the runtime directory.
    pub directories: usize,
    /// `m-<id>` in the holder's cgroup.
    pub cgroups: usize,
}

/// Looks at both. Reads two directories.
pub fn held(cgroup_root: &Path, run_dir: &Path) -> Held {
    let directories = RunDir::open(run_dir).and_then(|run_dir| run_dir.discover());
    let root = CgroupRoot::find(cgroup_root).ok().flatten();
    let cgroups = root.and_then(|root| root.discover().ok());
    Held {
        directories: directories.map(|ids| ids.len()).unwrap_or_default(),
        cgroups: cgroups.map(|ids| ids.len()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_directories_are_counted_and_what_is_missing_is_none() {
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        let nowhere = home.path().join("nowhere");
        assert_eq!(held(&nowhere, &run), Held::default());
        for name in ["m-0123456789", "m-abcdefghjk", "other"] {
            std::fs::create_dir(run.join(name)).unwrap();
        }
        assert_eq!(held(&nowhere, &run), Held { directories: 2, cgroups: 0 });
    }
}
