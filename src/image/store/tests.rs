use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const SPEC: &str = r#"{"arch": "x86_64", "bootArgs": "quiet", "kernel": "k", "initrd": "k", "storeDisk": "k",
    "runnerConfig": {"machine": "microvm"}, "memoryMiB": 64, "vcpus": 1, "shell": "/bin/sh"}"#;

struct Roots {
    _directory: tempfile::TempDir,
    first: PathBuf,
    second: PathBuf,
    store: ImageStore,
}

fn roots() -> Roots {
    let directory = tempfile::tempdir().expect("temporary directory");
    let base = directory.path().canonicalize().expect("exists");
    let (first, second) = (base.join("first"), base.join("second"));
    fs::create_dir_all(&first).expect("room");
    fs::create_dir_all(&second).expect("room");
    let store = ImageStore::new(vec![first.clone(), second.clone()]);
    Roots { _directory: directory, first, second, store }
}

fn put_image(directory: &Path) {
    fs::create_dir_all(directory).expect("room");
    fs::write(directory.join(SPEC_FILE), SPEC).expect("room");
    fs::write(directory.join("k"), "kernel").expect("room");
}

/// Publishes an entry with this kernel, and gives it the name.
fn publish(store: &ImageStore, name: &str, kernel: &str) -> Image {
    let entries = Entries::under(store.writable_root().expect("there is one"));
    let staging = entries.stage().expect("writable");
    let part = staging.path().join("image");
    put_image(&part);
    fs::write(part.join("k"), kernel).expect("room");
    let input = crate::image::digest::hex(&[7; 32]);
    let entry = entries.publish(&staging, &part, &input).expect("published");
    store.name_entry(&staging, name, &entry).expect("named")
}

#[test]
fn a_name_is_a_directory_a_spec_or_a_json_file_in_search_order() {
    let Roots { first, second, store, .. } = &roots();
    put_image(&second.join("dir"));
    fs::write(second.join("k"), "kernel").expect("room");
    fs::write(second.join("plain"), SPEC).expect("room");
    fs::write(second.join("with-extension.json"), SPEC).expect("room");
    assert_eq!(store.resolve("dir").expect("a directory").spec.kernel, second.join("dir/k"));
    assert_eq!(store.resolve("plain").expect("a file").spec_path, second.join("plain"));
    assert_eq!(store.resolve("with-extension").expect("json").directory, *second);
    put_image(&first.join("dir"));
    assert_eq!(store.resolve("dir").expect("shadowed").directory, first.join("dir"));
}

#[test]
fn operators_may_link_images() {
    let Roots { first, second, store, .. } = &roots();
    put_image(&second.join(".elsewhere"));
    symlink(second.join(".elsewhere"), first.join("nixos")).expect("room");
    let image = store.resolve("nixos").expect("linked");
    assert_eq!(image.spec.kernel, second.join(".elsewhere/k"), "relative to where the spec really is");
    assert_eq!(image.digest, None);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let Roots { store, .. } = &roots();
    for name in ["", ".", "..", "/etc/passwd", "a/b", ".store", "a\nb"] {
        assert!(matches!(store.resolve(name), Err(ImageError::InvalidName { .. })), "{name:?}");
        assert!(matches!(store.remove(name), Err(ImageError::InvalidName { .. })), "{name:?}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_what_there_is() {
    let Roots { first, store, .. } = &roots();
    let shown = |name: &str| {
        let error = store.resolve(name).expect_err("unknown").to_string();
        error.replace(&first.parent().expect("below").display().to_string(), "DIR")
    };
    insta::assert_snapshot!(shown("tiny"), @"unknown image `tiny`; there are no images in DIR/first, DIR/second; make one with `creel image build tiny`");
    put_image(&first.join("tiny"));
    put_image(&first.join("nixos-x86_64"));
    insta::assert_snapshot!(shown("tinny"), @"unknown image `tinny`; did you mean `tiny`? (there are nixos-x86_64, tiny in DIR/first, DIR/second); make one with `creel image build tiny`");
    insta::assert_snapshot!(shown("fedora"), @"unknown image `fedora`; there are nixos-x86_64, tiny in DIR/first, DIR/second; make one with `creel image build tiny`");
}

#[test]
fn an_unreadable_root_is_not_taken_for_an_empty_one() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root reads every directory");
        return;
    }
    let Roots { first, second, store, .. } = &roots();
    put_image(&second.join("tiny"));
    fs::set_permissions(first, Permissions::from_mode(0o000)).expect("ours");
    let error = store.resolve("tiny").expect_err("unreadable").to_string();
    fs::set_permissions(first, Permissions::from_mode(0o755)).expect("ours");
    assert!(error.contains("failed to read the image directory") && error.contains("mode 0000"), "{error}");
}

