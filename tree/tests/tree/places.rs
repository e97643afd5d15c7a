//! What a path names, and where things go: as with `cp` and `docker cp`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use creel_tree::{Destination, DestinationError, Source, SourceError, UnpackError};

use crate::forge::Forge;
use crate::{pack, unpack, unpack_with_complaints};

/// The paths in an archive, in order of the alphabet.
fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap()).collect();
    names.sort();
    names
}

fn room() -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    fs::create_dir_all(room.path().join("tree/sub")).unwrap();
    fs::write(room.path().join("tree/file"), "content").unwrap();
    symlink("tree", room.path().join("link")).unwrap();
    symlink("tree/file", room.path().join("file-link")).unwrap();
    symlink("nowhere", room.path().join("dangling")).unwrap();
    room
}

#[test]
fn an_archive_is_named_as_its_path_ends() {
    let room = room();
    let at = |path: &str| names(&pack(Path::new(&format!("{}/{path}", room.path().display()))));
    assert_eq!(at("tree"), ["tree/", "tree/file", "tree/sub/"]);
    assert_eq!(at("tree/"), ["tree/", "tree/file", "tree/sub/"]);
    assert_eq!(at("tree/."), ["./", "file", "sub/"]);
    assert_eq!(at("tree/sub/.."), ["./", "file", "sub/"]);
    assert_eq!(at("tree/file"), ["file"]);
    assert_eq!(at("link"), ["link"]);
    assert_eq!(at("link/"), ["link/", "link/file", "link/sub/"]);
    assert_eq!(at("link/."), ["./", "file", "sub/"]);
    assert_eq!(at("link/file"), ["file"]);
    assert_eq!(at("dangling"), ["dangling"]);
}

#[test]
fn a_source_that_cannot_be_says_why() {
    let room = room();
    let at = |path: &str, follow| {
        let path = format!("{}/{path}", room.path().display());
        Source::open(Path::new(&path), follow).map(|source| source.called().map(ToOwned::to_owned))
    };
    assert!(matches!(at("nowhere", false), Err(SourceError::Missing(_))));
    assert!(matches!(at("dangling", true), Err(SourceError::Missing(_))));
    assert!(matches!(at("dangling/", false), Err(SourceError::Missing(_))));
    assert!(matches!(at("tree/file/below", false), Err(SourceError::NotADirectory(_))));
    assert!(matches!(at("tree/file/.", false), Err(SourceError::NotADirectory(_))));
    assert_eq!(at("file-link", true).unwrap().unwrap(), "file-link");
    assert_eq!(at("tree/file/", false).unwrap().unwrap(), "file");
    assert_eq!(at("tree/.", true).unwrap(), None);
    assert!(Source::open(Path::new("."), false).unwrap().called().is_none());
    assert!(Source::open(Path::new("/"), false).unwrap().called().is_none());
}

#[test]
fn a_followed_link_is_what_it_points_to() {
    let room = room();
    let mut archive = Vec::new();
    let source = Source::open(&room.path().join("file-link"), true).unwrap();
    creel_tree::pack(&source, &mut archive, &mut Err).unwrap();
    let into = room.path().join("copy");
    unpack(&archive, &into).unwrap();
    assert!(into.symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(&into).unwrap(), b"content");
}

#[test]
fn a_destination_is_a_directory_or_a_new_name() {
    let room = room();
    let root = room.path();
    let (file, tree, contents) =
        (pack(&root.join("tree/file")), pack(&root.join("tree")), pack(&root.join("tree/.")));
    let at = |path: &str| root.join(path);
    let content = |path: &str| fs::read_to_string(at(path)).unwrap();

    // Not there: the new name.
    unpack(&file, &at("renamed")).unwrap();
    assert_eq!(content("renamed"), "content");
    unpack(&tree, &at("copy")).unwrap();
    assert_eq!(content("copy/file"), "content");
    unpack(&contents, &at("contents")).unwrap();
    assert_eq!(content("contents/file"), "content");
    // A file: replaced. A link to nothing too.
    fs::write(at("old"), "a longer content").unwrap();
    unpack(&file, &at("old")).unwrap();
    assert_eq!(content("old"), "content");
    unpack(&file, &at("dangling")).unwrap();
    assert!(at("dangling").symlink_metadata().unwrap().is_file());
    // A directory, or a link to one: below it.
    fs::create_dir(at("there")).unwrap();
    symlink("there", at("to-there")).unwrap();
    for path in ["there", "there/", "to-there", "to-there/"] {
        unpack(&tree, &at(path)).unwrap();
        unpack(&contents, &at(path)).unwrap();
        assert_eq!(content("there/tree/file"), "content", "{path}");
        assert_eq!(content("there/file"), "content", "{path}");
        fs::remove_dir_all(at("there")).unwrap();
        fs::create_dir(at("there")).unwrap();
    }
}

