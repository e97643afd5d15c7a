//! Archives that want out, or want too much. None touches anything outside of the destination.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use creel_tree::{Complaint, EntryError, NameError, ReadError, UnpackError};
use proptest::prelude::*;
use tar::EntryType;

use crate::forge::Forge;
use crate::snapshot::snapshot;
use crate::{unpack, unpack_with_complaints};

fn forge() -> Forge {
    Forge::new()
}

/// By what it is refused.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Name(NameError),
    Target(NameError),
    ThroughLink,
    NoDirectory,
    Root,
    Kind,
    NoTarget,
    System(io::ErrorKind),
}

fn refused(error: UnpackError) -> Refused {
    match error {
        UnpackError::Name { reason, .. } => Refused::Name(reason),
        UnpackError::Target { reason, .. } => Refused::Target(reason),
        UnpackError::Root => Refused::Root,
        UnpackError::Complaint(Complaint::Kind { .. }) => Refused::Kind,
        UnpackError::Complaint(Complaint::NoTarget(_)) => Refused::NoTarget,
        UnpackError::Complaint(Complaint::Entry(error)) => match error {
            EntryError::ThroughLink { .. } => Refused::ThroughLink,
            EntryError::NoDirectory(_) => Refused::NoDirectory,
            EntryError::Failed { source, .. } => Refused::System(source.kind()),
            error => panic!("unexpected: {error}"),
        },
        error => panic!("unexpected: {error}"),
    }
}

#[test]
fn nothing_is_written_outside_of_the_destination() {
    let room = tempfile::tempdir().unwrap();
    let outside = room.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "alive").unwrap();
    let canary = outside.join("canary").display().to_string();
    let out = outside.display().to_string();
    let up = "../".repeat(30) + &canary[1..];
    let deep = "d/".repeat(600);
    let long = vec![b'n'; 5000];
    let cases: Vec<(&str, Forge, Refused)> = vec![
        ("absolute file", forge().file(&canary, b"dead"), Refused::Name(NameError::Absolute)),
        (
            "absolute by two slashes",
            forge().file(&format!("/{canary}"), b"dead"),
            Refused::Name(NameError::Absolute),
        ),
        (
            "absolute in records",
            forge().pax(&[("path", canary.as_bytes())]).file("x", b"dead"),
            Refused::Name(NameError::Absolute),
        ),
        (
            "absolute by a long name",
            forge().entry(EntryType::GNULongName, "l", "", canary.as_bytes()).file("x", b"dead"),
            Refused::Name(NameError::Absolute),
        ),
        (
            "absolute by the name of a sparse file",
            forge()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.realsize", b"0"),
                    ("GNU.sparse.name", canary.as_bytes()),
                ])
                .file("x", &{
                    let mut map = b"0\n".to_vec();
                    map.resize(512, 0);
                    map
                }),
            Refused::Name(NameError::Absolute),
        ),
        ("absolute directory", forge().directory(&format!("{out}/new")), Refused::Name(NameError::Absolute)),
        ("up", forge().file("../outside/canary", b"dead"), Refused::Name(NameError::Up)),
        ("up from within", forge().file("a/../../outside/canary", b"dead"), Refused::Name(NameError::Up)),
        ("far up", forge().pax(&[("path", up.as_bytes())]).file("x", b"dead"), Refused::Name(NameError::Up)),
        ("up and no further", forge().directory(".."), Refused::Name(NameError::Up)),
        ("empty", forge().file("", b"dead"), Refused::Name(NameError::Empty)),
        ("NUL", forge().pax(&[("path", b"a\0b")]).file("x", b"dead"), Refused::Name(NameError::Nul)),
        ("long", forge().pax(&[("path", &long)]).file("x", b""), Refused::Name(NameError::TooLong)),
        ("deep", forge().pax(&[("path", deep.as_bytes())]).file("x", b""), Refused::Name(NameError::TooDeep)),
        (
            "file through a link",
            forge().symlink("door", &out).file("door/canary", b"dead"),
            Refused::ThroughLink,
        ),
        (
            "file through a link upwards",
            forge().symlink("door", "../outside").file("door/canary", b"dead"),
            Refused::ThroughLink,
        ),
        (
            "file through a link to a link",
            forge().symlink("a", &out).symlink("b", "a").file("b/canary", b"dead"),
            Refused::ThroughLink,
        ),
        (
            "file through a link in a directory",
            forge().directory("d").symlink("d/door", "../../outside").file("d/door/canary", b"dead"),
            Refused::ThroughLink,
        ),
        (
            "directory through a link",
            forge().symlink("door", &out).directory("door/new"),
            Refused::ThroughLink,
        ),
        ("directory over a link", forge().symlink("door", &out).directory("door"), Refused::NoDirectory),
        (
            "link through a link",
            forge().symlink("door", &out).symlink("door/canary", "x"),
            Refused::ThroughLink,
        ),
        ("hard link to outside", forge().hard_link("mine", &canary), Refused::Target(NameError::Absolute)),
        ("hard link upwards", forge().hard_link("mine", "../outside/canary"), Refused::Target(NameError::Up)),
        (
            "hard link through a link",
            forge().symlink("door", &out).hard_link("mine", "door/canary"),
            Refused::ThroughLink,
        ),
        ("hard link to nothing", forge().hard_link("mine", ""), Refused::Target(NameError::Empty)),
        (
            "hard link to itself",
            forge().file("a", b"x").hard_link("a", "a"),
            Refused::System(io::ErrorKind::InvalidInput),
        ),
        (
            "hard link to what is not there",
            forge().hard_link("a", "b"),
            Refused::System(io::ErrorKind::NotFound),
        ),
        ("file through a file", forge().file("a", b"x").file("a/b", b"x"), Refused::NoDirectory),
        ("link without a target", forge().symlink("a", ""), Refused::NoTarget),
        ("block device", forge().entry(EntryType::Block, "sda", "", b""), Refused::Kind),
        ("character device", forge().entry(EntryType::Char, "null", "", b""), Refused::Kind),
        ("fifo", forge().entry(EntryType::Fifo, "fifo", "", b""), Refused::Kind),
        ("unknown kind", forge().entry(EntryType::new(b'Q'), "q", "", b""), Refused::Kind),
        ("the destination as a link", forge().symlink("./", &out), Refused::Root),
        ("the destination as a file", forge().file(".", b"dead"), Refused::Root),
    ];
    let before = snapshot(&outside);
    for (name, archive, expected) in cases {
        let into = room.path().join("into");
        fs::create_dir(&into).unwrap();
        let error = unpack(&archive.clone().end(), &into).unwrap_err();
        let text = error.to_string();
        assert_eq!(refused(error), expected, "{name}: {text}");
        assert!(!text.contains(['\n', '\0']) && text.len() < 2000, "{name}: {text}");
        // One who goes on past complaints gets no further.
        let _ = unpack_with_complaints(&archive.end(), &into);
        assert_eq!(snapshot(&outside), before, "{name}");
        fs::remove_dir_all(&into).unwrap();
        let left: Vec<_> = fs::read_dir(room.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["outside"], "{name}");
    }
}

