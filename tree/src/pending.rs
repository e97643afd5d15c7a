//! Directories whose modes and times are set once nothing more is written into them: their times would change, and a
//! read-only one could not be filled.
//!
//! Archives keep neighbours together, but nothing makes them, so a directory is remembered as long as there is room. Of an
//! archive with more directories, those that are not above the present entry get theirs early: what comes for them later
//! changes their times, and nothing worse.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::attributes::Attributes;
use crate::name::{MAX_DEPTH, MAX_PATH_BYTES};

/// Of all paths together. All those above one entry take half of it at most, so that there is always something to settle.
const MAX_BYTES: usize = 2 * MAX_DEPTH * (MAX_PATH_BYTES + ENTRY_BYTES);

/// What an entry costs beside its path, about.
const ENTRY_BYTES: usize = 96;

#[derive(Debug, Default)]
pub(crate) struct Pending {
    directories: BTreeMap<PathBuf, Attributes>,
    bytes: usize,
}

impl Pending {
    /// Of one that is named twice the last word counts.
    pub(crate) fn add(&mut self, path: &Path, attributes: Attributes) {
        if self.directories.insert(path.to_owned(), attributes).is_none() {
            self.bytes += cost(path);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    /// All, children before their parents, which may become unreadable.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (PathBuf, Attributes)> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.directories).into_iter().rev()
    }

    /// All that are not above `path`.
    pub(crate) fn take_besides(
        &mut self,
        path: &Path,
    ) -> impl Iterator<Item = (PathBuf, Attributes)> + use<> {
        let (above, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.directories).into_iter().partition(|(known, _)| path.starts_with(known));
        self.bytes = above.keys().map(|known| cost(known)).sum();
        self.directories = above;
        others.into_iter().rev()
    }
}

fn cost(path: &Path) -> usize {
    path.as_os_str().len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Time;

    const ANY: Attributes = Attributes { mode: 0o755, modified: Time { seconds: 1, nanos: 2 } };

    fn names(taken: impl Iterator<Item = (PathBuf, Attributes)>) -> Vec<String> {
        taken.map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn children_come_before_their_parents() {
        let mut pending = Pending::default();
        for path in ["a", "a.b", "a/b", "c", "a/b/c", "a"] {
            pending.add(Path::new(path), ANY);
        }
        assert_eq!(names(pending.take_besides(Path::new("a/b/x"))), ["c", "a.b", "a/b/c"]);
        assert_eq!(names(pending.take()), ["a/b", "a"]);
    }

    #[test]
    fn there_is_room_again_whatever_is_remembered() {
        let mut pending = Pending::default();
        let mut deep = PathBuf::new();
        for _ in 0..MAX_DEPTH {
            deep.push("deeper!");
            pending.add(&deep, ANY);
        }
        for number in 0.. {
            pending.add(&PathBuf::from(format!("{number:0>250}")), ANY);
            if pending.is_full() {
                break;
            }
        }
        assert!(pending.take_besides(&deep).count() > 1000);
        assert!(pending.bytes < MAX_BYTES / 2);
        assert_eq!(pending.take().count(), MAX_DEPTH);
    }
}
