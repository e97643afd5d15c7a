//! With GNU tar, both ways: archives come and go through `-` too.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::snapshot::snapshot;
use crate::{pack, unpack};

/// One of everything that is kept.
fn tree(root: &Path) {
    let long = format!("{}/{}", "d".repeat(150), "é".repeat(100));
    fs::create_dir_all(root.join(&long).parent().unwrap()).unwrap();
    fs::write(root.join(&long), "long").unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("run.sh"), Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(root.join("run.sh"), root.join("same.sh")).unwrap();
    fs::write(root.join("two\nlines"), "").unwrap();
    fs::write(root.join("x".repeat(130) + "\n="), "a long name of two lines").unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    symlink("t".repeat(200), root.join("far")).unwrap();
    fs::create_dir(root.join("locked")).unwrap();
    fs::write(root.join("locked/inside"), vec![b'i'; 300_000]).unwrap();
    let holes = File::create_new(root.join("holes")).unwrap();
    holes.set_len(8 << 20).unwrap();
    for number in 0..40 {
        holes.write_all_at(&[number; 5000], u64::from(number) * (200 << 10)).unwrap();
    }
    fs::set_permissions(root.join("locked"), Permissions::from_mode(0o555)).unwrap();
    for (name, seconds) in
        [("run.sh", 1_700_000_000), ("locked", 1), ("holes", 8_589_934_600), ("dangling", 77)]
    {
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn tar(arguments: &[&str], directory: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("tar")
        .args(arguments)
        .arg("-C")
        .arg(directory)
        .args(if arguments.contains(&"-c") { &["from"][..] } else { &[] })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "tar {arguments:?}: {complaints}");
    output.stdout
}

fn unlock(root: &Path) {
    fs::set_permissions(root.join("locked"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn gnu_tar_unpacks_what_is_packed_here() {
    let room = tempfile::tempdir().unwrap();
    let (from, there) = (room.path().join("from"), room.path().join("there"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&there).unwrap();
    tree(&from);
    let archive = pack(&from);
    tar(&["-x", "-p", "--warning=no-timestamp", "-f", "-"], &there, &archive);
    let (ours, theirs) = (snapshot(&from), snapshot(&there.join("from")));
    assert_eq!(ours, theirs);
    assert!(fs::metadata(there.join("from/holes")).unwrap().blocks() * 512 < 1 << 20);
    // And nothing differs by its own judgement.
    tar(&["-d", "-f", "-"], room.path(), &archive);
    unlock(&from);
    unlock(&there.join("from"));
}

#[test]
fn what_gnu_tar_packs_is_unpacked_here() {
    let room = tempfile::tempdir().unwrap();
    let from = room.path().join("from");
    fs::create_dir(&from).unwrap();
    tree(&from);
    let whole = snapshot(&from);
    // Only pax has fractions of seconds.
    let exact = |format: &str| format.contains("posix") || format.contains("pax");
    for format in ["--format=posix", "--format=pax", "--format=gnu", "--format=oldgnu"] {
        for sparse in [&[][..], &["-S"]] {
            let arguments = [&["-c", "-f", "-", format][..], sparse].concat();
            let archive = tar(&arguments, room.path(), b"");
            let into = room.path().join("into");
            let unpacked = unpack(&archive, &into).unwrap();
            let mut copy = snapshot(&into);
            let mut expected = whole.clone();
            if !exact(format) {
                for seen in expected.values_mut().chain(copy.values_mut()) {
                    seen.modified.1 = 0;
                }
            }
            assert_eq!(copy, expected, "{arguments:?}");
            let files = fs::metadata(into.join("holes")).unwrap().blocks() * 512;
            assert!(sparse.is_empty() || files < 1 << 20, "{arguments:?}: {files}");
            assert_eq!(unpacked.directories, 3, "{arguments:?}");
            unlock(&into);
            fs::remove_dir_all(&into).unwrap();
        }
    }
    unlock(&from);
}

/// Names that are not UTF-8, which GNU tar takes, and warns of a record that it does not know.
#[test]
fn gnu_tar_reads_names_of_any_bytes() {
    use std::os::unix::ffi::OsStrExt as _;

    let room = tempfile::tempdir().unwrap();
    let (from, there) = (room.path().join("from"), room.path().join("there"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&there).unwrap();
    for length in [3, 200] {
        fs::write(from.join(std::ffi::OsStr::from_bytes(&vec![0xfc; length])), "x").unwrap();
    }
    let mut child = Command::new("tar")
        .args(["-x", "-f", "-", "-C"])
        .arg(&there)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&pack(&from)).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(snapshot(&from), snapshot(&there.join("from")));
}