#[test]
fn what_was_there_before_is_no_way_out_either() {
    let room = tempfile::tempdir().unwrap();
    let (outside, into) = (room.path().join("outside"), room.path().join("into"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&into).unwrap();
    fs::write(outside.join("canary"), "alive").unwrap();
    symlink(&outside, into.join("door")).unwrap();
    symlink(outside.join("canary"), into.join("file")).unwrap();
    fs::hard_link(outside.join("canary"), into.join("same")).unwrap();
    let before = snapshot(&outside);
    let archive = forge().file("door/canary", b"dead").file("file", b"new").file("same", b"new").end();
    let (unpacked, complaints) = unpack_with_complaints(&archive, &into);
    assert_eq!(unpacked.unwrap().files, 2);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("`door`, which is a symbolic link"), "{complaints:?}");
    // Replaced, not written through.
    assert_eq!(fs::read(into.join("file")).unwrap(), b"new");
    assert_eq!(fs::read(into.join("same")).unwrap(), b"new");
    assert_eq!(snapshot(&outside), before);
}

#[test]
fn nothing_gets_the_bits_that_lend_rights() {
    let into = tempfile::tempdir().unwrap();
    unpack(&forge().file("f", b"x").directory("d").end(), into.path()).unwrap();
    for name in ["f", "d"] {
        let mode = fs::metadata(into.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777, "{name}");
    }
}

/// Bytes without end, made as they are read.
struct Endless {
    first: Vec<u8>,
    again: Vec<u8>,
    at: usize,
    left: usize,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.first.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            (self.first, self.left, self.at) = (self.again.clone(), self.left - 1, 0);
        }
        let length = into.len().min(self.first.len() - self.at);
        into[..length].copy_from_slice(&self.first[self.at..self.at + length]);
        self.at += length;
        if self.at == self.first.len() {
            self.first = Vec::new();
            self.at = 0;
        }
        Ok(length)
    }
}

fn refused_as_broken(archive: impl Read) -> String {
    let into = tempfile::tempdir().unwrap();
    let destination = creel_tree::Destination::resolve(into.path()).unwrap();
    let error = creel_tree::unpack(archive, destination, &mut Err).unwrap_err();
    assert!(matches!(error, UnpackError::Read(_)), "{error}");
    assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0, "{error}");
    error.to_string()
}