#[test]
fn a_destination_that_cannot_be_says_why() {
    let room = room();
    let at = |path: &str| Destination::resolve(Path::new(&format!("{}/{path}", room.path().display())));
    assert!(matches!(at("new/"), Err(DestinationError::NoDirectory(_))));
    assert!(matches!(at("tree/file/"), Err(DestinationError::NotADirectory(_))));
    assert!(matches!(at("no/such"), Err(DestinationError::NoParent(_))));
    assert!(matches!(at("tree/file/below"), Err(DestinationError::Open { .. })));
    assert_eq!(at("new").unwrap().rename().unwrap(), "new");
    assert!(at("tree").unwrap().rename().is_none());
    let made = room.path().join("made/with/parents");
    assert!(Destination::directory(&made).unwrap().rename().is_none() && made.is_dir());
    assert!(Destination::directory(&room.path().join("tree/file")).is_err());
    assert!(Destination::own_directory(&room.path().join("link")).is_err());
    assert!(Destination::own_directory(&room.path().join("no/parent")).is_err());
    assert!(Destination::own_directory(&room.path().join("own")).is_ok());
}

#[test]
fn a_new_name_takes_one_top_entry_alone() {
    let room = room();
    let into = room.path().join("new");
    let error = unpack(&Forge::new().file("a", b"1").file("b", b"2").end(), &into).unwrap_err();
    assert!(matches!(error, UnpackError::SeveralTops { .. }));
    assert!(error.to_string().contains("`a` and `b`"), "{error}");
    fs::remove_file(&into).unwrap();
    // Hard links go with it, and a top that is only implied is one too.
    unpack(&Forge::new().file("a/b", b"1").hard_link("a/c", "a/b").end(), &into).unwrap();
    assert_eq!(fs::read(into.join("c")).unwrap(), b"1");
    let outward = Forge::new().file("a/b", b"1").hard_link("a/d", "tree/file").end();
    assert!(matches!(unpack(&outward, &into.join("x")).unwrap_err(), UnpackError::SeveralTops { .. }));
}

#[test]
fn what_does_not_fit_is_told_and_the_rest_goes_on() {
    let room = room();
    let into = room.path().join("into");
    fs::create_dir_all(into.join("should-be-a-file/full")).unwrap();
    fs::write(into.join("should-be-a-directory"), "in the way").unwrap();
    let archive = Forge::new()
        .file("should-be-a-file", b"x")
        .directory("should-be-a-directory")
        .file("should-be-a-directory/file", b"x")
        .file("last", b"there")
        .end();
    let (unpacked, complaints) = unpack_with_complaints(&archive, &into);
    let unpacked = unpacked.unwrap();
    assert_eq!((unpacked.files, unpacked.complaints), (1, 3));
    assert!(complaints[0].contains("`should-be-a-file` is a directory"), "{complaints:?}");
    assert!(complaints[1].contains("`should-be-a-directory` should be a directory"), "{complaints:?}");
    assert_eq!(fs::read(into.join("last")).unwrap(), b"there");
    assert_eq!(fs::read(into.join("should-be-a-directory")).unwrap(), b"in the way");
    assert!(into.join("should-be-a-file/full").is_dir());
}

/// The directory's mode and time come last, in whatever order its entries are.
#[test]
fn directories_are_as_they_were_whatever_comes_when() {
    let room = room();
    let into = room.path().join("into");
    fs::create_dir(&into).unwrap();
    let archive = Forge::new()
        .directory("a")
        .directory("b")
        .file("a/1", b"x")
        .file("b/1", b"x")
        .file("a/2", b"x")
        .end();
    unpack(&archive, &into).unwrap();
    for name in ["a", "b"] {
        let metadata = fs::metadata(into.join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o777);
        assert_eq!(
            metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
            1_600_000_000
        );
    }
}

#[test]
fn nothing_is_read_behind_the_end_mark() {
    let room = room();
    let mut archive = pack(&room.path().join("tree/file"));
    let length = archive.len();
    archive.extend_from_slice(&[1; 5000]);
    let mut rest = &archive[..];
    creel_tree::unpack(&mut rest, Destination::resolve(&room.path().join("copy")).unwrap(), &mut Err)
        .unwrap();
    // The mark is two blocks, of which the first is enough.
    assert_eq!(rest.len(), archive.len() - length + 512);
}
