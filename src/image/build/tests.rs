use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree::{Node, Tree};
use super::*;
use crate::image::kit::Kit;
use crate::image::store::ImageStore;
use crate::image::testing::{can_build, files_below, kit_in};

fn build(kit: &Kit, root: &Path, options: &TinyOptions) -> (Built, Vec<BuildEvent>) {
    let store = ImageStore::new(vec![root.to_owned()]);
    let mut events = Vec::new();
    let built = build_tiny(kit, &store, options, &mut |event| events.push(event)).expect("built");
    (built, events)
}

/// Unpacks a disk with the packer's own checker; `None`, with the reason, where it can't.
fn unpack(disk: &Path, into: &Path) -> Option<()> {
    let extract = format!("--extract={}", into.display());
    match Command::new("fsck.erofs").arg(extract).arg("--preserve-perms").arg(disk).output() {
        Ok(output) if output.status.success() => Some(()),
        other => {
            eprintln!("skipped: fsck.erofs can't unpack: {other:?}");
            None
        }
    }
}

#[test]
fn two_builds_in_two_places_are_the_same_bytes() {
    if !can_build() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(&directory.path().join("kit"));
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let (first, events) = build(&kit, &one, &TinyOptions::default());
    let (second, _) = build(&kit, &two, &TinyOptions::default());
    assert_eq!(first.image.digest, second.image.digest);
    let files = files_below(&first.image.directory);
    assert_eq!(
        files.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>(),
        [Path::new("initrd"), Path::new("spec.json"), Path::new("store.erofs"), Path::new("vmlinux")]
    );
    assert!(files == files_below(&second.image.directory));
    assert!(matches!(events.first(), Some(BuildEvent::Hashed { .. })));
    assert!(matches!(events.last(), Some(BuildEvent::Stored { .. })));
}

#[test]
fn the_same_inputs_are_built_once_and_others_again() {
    if !can_build() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(&directory.path().join("kit"));
    let root = directory.path().join("images");
    let (first, _) = build(&kit, &root, &TinyOptions::default());
    let (again, events) =
        build(&kit, &root, &TinyOptions { name: "other".to_owned(), ..TinyOptions::default() });
    assert!(!first.cached && again.cached, "the name is no input");
    assert_eq!((again.image.name.as_str(), &again.image.digest), ("other", &first.image.digest));
    assert!(matches!(events.last(), Some(BuildEvent::Cached { .. })));

    let larger = TinyOptions { memory_mib: 512, ..TinyOptions::default() };
    let (changed, _) = build(&kit, &root, &larger);
    assert!(!changed.cached, "options are inputs");
    assert_eq!(changed.image.spec.memory_mib, 512);
    fs::write(&kit.agent, "another agent").expect("writable");
    let (changed, _) = build(&kit, &root, &larger);
    assert!(!changed.cached, "the kit is an input");
}

#[test]
fn the_spec_says_how_to_boot_it() {
    if !can_build() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(&directory.path().join("kit"));
    let options = TinyOptions { init: Some("/sbin/init".to_owned()), ..TinyOptions::default() };
    let (built, _) = build(&kit, &directory.path().join("images"), &options);
    let spec = built.image.spec;
    assert_eq!(
        spec.boot_args,
        "earlyprintk=ttyS0 console=hvc0 reboot=t panic=-1 quiet creel.root=erofs creel.volumes=/workspace creel.init=/sbin/init"
    );
    assert_eq!(spec.volumes[0].mount_point, "/workspace");
    assert!([&spec.kernel, &spec.initrd, &spec.store_disk].into_iter().all(|path| path.is_file()));
}

#[test]
fn an_overlay_keeps_its_modes_set_id_included() {
    if !can_build() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(&directory.path().join("kit"));
    let overlay = directory.path().join("overlay");
    fs::create_dir_all(overlay.join("usr/bin")).expect("room");
    fs::create_dir_all(overlay.join("tmp")).expect("room");
    fs::write(overlay.join("usr/bin/rootly"), "#!/bin/sh\n").expect("room");
    fs::set_permissions(overlay.join("usr/bin/rootly"), fs::Permissions::from_mode(0o4755)).expect("ours");
    // In the place of one of busybox's names.
    fs::write(overlay.join("usr/bin/awk"), "mine").expect("room");
    symlink("rootly", overlay.join("usr/bin/alias")).expect("room");
    let options = TinyOptions { overlay: Some(overlay), ..TinyOptions::default() };
    let (built, _) = build(&kit, &directory.path().join("images"), &options);

    let out = directory.path().join("out");
    if unpack(&built.image.spec.store_disk, &out).is_none() {
        return;
    }
    let mode = |path: &str| out.join(path).metadata().expect("in the image").permissions().mode() & 0o7777;
    assert_eq!(fs::read_to_string(out.join("usr/bin/awk")).expect("replaced"), "mine");
    assert_eq!(fs::read_link(out.join("usr/bin/alias")).expect("a link"), Path::new("rootly"));
    assert_eq!(fs::read_link(out.join("bin/sh")).expect("a link"), Path::new("/bin/busybox"));
    assert_eq!(mode("tmp"), 0o1777, "a directory of the base keeps its mode");
    assert_eq!(fs::read(out.join("usr/lib/creel/creel-agent")).expect("there"), b"agent");
    let passwd = fs::read_to_string(out.join("etc/passwd")).expect("there");
    assert!(passwd.contains("spindle-workflow:x:970:970:workflow:/workspace:/bin/sh"), "{passwd}");
    // What unpacks may drop set-id bits of files it can't own; the disk itself has them.
    assert_eq!(inode_of(&built.image.spec.store_disk, "/usr/bin/rootly"), Some((0o104_755, 0, 0)));
}

