//! The source disk, played by a file.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use creel_proto::Payload;
use creel_proto::agent::{SourceUnpack, SourceUnpackResult};
use creel_proto::names::ids;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::host::{Host, Session, ids_of_user, user};

/// A tar archive being made, honest or not.
struct Disk {
    directory: TempDir,
    archive: Builder<Vec<u8>>,
}

impl Disk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), archive: Builder::new(Vec::new()) }
    }

    /// `path` goes into the header as it is: the library would refuse to write what is to be refused here.
    fn entry(&mut self, kind: EntryType, path: &str, target: &str, mode: u32, content: &[u8]) -> &mut Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.archive.append(&header, content).unwrap();
        self
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(EntryType::Regular, path, "", mode, content)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn write(&mut self) -> PathBuf {
        let mut disk = File::create(self.path()).unwrap();
        disk.write_all(&self.archive.get_ref().clone()).unwrap();
        // A disk is longer than what is on it.
        disk.write_all(&[0; 4096]).unwrap();
        self.path()
    }
}

async fn start(disk: &Path) -> (Host, Session) {
    let host = Host::start_with(&[("CREEL_SOURCE_DISK", disk)]);
    let session = host.accept().await;
    (host, session)
}

async fn unpack(session: &mut Session, destination: &Path) -> SourceUnpackResult {
    let destination = destination.to_str().unwrap().to_owned();
    session.send(ids::SOURCE, SourceUnpack { destination, user: user() }).await;
    match session.receive().await.payload {
        Payload::SourceUnpackResult(result) => result,
        other => panic!("unexpected {}", other.name()),
    }
}

#[tokio::test]
async fn a_tree_arrives_whole_and_belongs_to_the_user() {
    let mut disk = Disk::new();
    let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(120));
    disk.entry(EntryType::XGlobalHeader, "pax_global_header", "", 0o644, b"16 comment=abcd\n")
        .entry(EntryType::Directory, "./", "", 0o755, b"")
        .entry(EntryType::Directory, "locked/", "", 0o555, b"")
        .file("locked/inside", 0o640, b"in a read-only directory")
        .file("no/directory/entry", 0o644, b"x")
        .file("run.sh", 0o6755, b"#!/bin/sh\n")
        .entry(EntryType::Symlink, "link", "/etc/passwd", 0o777, b"")
        .entry(EntryType::Link, "hard", "run.sh", 0o755, b"");
    let mut header = Header::new_gnu();
    header.set_mode(0o600);
    header.set_size(4);
    disk.archive.append_data(&mut header, &long, &b"long"[..]).unwrap();
    let (host, mut session) = start(&disk.write()).await;
    let root = host.writable("work").join("repo");
    let result = unpack(&mut session, &root).await;
    assert_eq!(result, SourceUnpackResult { error: String::new(), files: 6, bytes: 24 + 1 + 10 + 4 });

    let meta = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(fs::read(root.join("locked/inside")).unwrap(), b"in a read-only directory");
    assert_eq!(fs::read(root.join(&long)).unwrap(), b"long");
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(meta("hard").ino(), meta("run.sh").ino());
    assert_eq!(meta("locked").mode() & 0o7777, 0o555);
    assert_eq!(meta("locked/inside").mode() & 0o7777, 0o640);
    assert_eq!(meta("run.sh").mode() & 0o7777, 0o755);
    for path in ["locked", "locked/inside", "run.sh", "link"] {
        assert_eq!(meta(path).mtime(), 1_600_000_000, "{path}");
    }
    for path in ["", "locked", "locked/inside", "no", "no/directory", "run.sh", "link"] {
        assert_eq!((meta(path).uid(), meta(path).gid()), ids_of_user(), "{path}");
    }
    // So that the temporary directory can be removed by one who is not root.
    fs::set_permissions(root.join("locked"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_second_unpacking_replaces_the_first() {
    let mut disk = Disk::new();
    disk.file("a", 0o444, b"from the disk").entry(EntryType::Symlink, "b", "a", 0o777, b"");
    let (host, mut session) = start(&disk.write()).await;
    let root = host.writable("repo");
    assert_eq!(unpack(&mut session, &root).await.error, "");
    assert_eq!(unpack(&mut session, &root).await.error, "");
    assert_eq!(fs::read(root.join("b")).unwrap(), b"from the disk");
}

#[tokio::test]
async fn nothing_hostile_gets_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let victim = outside.path().join("victim");
    let out = outside.path().to_str().unwrap();
    fs::write(&victim, "untouched").unwrap();
    fs::set_permissions(&victim, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();

    type Make = fn(&mut Disk, &str);
    let cases: [(&str, &str, Make); 9] = [
        ("absolute", "outside of the destination", |disk, out| {
            disk.file(&format!("{out}/new"), 0o644, b"x");
        }),
        ("dotdot", "outside of the destination", |disk, _| {
            disk.file("a/../../new", 0o644, b"x");
        }),
        ("through a link", "links are never followed", |disk, out| {
            disk.entry(EntryType::Symlink, "door", out, 0o777, b"").file("door/new", 0o644, b"x");
        }),
        ("through a link inside", "links are never followed", |disk, _| {
            disk.entry(EntryType::Symlink, "door", "..", 0o777, b"").file("door/new", 0o644, b"x");
        }),
        ("directory over a link", "should be a directory", |disk, out| {
            disk.entry(EntryType::Symlink, "door", out, 0o777, b"").entry(
                EntryType::Directory,
                "door/",
                "",
                0,
                b"",
            );
        }),
        ("hard link to outside", "outside of the destination", |disk, out| {
            disk.entry(EntryType::Link, "hard", &format!("{out}/victim"), 0o644, b"")
                .file("hard", 0o644, b"x");
        }),
        ("hard link through a link", "links are never followed", |disk, out| {
            disk.entry(EntryType::Symlink, "door", out, 0o777, b"").entry(
                EntryType::Link,
                "hard",
                "door/victim",
                0o644,
                b"",
            );
        }),
        ("device", "only files, directories and links", |disk, _| {
            disk.entry(EntryType::Block, "device", "", 0o666, b"");
        }),
        ("the destination as a file", "can only be a directory", |disk, _| {
            disk.entry(EntryType::Symlink, "./", out_of_reach(), 0o777, b"");
        }),
    ];
    for (name, reason, make) in cases {
        let mut disk = Disk::new();
        make(&mut disk, out);
        let (host, mut session) = start(&disk.write()).await;
        let work = host.writable("work");
        let result = unpack(&mut session, &work.join("repo")).await;
        assert!(result.error.contains(reason), "{name}: {}", result.error);
        let left: Vec<_> = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["repo"], "{name}");
        let outside: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["victim"], "{name}");
        assert_eq!(fs::read(&victim).unwrap(), b"untouched", "{name}");
    }
}

