//! Any tree arrives as it was.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::snapshot::{Kind, snapshot};
use crate::{pack, unpack};

#[derive(Debug, Clone)]
enum Node {
    File { parts: Vec<(u64, Vec<u8>)>, size: u64, mode: u32, again: Option<Vec<u8>> },
    Directory { mode: u32, children: Vec<Named> },
    Symlink(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Named {
    name: Vec<u8>,
    modified: (i64, i64),
    node: Node,
}

/// Any bytes but NUL and the slash, also more than a header holds.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if matches!(byte, 0 | b'/') { b'n' } else { byte });
    let bytes = prop_oneof![
        4 => proptest::collection::vec(byte.clone(), 1..12),
        1 => proptest::collection::vec(byte, 90..255),
        4 => "[a-z\n ]{1,5}".prop_map(String::into_bytes),
    ];
    bytes.prop_filter("a name", |name| name != b"." && name != b"..")
}

fn node() -> impl Strategy<Value = Node> {
    let part = (0..9u64, proptest::collection::vec(any::<u8>(), 1..5000));
    let file =
        (proptest::collection::vec(part, 0..4), 0..9000u64, 0..0o1000u32, proptest::option::of(name()))
            .prop_map(|(parts, tail, mode, again)| {
                let mut end = 0;
                let mut placed = Vec::new();
                for (gap, bytes) in parts {
                    let start = end + gap * 32 * 1024;
                    end = start + bytes.len() as u64;
                    placed.push((start, bytes));
                }
                Node::File { parts: placed, size: end + tail, mode, again }
            });
    let link = proptest::collection::vec(1..255u8, 1..150).prop_map(Node::Symlink);
    let leaf = prop_oneof![3 => file, 1 => link];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let child = named(inner);
        (0..0o1000u32, proptest::collection::vec(child, 0..6))
            .prop_map(|(mode, children)| Node::Directory { mode, children })
    })
}

fn named(node: impl Strategy<Value = Node>) -> impl Strategy<Value = Named> {
    let time = (-(1i64 << 33)..(1i64 << 34), prop_oneof![Just(0), 0..1_000_000_000i64]);
    (name(), time, node).prop_map(|(name, modified, node)| Named { name, modified, node })
}

fn path(parent: &Path, name: &[u8]) -> PathBuf {
    parent.join(OsString::from_vec(name.to_vec()))
}

/// Makes it where its name is free.
fn make(parent: &Path, named: &Named) {
    let here = path(parent, &named.name);
    if here.symlink_metadata().is_ok() {
        return;
    }
    let mut mode_of = None;
    match &named.node {
        Node::File { parts, size, mode, again } => {
            let file = File::create_new(&here).unwrap();
            for (start, bytes) in parts {
                file.write_all_at(bytes, *start).unwrap();
            }
            file.set_len(*size).unwrap();
            // What can't be read can't be packed either, but by root.
            mode_of = Some(mode | 0o400);
            if let Some(again) = again {
                // Its name may be taken.
                let _ = fs::hard_link(&here, path(parent, again));
            }
        }
        Node::Directory { mode, children } => {
            fs::create_dir(&here).unwrap();
            children.iter().for_each(|child| make(&here, child));
            mode_of = Some(mode | 0o500);
        }
        Node::Symlink(target) => symlink(OsString::from_vec(target.clone()), &here).unwrap(),
    }
    if let Some(mode) = mode_of {
        fs::set_permissions(&here, Permissions::from_mode(mode)).unwrap();
    }
    let time = Timespec { tv_sec: named.modified.0, tv_nsec: named.modified.1 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, &here, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// So that the directory can be removed by one who is not root.
fn open_up(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            open_up(&entry.unwrap().path());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_arrives_as_it_was(children in proptest::collection::vec(named(node()), 0..6)) {
        let directory = tempfile::tempdir().unwrap();
        let (from, into) = (directory.path().join("from"), directory.path().join("into"));
        fs::create_dir(&from).unwrap();
        children.iter().for_each(|child| make(&from, child));
        let before = snapshot(&from);

        let archive = pack(&from);
        let unpacked = unpack(&archive, &into).unwrap();
        let after = snapshot(&into);
        prop_assert_eq!(&before, &after);
        let files = before.values().filter(|seen| seen.kind != Kind::Directory).count();
        prop_assert_eq!(unpacked.files, files as u64);
        prop_assert_eq!(unpacked.directories, (before.len() - files) as u64);

        // Over itself nothing changes either.
        unpack(&archive, &into.join("..")).unwrap();
        unpack(&pack(&into), directory.path()).unwrap();
        prop_assert_eq!(&before, &snapshot(&into));
        for root in [&from, &into] {
            open_up(root);
        }
    }
}