/// Each would take 1 GiB of memory and more if it were believed.
#[test]
fn what_one_entry_takes_of_memory_is_bounded() {
    const HUGE: u64 = 1 << 40;
    let zeroes = || Endless { first: vec![0; 1 << 16], again: vec![0; 1 << 16], at: 0, left: 1 << 14 };
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        let header = forge().sized(kind, "x", "", HUGE, b"").cut();
        let error = refused_as_broken(header.chain(zeroes()));
        assert!(error.contains("over the limit"), "{error}");
    }
    // A map of GNU's pax format that goes on and on.
    let header = forge()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9000000000000000000")])
        .sized(EntryType::Regular, "x", "", HUGE, b"99999999999\n")
        .cut();
    let header = &header[..header.len() - 500];
    let lines: String = (0..1 << 20).map(|number| format!("{}\n512\n", number * 1024)).collect();
    let error = refused_as_broken(header.chain(lines.as_bytes()));
    assert!(error.contains("too many parts"), "{error}");
}

#[test]
fn broken_archives_are_named() {
    let mut wrong_sum = forge().file("a", b"x").file("b", b"x").end();
    wrong_sum[1024] ^= 1;
    let whole = forge().file("a", &[7; 2000]).end();
    let sparse = |records: &[(&str, &[u8])], map: &[u8]| {
        let mut map = map.to_vec();
        map.resize(1024, 0);
        forge().pax(records).file("x", &map).end()
    };
    let version_1: [(&str, &[u8]); 2] = [("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"100000")];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "cut short"),
        ("text", b"#!/bin/sh\n".repeat(100), "not a tar archive"),
        ("sum", wrong_sum, "checksum"),
        ("in a header", whole[..300].to_vec(), "cut short"),
        ("in the data", whole[..1500].to_vec(), "cut short"),
        ("in the padding", whole[..2520].to_vec(), "cut short"),
        ("before the end mark", forge().file("a", b"x").cut(), "cut short"),
        ("described is nothing", forge().pax(&[("path", b"a")]).end(), "describes no entry"),
        (
            "records",
            forge().entry(EntryType::XHeader, "x", "", b"12 path").file("a", b"").end(),
            "list of records",
        ),
        ("size in records", forge().pax(&[("size", b"-1")]).file("a", b"").end(), "size"),
        ("time in records", forge().pax(&[("mtime", b"soon")]).file("a", b"").end(), "mtime"),
        ("map without a size", sparse(&version_1[..1], b"0\n"), "no size"),
        ("map of words", sparse(&version_1, b"one\n"), "list of numbers"),
        ("map out of order", sparse(&version_1, b"2\n5000\n512\n1000\n512\n"), "overlap"),
        ("map out of the file", sparse(&version_1, b"1\n200000\n512\n"), "outside of the file"),
        ("map with an overflow", sparse(&version_1, b"1\n18446744073709551615\n512\n"), "overlap"),
        ("map without data", sparse(&version_1, b"1\n0\n4096\n"), "does not fit"),
        (
            "another version",
            sparse(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9")], b""),
            "sparse-version",
        ),
    ];
    for (name, archive, expected) in cases {
        let into = tempfile::tempdir().unwrap();
        let error = unpack(&archive, into.path()).unwrap_err();
        assert!(matches!(error, UnpackError::Read(_)), "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
        let half = fs::metadata(into.path().join("x")).is_ok();
        assert!(!half, "{name}: a part of a file was left behind");
    }
}

/// A file of which the archive ends too early must not look like a whole one.
#[test]
fn a_file_that_is_cut_is_removed_and_those_before_stay() {
    let into = tempfile::tempdir().unwrap();
    let archive = forge().file("first", b"1").directory("d").file("d/second", &[2; 100_000]).cut();
    let error = unpack(&archive[..archive.len() - 5000], into.path()).unwrap_err();
    assert!(matches!(error, UnpackError::Read(ReadError::Cut)));
    assert_eq!(fs::read(into.path().join("first")).unwrap(), b"1");
    assert_eq!(fs::read_dir(into.path().join("d")).unwrap().count(), 0);
    // The directory is as the archive has it nevertheless.
    let mode = fs::metadata(into.path().join("d")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o777);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Honest archives with some bytes changed, and their sums mended: nothing panics and nothing gets out.
    #[test]
    fn any_damage_stays_inside(changes in proptest::collection::vec((0..6000usize, any::<u8>()), 1..20)) {
        let room = tempfile::tempdir().unwrap();
        let into = room.path().join("into");
        fs::create_dir(&into).unwrap();
        let mut archive = forge()
            .directory("d")
            .pax(&[("path", b"d/long"), ("mtime", b"1.5")])
            .file("x", b"content")
            .symlink("l", "d")
            .hard_link("h", "d/long")
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"4096"), ("GNU.sparse.name", b"s")])
            .file("x", &[&b"1\n512\n512\n"[..], &[0; 1014]].concat())
            .end();
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
            let header = at / 512 * 512;
            let block = &mut archive[header..header + 512];
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let _ = unpack_with_complaints(&archive, &into);
        prop_assert_eq!(fs::read_dir(room.path()).unwrap().count(), 1);
    }
}