fn out_of_reach() -> &'static str {
    "/etc"
}

#[tokio::test]
async fn a_file_written_over_a_link_replaces_the_link() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let mut disk = Disk::new();
    disk.entry(EntryType::Symlink, "a", victim.to_str().unwrap(), 0o777, b"").file("a", 0o644, b"new");
    let (host, mut session) = start(&disk.write()).await;
    let root = host.writable("repo");
    assert_eq!(unpack(&mut session, &root).await.error, "");
    assert_eq!(fs::read(root.join("a")).unwrap(), b"new");
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
}

#[tokio::test]
async fn a_destination_that_is_a_link_is_refused() {
    let mut disk = Disk::new();
    disk.file("a", 0o644, b"x");
    let (host, mut session) = start(&disk.write()).await;
    let work = host.writable("work");
    let elsewhere = host.writable("elsewhere");
    symlink(&elsewhere, work.join("repo")).unwrap();
    let result = unpack(&mut session, &work.join("repo")).await;
    assert!(result.error.contains("failed to open destination"), "{}", result.error);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let mut disk = Disk::new();
    disk.file("a", 0o644, &[7; 9000]);
    let whole = fs::read(disk.write()).unwrap();
    fs::write(disk.path(), &whole[..5000]).unwrap();
    let (host, mut session) = start(&disk.path()).await;
    let work = host.writable("work");
    let cut = unpack(&mut session, &work.join("repo")).await;
    assert!(!cut.error.is_empty() && cut.files == 0, "{cut:?}");
    let nowhere = unpack(&mut session, &work.join("no/such/parent")).await;
    assert!(nowhere.error.contains("no/such/parent"), "{}", nowhere.error);
    let relative = unpack(&mut session, Path::new("repo")).await;
    assert!(relative.error.contains("absolute path"), "{}", relative.error);
    fs::remove_file(disk.path()).unwrap();
    let gone = unpack(&mut session, &work.join("repo")).await;
    assert!(gone.error.contains("failed to open source disk"), "{}", gone.error);

    session.send(ids::SOURCE, SourceUnpack { destination: "/tmp/x".into(), user: "root".into() }).await;
    match session.receive().await.payload {
        Payload::SourceUnpackResult(result) => assert!(result.error.contains("never run as root")),
        other => panic!("unexpected {}", other.name()),
    }
}