#[test]
fn a_root_that_is_a_file_is_said_to_be_unreadable() {
    let Roots { first, .. } = &roots();
    let file = first.join("file");
    fs::write(&file, "").expect("room");
    let error = ImageStore::new(vec![file.clone()]).list().expect_err("no directory");
    assert!(
        matches!(&error, ImageError::DirectoryUnreadable { directory, .. } if *directory == file),
        "{error}"
    );
}

#[test]
fn broken_images_are_listed_with_what_is_wrong() {
    let Roots { first, second, store, .. } = &roots();
    put_image(&first.join("good"));
    put_image(&second.join("bad"));
    fs::remove_file(second.join("bad/k")).expect("was there");
    symlink("nowhere", first.join("dangling")).expect("room");
    let list = store.list().expect("readable");
    let shown: Vec<_> =
        list.iter().map(|line| (line.name.as_str(), line.removable, line.image.is_ok())).collect();
    assert_eq!(shown, [("bad", false, false), ("dangling", true, false), ("good", true, true)]);
    let error = list[0].image.as_ref().expect_err("broken").to_string();
    assert!(error.contains("`kernel` names") && error.contains("does not exist"), "{error}");
    assert!(list[2].size_bytes > 0);
}

#[test]
fn rebuilding_swaps_the_name_and_keeps_what_is_in_use() {
    let Roots { store, .. } = &roots();
    let old = publish(store, "tiny", "one");
    let new = publish(store, "tiny", "two");
    assert_ne!(old.digest, new.digest);
    assert_eq!(store.resolve("tiny").expect("there").digest, new.digest);
    store.gc(Collect::Remove).expect("writable");
    assert_eq!(fs::read_to_string(&old.spec.kernel).expect("held"), "one");
    let kernel = old.spec.kernel.clone();
    drop(old);
    assert!(store.gc(Collect::Remove).expect("writable").freed_bytes() > 0, "bytes come free");
    assert!(!kernel.exists(), "nobody holds it any more");
    assert_eq!(fs::read_to_string(&new.spec.kernel).expect("named"), "two");
}

#[test]
fn the_same_content_is_stored_once() {
    let Roots { first, store, .. } = &roots();
    let (one, two) = (publish(store, "one", "same"), publish(store, "two", "same"));
    assert_eq!(one.directory, two.directory);
    store.remove("one").expect("removed");
    drop(one);
    assert!(store.resolve("two").is_ok(), "the other name still leads there");
    drop(two);
    store.remove("two").expect("removed");
    let left: Vec<_> = crate::image::testing::files_below(first);
    assert_eq!(left, Vec::new(), "nothing remains");
}

#[test]
fn a_hand_made_image_is_not_overwritten_but_can_be_removed() {
    let Roots { first, store, .. } = &roots();
    put_image(&first.join("tiny"));
    let entries = Entries::under(first);
    let staging = entries.stage().expect("writable");
    let part = staging.path().join("image");
    put_image(&part);
    let entry = entries.publish(&staging, &part, "input").expect("published");
    let error = store.name_entry(&staging, "tiny", &entry).expect_err("in the way");
    assert!(matches!(error, ImageError::Occupied { .. }), "{error}");
    store.remove("tiny").expect("removed");
    assert!(!first.join("tiny").exists());
}

#[test]
fn only_the_first_root_is_written_to() {
    let Roots { second, store, .. } = &roots();
    put_image(&second.join("system"));
    let error = store.remove("system").expect_err("not ours");
    assert!(matches!(&error, ImageError::NotWritable { directory, .. } if directory == second), "{error}");
    assert!(second.join("system").exists());
}

/// The faults of an image, with its directory left out.
fn faults(store: &ImageStore, name: &str) -> Vec<String> {
    let verified = store.verify(name).expect("an image");
    let directory = format!("{}/", verified.directory.display());
    verified.faults.iter().map(|fault| fault.replace(&directory, "")).collect()
}

