//! What the root is packed with: EROFS, or squashfs where mkfs.erofs is not installed.

use super::super::error::BuildError;
use super::mmdebstrap::quoted;
use crate::image::program::Program;

/// LZ4, since the root is large and unpacking it costs an emulated guest less than reading it. No extended attributes,
/// which are the host's business, and no `-T`: Python takes the times of its sources for a part of their compiled
/// forms. `SOURCE_DATE_EPOCH` is the time of what has none of its own.
const EROFS: &str = "--quiet -zlz4 -x-1 -U6372656c-0000-4000-8000-64656269616e --exclude-path=.creel \
                     '--exclude-regex=^(dev|proc|sys)/.*' .creel/store.erofs .";
const SQUASHFS: &str = ". .creel/store.squashfs -quiet -no-progress -noappend -no-xattrs -comp zstd \
                        -Xcompression-level 3 -wildcards -e .creel 'dev/*' 'proc/*' 'sys/*'";

#[derive(Debug)]
pub(super) struct Packer {
    program: Program,
    name: &'static str,
    arguments: &'static str,
    disk: &'static str,
    disk_type: &'static str,
    version: String,
}

impl Packer {
    pub(super) fn find() -> Result<Self, BuildError> {
        if let Ok(program) = Program::find("mkfs.erofs", "erofs-utils") {
            let version = program.version("-V")?;
            let (disk, disk_type) = ("store.erofs", "erofs");
            return Ok(Self { program, name: "mkfs.erofs", arguments: EROFS, disk, disk_type, version });
        }
        let program = Program::find("mksquashfs", "erofs-utils or squashfs-tools")?;
        let version = program.version("-version")?;
        let (disk, disk_type) = ("store.squashfs", "squashfs");
        Ok(Self { program, name: "mksquashfs", arguments: SQUASHFS, disk, disk_type, version })
    }

    pub(super) fn program(&self) -> &'static str {
        self.name
    }

    /// The disk's file name.
    pub(super) fn disk(&self) -> &'static str {
        self.disk
    }

    pub(super) fn disk_type(&self) -> &'static str {
        self.disk_type
    }

    /// Different versions lay the same tree out differently, so it is one of a build's inputs.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// For a shell that stands in the root.
    pub(super) fn command(&self) -> String {
        format!("{} {}", quoted(self.program.path()), self.arguments)
    }
}
