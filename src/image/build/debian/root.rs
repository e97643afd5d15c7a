//! What a Debian root needs to be an image's, and what must go from it for two builds to be one.

use std::fs;
use std::path::Path;

use super::super::error::BuildError;
use super::super::rootfs::{HOSTS, RESOLV_CONF};

/// Where the root is packed to, in itself, until mmdebstrap has handed it out.
pub(super) const PACKED: &str = ".creel";
/// What the script says when it starts to pack.
pub(super) const PACKING: &str = "creel: packing";

/// The workflow's user has the number it has in upstream's images; it comes before the packages, so that none of
/// them takes it.
pub(super) const ADD_USER: &str = r#"set -eu
cd "$1"
echo 'spindle-workflow:x:970:970:workflow:/workspace:/bin/bash' >> etc/passwd
echo 'spindle-workflow:x:970:' >> etc/group
echo 'spindle-workflow:*::0:99999:7:::' >> etc/shadow
echo 'spindle-workflow:*::' >> etc/gshadow
"#;

/// Debian's own would put its PATH in the place of the step's.
const PROFILE: &str = r#"export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
umask 022
for script in /etc/profile.d/*.sh; do
    [ ! -r "$script" ] || . "$script"
done
unset script
"#;

/// The script that cleans the root and packs it with `command`.
pub(super) fn finish(command: &str) -> String {
    format!("pack() {{ {command}; }}\n{}", include_str!("finish.sh"))
}

/// The files that are creel's own, as a tar archive. Names that Debian keeps its own text under are replaced.
pub(super) fn overlay(agent: &Path) -> Result<Vec<u8>, BuildError> {
    let mut archive = tar::Builder::new(Vec::new());
    let agent_bytes = fs::read(agent).map_err(BuildError::io("read", agent))?;
    let files: [(&str, u32, &[u8]); 6] = [
        ("etc/hostname", 0o644, b"creel\n"),
        ("etc/hosts", 0o644, HOSTS.as_bytes()),
        ("etc/machine-id", 0o444, b""),
        ("etc/profile", 0o644, PROFILE.as_bytes()),
        ("etc/resolv.conf", 0o644, RESOLV_CONF.as_bytes()),
        // For images that are to start it as a service; the initramfs has its own copy.
        ("usr/lib/creel/creel-agent", 0o755, &agent_bytes),
    ];
    let add = |archive: &mut tar::Builder<Vec<u8>>| {
        for (path, owner) in [("workspace/", 970), ("usr/lib/creel/", 0)] {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            header.set_uid(owner);
            header.set_gid(owner);
            archive.append_data(&mut header, path, &[][..])?;
        }
        for (path, mode, content) in files {
            let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
            archive.append_data(&mut header, path, content)?;
        }
        archive.finish()
    };
    add(&mut archive).and_then(|()| archive.into_inner()).map_err(BuildError::io("pack", agent))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
