//! The source tree of a workflow that a person starts: what git says of it, and the tar archive that
//! becomes the machine's source disk.

mod archive;
mod git;

pub use archive::{ArchiveSummary, SourceError, write_archive};
pub use git::{GitError, Repository, Tree};
