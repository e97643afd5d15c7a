//! The digests of an image's files, each and all: what an entry is named by, and what tells which file of it is damaged.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::entries::sorted_files;
use crate::image::digest::{InputHasher, from_hex, hex, sha256_of_file};

/// By the files' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileDigests(BTreeMap<String, [u8; 32]>);

impl FileDigests {
    /// Of a flat directory.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let mut digests = BTreeMap::new();
        for path in sorted_files(directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            digests.insert(name, sha256_of_file(&path)?);
        }
        Ok(Self(digests))
    }

    /// Of the files' names and contents, in the names' order.
    pub(super) fn digest(&self) -> String {
        let mut hasher = InputHasher::new("creel image content 1");
        for (name, digest) in &self.0 {
            hasher.part(name.as_bytes());
            hasher.part(digest);
        }
        hasher.finish()
    }

    /// As sha256sum(1) writes it and checks it.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(name, digest)| format!("{}  {name}\n", hex(digest))).collect()
    }

    /// What [`Self::text`] made.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let file = |line: &str| {
            let (digest, name) = line.split_once("  ")?;
            Some((name.to_owned(), from_hex(digest)?))
        };
        text.lines().map(file).collect::<Option<BTreeMap<_, _>>>().map(Self)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&[u8; 32]> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_all_there_is() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (name, content) in [("b", "two"), ("a", "one")] {
            std::fs::write(directory.path().join(name), content).expect("room");
        }
        let files = FileDigests::of(directory.path()).expect("readable");
        insta::assert_snapshot!(files.text(), @"
        7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a
        3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3  b
        ");
        assert_eq!(FileDigests::parse(&files.text()), Some(files));
        assert_eq!(FileDigests::parse("abc  name\n"), None, "no digest");
    }
}
