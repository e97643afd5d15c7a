//! Packs a directory as an EROFS image, the same bytes for the same tree.

use std::path::Path;

use super::error::BuildError;
use crate::image::program::Program;

pub(super) const PROGRAM: &str = "mkfs.erofs";

/// No `-z`: a root of a few MiB that an emulated CPU would have to unpack boots quicker as it is. `-x-1` leaves the
/// host's extended attributes out, and `-T0` the times; the ids are fixed so that two builds are one.
const ARGUMENTS: [&str; 6] =
    ["--quiet", "-x-1", "-T0", "-U6372656c-0000-4000-8000-726f6f746673", "--all-root", "--ignore-mtime"];

#[derive(Debug)]
pub(super) struct Packer {
    program: Program,
    /// Different versions lay the same tree out differently, so it is one of a build's inputs.
    pub(super) version: String,
}

impl Packer {
    pub(super) fn find() -> Result<Self, BuildError> {
        let program = Program::find(PROGRAM, "erofs-utils")?;
        let version = program.version("-V")?;
        Ok(Self { program, version })
    }

    pub(super) fn arguments(&self) -> &'static [&'static str] {
        &ARGUMENTS
    }

    pub(super) fn pack(&self, root: &Path, into: &Path) -> Result<(), BuildError> {
        let arguments = ARGUMENTS.iter().map(AsRef::as_ref).chain([into.as_os_str(), root.as_os_str()]);
        self.program.run(arguments, &[])?;
        Ok(())
    }
}
