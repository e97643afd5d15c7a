//! What the tests of several image modules need: a kit small enough to build from in milliseconds.

use std::fs;
use std::path::{Path, PathBuf};

use super::kit::Kit;

/// Whether the programs and the busybox an image is built with are there; if not, says so.
pub(super) fn can_build() -> bool {
    let missing: Vec<&str> = [("mkfs.erofs", "mkfs.erofs"), ("busybox", "busybox")]
        .into_iter()
        .filter(|(name, _)| super::program::Program::find(name, "").is_err())
        .map(|(_, shown)| shown)
        .collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} not installed", missing.join(" and "));
    }
    missing.is_empty()
}

/// A complete kit of placeholders in `directory`.
pub(super) fn kit_in(directory: &Path) -> Kit {
    let files: [(&str, &[u8]); 8] = [
        ("bin/creel-agent", b"agent"),
        ("bin/creel-keeper", b"keeper"),
        ("bin/vhost-device-vsock", b"helper"),
        ("kernel/release", b"6.1.0-test\n"),
        ("kernel/vmlinux", b"kernel"),
        ("kernel/modules/a.ko", b"module a"),
        ("kernel/modules/b-c.ko", b"module b"),
        ("kernel/modules/order", b"b-c.ko\na.ko\n"),
    ];
    for (name, content) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory");
        fs::write(path, content).expect("room");
    }
    Kit::open(directory).expect("complete")
}

/// Every file below `directory` as (relative path, content), sorted.
pub(super) fn files_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).expect("readable").map(|entry| entry.expect("readable").path()) {
            if entry.is_dir() {
                pending.push(entry);
            } else {
                let relative = entry.strip_prefix(directory).expect("below").to_owned();
                found.push((relative, fs::read(&entry).expect("readable")));
            }
        }
    }
    found.sort();
    found
}