/// Mode, uid and gid of a file in an EROFS image, read from its compact inode (`fs/erofs/erofs_fs.h`), whose number
/// dump.erofs knows; it does not show the set-id bits itself.
fn inode_of(disk: &Path, path: &str) -> Option<(u16, u16, u16)> {
    let dump = Command::new("dump.erofs").arg(format!("--path={path}")).arg(disk).output().ok()?;
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    let number: usize = text.split_once("NID: ")?.1.split_whitespace().next()?.parse().ok()?;
    let bytes = fs::read(disk).ok()?;
    let u16_at = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let first_block = usize::from(u16_at(1024 + 40)?);
    let inode = first_block * 4096 + number * 32;
    Some((u16_at(inode + 4)?, u16_at(inode + 24)?, u16_at(inode + 26)?))
}

#[test]
fn bad_options_are_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(&directory.path().join("kit"));
    let store = ImageStore::new(vec![directory.path().join("images")]);
    let fails = |options: TinyOptions| {
        let error = build_tiny(&kit, &store, &options, &mut drop).expect_err("refused");
        error.to_string()
    };
    let base = TinyOptions::default;
    let errors = [
        fails(TinyOptions { memory_mib: 1, ..base() }),
        fails(TinyOptions { vcpus: 0, ..base() }),
        fails(TinyOptions { volume_size_mib: 0, ..base() }),
        fails(TinyOptions { init: Some("init".to_owned()), ..base() }),
        fails(TinyOptions { name: "a/b".to_owned(), ..base() }),
    ];
    insta::assert_snapshot!(errors.join("\n"), @"
    no image can be built: option `memory_mib` is `1`; give it at least 64
    no image can be built: option `vcpus` is `0`; give it at least 1
    no image can be built: option `volume_size_mib` is `0`; give it 8 to 16777216
    no image can be built: option `init` is `init`; write an absolute path without spaces
    `a/b` is not an image name: it contains a slash; use a plain name such as `tiny`
    ");
    assert!(!directory.path().join("images").exists(), "nothing is made for a refused build");
}

#[test]
fn a_busybox_that_needs_libraries_is_refused() {
    if !can_build() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(&directory.path().join("kit"));
    let store = ImageStore::new(vec![directory.path().join("images")]);
    let options = TinyOptions { busybox: PathBuf::from("/nonexistent"), ..TinyOptions::default() };
    let error = build_tiny(&kit, &store, &options, &mut drop).expect_err("no busybox").to_string();
    assert!(error.contains("install the package busybox-static"), "{error}");
    // This test is a program that has a loader.
    let options = TinyOptions { busybox: std::env::current_exe().expect("us"), ..TinyOptions::default() };
    let error = build_tiny(&kit, &store, &options, &mut drop).expect_err("dynamic").to_string();
    assert!(error.contains("needs libraries"), "{error}");
}

#[test]
fn a_node_takes_the_place_of_what_was_there() {
    let mut tree = Tree::default();
    tree.add("a/b/c", Node::Text(0o644, String::new()));
    tree.add("a/b", Node::Link(PathBuf::from("elsewhere")));
    assert_eq!(tree.len(), 2, "what was beneath is gone");
    tree.add("a/b/d", Node::Text(0o600, String::new()));
    let directory = tempfile::tempdir().expect("temporary directory");
    tree.write(directory.path()).expect("written");
    let mode = directory.path().join("a/b/d").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn read_only_directories_can_be_filled_and_removed() {
    let mut tree = Tree::default();
    tree.add("shut", Node::Directory(0o555));
    tree.add("shut/inner/file", Node::Text(0o444, "x".to_owned()));
    let directory = tempfile::tempdir().expect("temporary directory");
    let root = directory.path().join("root");
    fs::create_dir(&root).expect("room");
    tree.write(&root).expect("written");
    assert_eq!(fs::read_to_string(root.join("shut/inner/file")).expect("there"), "x");
    crate::image::staging::remove_tree(&root).expect("removed");
    assert!(!root.exists());
}
