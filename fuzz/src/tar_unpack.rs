//! An archive from a hostile guest, unpacked: nothing beside its directory is touched, and nothing in it lends out rights.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use creel_tree::{Destination, unpack};

const CANARY: &[u8] = b"not to be touched";

pub fn run(data: &[u8]) {
    let outside = tempfile::tempdir().expect("a temporary directory can be made");
    let canary = outside.path().join("canary");
    let inside = outside.path().join("inside");
    fs::write(&canary, CANARY).expect("a file can be made");
    fs::create_dir(&inside).expect("a directory can be made");
    // A way out that lies there before the archive comes.
    std::os::unix::fs::symlink("..", inside.join("out")).expect("a link can be made");

    let destination = Destination::directory(&inside).expect("it is a directory");
    let unpacked = unpack(data, destination, &mut |_| Ok(()));
    if let Ok(unpacked) = unpacked {
        let entries = unpacked.files + unpacked.directories;
        assert!(entries <= data.len() as u64 / 512, "{entries} entries of {} bytes", data.len());
    }

    let beside: Vec<_> = fs::read_dir(outside.path())
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").file_name())
        .collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    assert_eq!(fs::read(&canary).expect("the canary is there"), CANARY);
    look_at(&inside);
}

/// Also opens what the archive has closed, so that it can be removed.
fn look_at(path: &Path) {
    let metadata = fs::symlink_metadata(path).expect("what was unpacked can be looked at");
    if metadata.is_symlink() {
        return;
    }
    assert!(metadata.is_dir() || metadata.is_file(), "{}", path.display());
    assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{}", path.display());
    if metadata.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("the directory is ours");
        for entry in fs::read_dir(path).expect("the directory is ours") {
            look_at(&entry.expect("it can be read").path());
        }
    }
}
