use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;
use crate::image::spec::{DiskFormat, VolumeFilesystem};

fn volume(mount_point: &str, size_mib: u64) -> VolumeSpec {
    VolumeSpec {
        fs_type: VolumeFilesystem::Ext4,
        image: "v.img".to_owned(),
        image_type: DiskFormat::Raw,
        mount_point: mount_point.to_owned(),
        read_only: false,
        size_mib,
    }
}

fn can_format() -> bool {
    let found = Program::find("mke2fs", "e2fsprogs").is_ok();
    if !found {
        eprintln!("skipped: mke2fs is not installed");
    }
    found
}

/// What dumpe2fs says of a disk's superblock.
fn superblock(disk: &OwnedFd) -> String {
    let program = Program::find("dumpe2fs", "e2fsprogs").expect("in mke2fs's package");
    let path = format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd());
    program.run(["-h", &path], &[]).expect("a file system")
}

#[test]
fn a_volume_is_a_sparse_file_system_without_a_name() {
    if !can_format() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let (cache, run) = (directory.path().join("cache"), directory.path().join("run"));
    fs::create_dir(&run).expect("room");
    let templates = VolumeTemplates::new(cache.clone());
    let disk = templates.instantiate(&volume("/workspace", 4096), &run).expect("made");
    let file = File::from(disk.try_clone().expect("a descriptor"));
    let found = file.metadata().expect("open");
    assert_eq!((found.len(), found.nlink()), (4096 << 20, 0));
    assert!(found.blocks() * 512 < 64 << 20, "it takes {} KiB", found.blocks() / 2);
    assert_eq!(fs::read_dir(&run).expect("readable").count(), 0);
    let shown = superblock(&disk);
    assert!(shown.contains("Filesystem state:         clean"), "{shown}");
    assert!(!shown.contains("has_journal"), "{shown}");
    assert_eq!(cache.metadata().expect("made").permissions().mode() & 0o777, 0o700);
}

#[test]
fn only_the_workspace_goes_without_a_journal() {
    if !can_format() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let templates = VolumeTemplates::new(directory.path().join("cache"));
    let disk = templates.instantiate(&volume("/persist", 256), directory.path()).expect("made");
    assert!(superblock(&disk).contains("has_journal"));
}

#[test]
fn what_one_run_writes_no_other_sees() {
    if !can_format() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let templates = VolumeTemplates::new(directory.path().join("cache"));
    let spec = volume("/workspace", 64);
    let first = File::from(templates.instantiate(&spec, directory.path()).expect("made"));
    first.write_all_at(&[0xee; 4096], 0).expect("room");
    let second = templates.instantiate(&spec, directory.path()).expect("made");
    assert!(superblock(&second).contains("clean"));
    let mut start = [0; 512];
    File::from(second).read_exact_at(&mut start, 0).expect("long enough");
    assert_eq!(start, [0; 512]);
}

#[test]
fn a_template_is_made_once_and_kept() {
    if !can_format() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let cache = directory.path().join("cache");
    let templates = VolumeTemplates::new(cache.clone());
    let inodes = || {
        let entries = fs::read_dir(&cache).expect("readable").flatten();
        let mut found: Vec<_> = entries.map(|entry| entry.metadata().expect("there").ino()).collect();
        found.sort_unstable();
        found
    };
    templates.instantiate(&volume("/workspace", 64), directory.path()).expect("made");
    let before = inodes();
    templates.instantiate(&volume("/workspace", 64), directory.path()).expect("copied");
    assert_eq!(inodes(), before);
    templates.instantiate(&volume("/workspace", 65), directory.path()).expect("made");
    assert_eq!(inodes().len(), 2, "another size is another template");
}

#[test]
fn many_at_once_agree_on_one_template() {
    if !can_format() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let cache = directory.path().join("cache");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let templates = VolumeTemplates::new(cache.clone());
                let disk = templates.instantiate(&volume("/workspace", 128), directory.path()).expect("made");
                assert!(superblock(&disk).contains("clean"));
            });
        }
    });
    assert_eq!(fs::read_dir(&cache).expect("readable").count(), 1, "one template, nothing half-done");
}

#[test]
fn a_template_that_was_cut_short_is_made_again() {
    if !can_format() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let cache = directory.path().join("cache");
    let templates = VolumeTemplates::new(cache.clone());
    templates.instantiate(&volume("/workspace", 64), directory.path()).expect("made");
    let template = fs::read_dir(&cache).expect("readable").flatten().next().expect("one").path();
    fs::set_permissions(&template, Permissions::from_mode(0o600)).expect("ours");
    File::options().write(true).open(&template).and_then(|file| file.set_len(7)).expect("ours");
    let disk = templates.instantiate(&volume("/workspace", 64), directory.path()).expect("made again");
    assert!(superblock(&disk).contains("clean"));
}

/// A tmpfs of the given size, gone with this value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            other => {
                eprintln!("skipped: a small tmpfs can't be mounted, which takes root: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    if !can_format() {
        return;
    }
    let Some(small) = SmallDisk::mount("256k") else { return };
    let roomy = tempfile::tempdir().expect("temporary directory");
    let spec = volume("/workspace", 1024);

    // Where the copy goes.
    let templates = VolumeTemplates::new(roomy.path().join("cache"));
    let error = templates.instantiate(&spec, small.0.path()).expect_err("no room");
    assert!(
        matches!(&error, VolumeError::DiskFull { path, size_mib: 1024, .. } if path == small.0.path()),
        "{error}"
    );
    assert!(error.to_string().contains("free some space"), "{error}");

    // Where the template goes.
    let cache = small.0.path().join("cache");
    let error = VolumeTemplates::new(cache.clone()).instantiate(&spec, roomy.path()).expect_err("no room");
    assert!(matches!(&error, VolumeError::DiskFull { path, .. } if *path == cache), "{error}");
    assert_eq!(fs::read_dir(&cache).expect("readable").count(), 0, "no half a template is left");
}
