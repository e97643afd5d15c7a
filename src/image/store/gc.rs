//! What a collection does, and what it has done.

/// Whether to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collect {
    Remove,
    /// Only say what would be removed.
    DryRun,
}

/// One thing that is gone, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// An entry's digest, or the name of a directory that a killed build left.
    pub what: String,
    /// What the disk gets back: a file that has another name elsewhere does not count.
    pub size_bytes: u64,
}

/// What a collection found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Entries that no name leads to.
    pub entries: Vec<Removed>,
    /// Directories of builds and removals that were killed.
    pub abandoned: Vec<Removed>,
    /// No name leads to these either, but a machine or a build holds them: a later collection gets them.
    pub in_use: Vec<Removed>,
}

impl Collected {
    /// What came free, or would, in bytes.
    pub fn freed_bytes(&self) -> u64 {
        self.entries.iter().chain(&self.abandoned).map(|removed| removed.size_bytes).sum()
    }
}
