//! Trees that change under the packer, and things that it does not pack: the archive is whole in every case.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use creel_tree::{PackError, Source};

use crate::{pack_with_complaints, unpack};

/// A sink that does something once so many bytes have come.
struct Trap<F: FnMut()> {
    archive: Vec<u8>,
    at: usize,
    action: Option<F>,
}

impl<F: FnMut()> Write for Trap<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.archive.extend_from_slice(bytes);
        if self.archive.len() >= self.at
            && let Some(mut action) = self.action.take()
        {
            action();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs, and changes something once the first buffer has been written. Returns the archive and the complaints.
fn pack_meanwhile(root: &Path, action: impl FnMut()) -> (Vec<u8>, Vec<String>) {
    let mut complaints = Vec::new();
    let mut tell = |complaint: creel_tree::PackComplaint| {
        complaints.push(complaint.to_string());
        Ok(())
    };
    let mut trap = Trap { archive: Vec::new(), at: 1, action: Some(action) };
    creel_tree::pack(&Source::open(root, false).unwrap(), &mut trap, &mut tell).unwrap();
    assert!(trap.action.is_none(), "nothing has changed");
    (trap.archive, complaints)
}

fn big(root: &Path) -> PathBuf {
    let path = root.join("big");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    path
}

#[test]
fn a_file_that_shrinks_is_filled_up() {
    let room = tempfile::tempdir().unwrap();
    let (from, into) = (room.path().join("from"), room.path().join("into"));
    fs::create_dir(&from).unwrap();
    let path = big(&from);
    let (archive, complaints) =
        pack_meanwhile(&from, || File::options().write(true).open(&path).unwrap().set_len(500_000).unwrap());
    assert_eq!(complaints, ["`from/big` shrank to 500000 bytes while it was read; the rest are zeroes"]);
    unpack(&archive, &into).unwrap();
    let content = fs::read(into.join("big")).unwrap();
    assert_eq!(content.len(), 1 << 20);
    assert!(
        content[..500_000].iter().all(|byte| *byte == 7) && content[500_000..].iter().all(|byte| *byte == 0)
    );
}

#[test]
fn a_file_that_grows_or_is_written_to_is_told() {
    let room = tempfile::tempdir().unwrap();
    let (from, into) = (room.path().join("from"), room.path().join("into"));
    fs::create_dir(&from).unwrap();
    let path = big(&from);
    let (archive, complaints) = pack_meanwhile(&from, || {
        File::options().append(true).open(&path).unwrap().write_all(&[8; 5000]).unwrap();
    });
    assert_eq!(complaints, ["`from/big` changed while it was read"]);
    unpack(&archive, &into).unwrap();
    assert_eq!(fs::read(into.join("big")).unwrap(), vec![7; 1 << 20]);
}

#[test]
fn a_directory_that_vanishes_takes_nothing_else_with_it() {
    let room = tempfile::tempdir().unwrap();
    let (from, into) = (room.path().join("from"), room.path().join("into"));
    // Read in any order: the other one goes while the first is read.
    let directories = [from.join("a"), from.join("b")];
    for directory in &directories {
        fs::create_dir_all(directory).unwrap();
        big(directory);
    }
    let (archive, complaints) = pack_meanwhile(&from, || {
        let _ = fs::remove_dir_all(&directories[0]);
    });
    unpack(&archive, &into).unwrap();
    assert_eq!(fs::read(into.join("b/big")).unwrap(), vec![7; 1 << 20]);
    assert!(complaints.len() <= 1, "{complaints:?}");
}

#[test]
fn what_is_no_file_is_left_out_and_told() {
    let room = tempfile::tempdir().unwrap();
    let (from, into) = (room.path().join("from"), room.path().join("into"));
    fs::create_dir(&from).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    fs::write(from.join("file"), "kept").unwrap();
    let (archive, packed, mut complaints) = pack_with_complaints(&from);
    complaints.sort();
    assert_eq!(
        complaints,
        ["`from/fifo` is a fifo; it was left out", "`from/socket` is a socket; it was left out"]
    );
    assert_eq!((packed.files, packed.directories, packed.bytes), (1, 1, 4));
    unpack(&archive, &into).unwrap();
    let names: Vec<_> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
}

#[test]
fn what_cannot_be_read_is_left_out_and_told() {
    let room = tempfile::tempdir().unwrap();
    let (from, into) = (room.path().join("from"), room.path().join("into"));
    fs::create_dir_all(from.join("closed")).unwrap();
    fs::write(from.join("closed/inside"), "x").unwrap();
    fs::write(from.join("secret"), "x").unwrap();
    fs::write(from.join("file"), "kept").unwrap();
    for path in [&from, room.path(), &from.join("file")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["closed", "secret"] {
        fs::set_permissions(from.join(name), Permissions::from_mode(0o000)).unwrap();
    }
    let (archive, _, mut complaints) = without_rights(|| pack_with_complaints(&from));
    complaints.sort();
    assert!(complaints[0].starts_with("`from/secret` can't be read: Permission denied"), "{complaints:?}");
    assert!(complaints[1].starts_with("directory `from/closed` can't be read"), "{complaints:?}");
    assert_eq!(complaints.len(), 2);
    unpack(&archive, &into).unwrap();
    assert_eq!(fs::read(into.join("file")).unwrap(), b"kept");
    assert!(into.join("closed").symlink_metadata().unwrap().is_dir());
    for root in [&from, &into] {
        fs::set_permissions(root.join("closed"), Permissions::from_mode(0o755)).unwrap();
    }
}

/// Runs it in a thread that has given up what root may do with files.
fn without_rights<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
                .unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_tree_that_is_too_deep_is_cut_and_told() {
    let room = tempfile::tempdir().unwrap();
    let from = room.path().join("from");
    fs::create_dir(&from).unwrap();
    let mut directory = rustix::fs::open(&from, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..600 {
        rustix::fs::mkdirat(&directory, "d", rustix::fs::Mode::RWXU).unwrap();
        directory =
            rustix::fs::openat(&directory, "d", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    let (archive, packed, complaints) = pack_with_complaints(&from);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("too deep"), "{complaints:?}");
    assert_eq!(packed.directories, creel_tree::MAX_DEPTH as u64);
    assert_eq!(unpack(&archive, &room.path().join("into")).unwrap().directories, packed.directories);
}

#[test]
fn a_sink_that_fails_ends_it() {
    let room = tempfile::tempdir().unwrap();
    let path = big(room.path());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = creel_tree::pack(&Source::open(&path, false).unwrap(), full, &mut Err).unwrap_err();
    assert!(
        matches!(&error, PackError::Write(error) if error.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
}