#[test]
fn verify_names_each_file_that_is_not_as_it_was_built() {
    let Roots { store, .. } = &roots();
    let image = publish(store, "tiny", "kernel");
    assert_eq!(faults(store, "tiny"), Vec::<String>::new(), "as built");
    fs::write(&image.spec.kernel, "kernal").expect("writable by its owner");
    fs::write(image.directory.join("left-over"), "").expect("room");
    assert_eq!(
        faults(store, "tiny"),
        [
            "k is damaged: its 6 bytes are not those it was made with",
            "left-over does not belong to the image",
        ]
    );
    fs::remove_file(image.directory.join("left-over")).expect("there");
    fs::remove_file(&image.spec.kernel).expect("there");
    let said = faults(store, "tiny");
    assert!(said.iter().any(|fault| fault == "k is missing"), "{said:?}");
    assert!(said.iter().any(|fault| fault.starts_with("spec.json: `kernel`")), "{said:?}");
}

#[test]
fn verify_still_notices_damage_where_the_files_digests_were_not_kept() {
    let Roots { first, store, .. } = &roots();
    let image = publish(store, "tiny", "kernel");
    fs::remove_dir_all(first.join(".store/files")).expect("there");
    assert_eq!(faults(store, "tiny"), Vec::<String>::new());
    fs::write(&image.spec.kernel, "kernal").expect("writable by its owner");
    let said = faults(store, "tiny");
    assert!(said.len() == 1 && said[0].contains("which one is damaged was not recorded"), "{said:?}");
}

#[test]
fn verify_reads_images_of_others_and_says_what_is_missing() {
    let Roots { first, second, store, .. } = &roots();
    put_image(&second.join("theirs"));
    assert_eq!(store.verify("theirs").expect("an image").digest, None);
    assert_eq!(faults(store, "theirs"), Vec::<String>::new());
    symlink("nowhere", first.join("dangling")).expect("room");
    assert!(faults(store, "dangling")[0].contains("leads nowhere"));
    assert!(matches!(store.verify("other"), Err(ImageError::Unknown { .. })));
    assert_eq!(store.names().expect("readable"), ["dangling", "theirs"]);
}

#[test]
fn a_dry_collection_says_what_a_real_one_does() {
    let Roots { first, store, .. } = &roots();
    let old = publish(store, "tiny", "one");
    let held = publish(store, "tiny", "two");
    let named = publish(store, "tiny", "three");
    let (gone, kept) = (old.digest.clone(), held.digest.clone());
    drop(old);
    let abandoned = first.join(".store/.staging-1-0");
    fs::create_dir(&abandoned).expect("room");
    fs::write(abandoned.join("part"), "half of an image").expect("room");

    let dry = store.gc(Collect::DryRun).expect("readable");
    assert!(first.join(".store").join(gone.as_ref().expect("ours")).exists(), "nothing was removed");
    assert!(abandoned.exists(), "nothing was removed");
    let digests = |removed: &[Removed]| removed.iter().map(|one| Some(one.what.clone())).collect::<Vec<_>>();
    assert_eq!(digests(&dry.entries), [gone]);
    assert_eq!(digests(&dry.in_use), [kept]);
    assert_eq!(digests(&dry.abandoned), [Some(".staging-1-0".to_owned())]);
    assert!(dry.freed_bytes() > 0);

    assert_eq!(store.gc(Collect::Remove).expect("writable"), dry);
    assert!(!abandoned.exists());
    assert_eq!(store.resolve("tiny").expect("there").digest, named.digest);
    assert!(held.spec.kernel.exists(), "whoever holds it keeps it");
    drop(held);
    assert_eq!(store.gc(Collect::Remove).expect("writable").entries.len(), 1);
    assert_eq!(store.gc(Collect::Remove).expect("writable"), Collected::default(), "nothing is left to do");
}

#[test]
fn builds_and_collections_do_not_get_in_each_others_way() {
    let Roots { store, .. } = &roots();
    std::thread::scope(|scope| {
        // Dropped at its end, whichever that is.
        let (building, built) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while built.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                store.gc(Collect::Remove).expect("a collection");
            }
        });
        for round in 0..200 {
            let image = publish(store, "tiny", &format!("kernel {}", round % 3));
            assert_eq!(
                fs::read_to_string(&image.spec.kernel).expect("there"),
                format!("kernel {}", round % 3)
            );
        }
        drop(building);
    });
    assert!(store.resolve("tiny").is_ok());
}

#[test]
fn what_a_killed_build_left_is_swept() {
    let Roots { first, store, .. } = &roots();
    publish(store, "tiny", "kernel");
    let abandoned = first.join(".store/.staging-1-0");
    fs::create_dir(&abandoned).expect("room");
    let in_use = Entries::under(first).stage().expect("writable");
    store.gc(Collect::Remove).expect("writable");
    assert!(!abandoned.exists());
    assert!(in_use.path().exists(), "a living build keeps its directory");
}
