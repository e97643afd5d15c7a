//! The root file system that containers and native machines share: a busybox, and a file to write out.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::data;
use crate::programs::installed;
use crate::row::{Failed, Trying as _};

/// Where the file is that programs write out, and how long it is.
pub const TEXT: &str = "/data/text";
pub const TEXT_BYTES: u64 = 64 << 20;

/// What is to be masked: once in each MiB of the file.
pub const SECRET: &str = "hunter2-correct-horse-battery-staple";

/// The workflow user's number, in containers as in machines.
pub const WORKFLOW_UID: u32 = 970;

const FILES: [(&str, &str); 2] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nspindle-workflow:x:970:970:workflow:/workspace:/bin/sh\n"),
    ("etc/group", "root:x:0:\nspindle-workflow:x:970:\n"),
];
const DIRECTORIES: [&str; 11] =
    ["bin", "data", "dev", "etc", "proc", "root", "run", "sys", "tmp", "workspace", "workspace/repo"];

/// Lays it out in `directory`, as root.
///
/// # Errors
/// When busybox-static is missing, or a file can't be written.
pub fn lay_out(directory: &Path) -> Result<(), Failed> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failed::new("containers and native machines take root; run the bench as root"));
    }
    let busybox = installed("busybox", &["/bin"])
        .ok_or_else(|| Failed::new("there is no busybox; run `scripts/setup --bench`"))?;
    let write =
        |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).trying(&format!("write `{}`", path.display()));
    for name in DIRECTORIES {
        fs::create_dir_all(directory.join(name)).trying("make the root of machines and containers")?;
    }
    fs::copy(&busybox, directory.join("bin/busybox")).trying("copy busybox")?;
    let applets = Command::new(&busybox).arg("--list").output().trying("ask busybox for its names")?;
    for name in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", directory.join("bin").join(name)).trying("link busybox")?;
    }
    for (name, text) in FILES {
        write(directory.join(name), text.as_bytes())?;
    }
    let mut text = data::text(usize::try_from(TEXT_BYTES).unwrap_or_default());
    for mib in text.chunks_mut(1 << 20) {
        // Within a line.
        mib[8..8 + SECRET.len()].copy_from_slice(SECRET.as_bytes());
    }
    write(directory.join(&TEXT[1..]), &text)?;
    fs::set_permissions(directory.join("tmp"), Permissions::from_mode(0o1777)).trying("open /tmp")?;
    for name in ["workspace", "workspace/repo"] {
        chown(directory.join(name), Some(WORKFLOW_UID), Some(WORKFLOW_UID))
            .trying("give /workspace to the workflow user (root may)")?;
    }
    Ok(())
}

/// A script that writes [`TEXT`] out until it has written `bytes`, a multiple of its size.
pub fn writing(bytes: u64) -> String {
    format!("i=0; while [ $i -lt {} ]; do cat {TEXT}; i=$((i+1)); done", bytes / TEXT_BYTES)
}
