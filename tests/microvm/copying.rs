//! `creel cp` with real machines: there and back, through `-`, and when it goes wrong.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::harness::{Daemon, Run, Sandbox, TINY, World, wait_until};

/// One of everything that is kept.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("locked")).expect("a directory");
    fs::write(root.join("locked/inside"), vec![b'i'; 300_000]).expect("a file");
    fs::write(root.join("run.sh"), "#!/bin/sh\n").expect("a file");
    fs::set_permissions(root.join("run.sh"), Permissions::from_mode(0o751)).expect("a mode");
    fs::hard_link(root.join("run.sh"), root.join("same.sh")).expect("a link");
    fs::write(root.join("two\nlines and ".to_owned() + &"é".repeat(100)), "long").expect("a file");
    symlink("/nowhere", root.join("dangling")).expect("a link");
    let holes = File::create_new(root.join("holes")).expect("a file");
    holes.set_len(256 << 20).expect("a size");
    holes.write_all_at(&[7; 4096], 128 << 20).expect("some data");
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    File::open(root.join("run.sh")).and_then(|file| file.set_modified(time)).expect("a time");
    fs::set_permissions(root.join("locked"), Permissions::from_mode(0o711)).expect("a mode");
}

/// Kind, mode, time, size and, where it is small, content of everything, by path.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = path.symlink_metadata().expect("it is there");
        if metadata.is_dir() {
            paths.extend(
                fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()),
            );
        }
        let content = if metadata.is_symlink() {
            format!("{:?}", fs::read_link(&path).expect("a link"))
        } else if metadata.is_file() && metadata.len() < 1 << 20 {
            format!("{:?}", fs::read(&path).expect("a file"))
        } else {
            String::new()
        };
        let mode = if metadata.is_symlink() { 0 } else { metadata.mode() };
        let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
        let size = if metadata.is_dir() { 0 } else { metadata.len() };
        lines.push(format!(
            "{:?} {mode:o} {}.{} {links} {size} {content}",
            path.strip_prefix(root).expect("below"),
            metadata.mtime(),
            metadata.mtime_nsec()
        ));
    }
    lines.sort();
    lines
}

#[test]
fn a_tree_is_the_same_there_and_back() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let at = |name: &str| sandbox.work_dir().join(name);
    tree(&at("tree"));
    let sent = daemon.output(["cp", at("tree").to_str().expect("UTF-8"), &format!("{id}:there")]);
    assert_eq!((sent.code, sent.stderr.as_str()), (0, ""), "{sent:?}");

    // It belongs to the user, and has its holes.
    let seen = daemon.output(["exec", &id, "--", "sh", "-c", "cd there && [ -O run.sh ] && du -k holes"]);
    assert_eq!(seen.code, 0, "{seen:?}");
    let size: u64 =
        seen.stdout.split_whitespace().next().and_then(|size| size.parse().ok()).expect("du's KiB");
    assert!(size < 1024, "{seen:?}");

    let fetched =
        daemon.output(["cp", "--json", &format!("{id}:there"), at("back").to_str().expect("UTF-8")]);
    assert_eq!(fetched.code, 0, "{fetched:?}");
    let told: serde_json::Value = serde_json::from_str(&fetched.stdout).expect("JSON");
    assert!(told["archive_bytes"].as_u64().is_some_and(|bytes| bytes < 1 << 20), "{told}");
    assert_eq!((told["files"].as_u64(), told["directories"].as_u64()), (Some(6), Some(2)), "{told}");
    assert_eq!(listing(&at("tree")), listing(&at("back")));
    assert!(fs::metadata(at("back/holes")).expect("it is there").blocks() * 512 < 1 << 20);
}

#[test]
fn an_archive_goes_from_machine_to_machine() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let (from, into) = (daemon.create(TINY), daemon.create(TINY));
    tree(&sandbox.work_dir().join("tree"));
    let mut shell = Command::new("sh");
    sandbox.settle_in(&mut shell);
    // There by GNU tar, on by creel alone, and back by GNU tar.
    let script = r#"
        set -e
        tar cS tree | "$1" cp - "$2:one"
        "$1" cp "$2:one/tree" - | "$1" cp - "$3:"
        mkdir back
        "$1" cp "$3:tree" - | tar xp -C back
    "#;
    shell.current_dir(sandbox.work_dir()).args(["-c", script, "sh"]).arg(&world.program).args([&from, &into]);
    let ended = Run::start(shell).finish();
    ended.expect_code(0);
    // `tar cS` writes GNU's format, which has no fractions of seconds.
    let whole = |root: &str| -> Vec<String> {
        let lines = listing(&sandbox.work_dir().join(root)).into_iter();
        lines
            .map(|line| line.split(' ').filter(|word| !word.contains('.')).collect::<Vec<_>>().join(" "))
            .collect()
    };
    assert_eq!(whole("tree"), whole("back/tree"));
    assert!(whole("back/tree").iter().any(|line| line.contains("dangling")));
    let holes = fs::metadata(sandbox.work_dir().join("back/tree/holes")).expect("it is there");
    assert!(holes.blocks() * 512 < 1 << 20, "its holes are filled");
    assert_eq!(
        fs::read(sandbox.work_dir().join("tree/locked/inside")).expect("a file"),
        fs::read(sandbox.work_dir().join("back/tree/locked/inside")).expect("a file")
    );
}

#[test]
fn a_link_is_copied_as_a_link_and_with_l_as_what_it_leads_to_under_its_own_name() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let here = |name: &str| sandbox.work_dir().join(name);
    let copies = |words: &[&str]| {
        let said = daemon.output([&["cp"][..], words].concat());
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{words:?}: {said:?}");
    };
    let make = "mkdir real && echo inside >real/file && ln -s real way && ln -s real/file leaf";
    let made = daemon.output(["exec", &id, "--", "sh", "-c", make]);
    assert_eq!(made.code, 0, "{made:?}");
    fs::create_dir(here("into")).expect("a directory");

    copies(&[&format!("{id}:way"), "as-link"]);
    assert_eq!(fs::read_link(here("as-link")).expect("a link"), Path::new("real"));
    copies(&["-L", &format!("{id}:way"), "followed"]);
    assert_eq!(fs::read_to_string(here("followed/file")).expect("a file"), "inside\n");
    copies(&["-L", &format!("{id}:way"), "into"]);
    assert_eq!(fs::read_to_string(here("into/way/file")).expect("under the link's name"), "inside\n");
    copies(&["-L", &format!("{id}:leaf"), "leaf"]);
    assert!(here("leaf").symlink_metadata().expect("it is there").is_file());

    symlink("followed", here("way")).expect("a link");
    copies(&["way", &format!("{id}:sent-link")]);
    copies(&["-L", "way", &format!("{id}:sent")]);
    let look = "readlink sent-link; [ ! -L sent ] && cat sent/file";
    let seen = daemon.output(["exec", &id, "--", "sh", "-c", look]);
    assert_eq!((seen.code, seen.stdout.as_str()), (0, "followed\ninside\n"), "{seen:?}");
}

#[test]
fn what_is_wrong_is_said_and_the_rest_is_copied() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let back = sandbox.work_dir().join("back").display().to_string();
    let made = daemon.output(["exec", &id, "--", "sh", "-c", "mkdir d && mkfifo d/fifo && echo x > d/file"]);
    assert_eq!(made.code, 0, "{made:?}");
    let fetched = daemon.output(["cp", &format!("{id}:d"), &back]);
    assert_eq!(fetched.code, 1, "{fetched:?}");
    assert!(
        fetched.stderr.contains(&format!("creel: {id}: `d/fifo` is a fifo; it was left out")),
        "{fetched:?}"
    );
    assert_eq!(fs::read_to_string(format!("{back}/file")).expect("it was copied"), "x\n");

    // The workflow user has no rights of root's, and no file is there that was asked for.
    for (words, expected) in [
        ([&*back, &format!("{id}:/etc/new")], "Permission denied"),
        ([&format!("{id}:nothing"), &*back], "does not exist"),
        ([&*back, &format!("{id}:no/such/place")], "make that directory first"),
    ] {
        let ended = daemon.output([&["cp"][..], &words[..]].concat());
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains(expected), "{ended:?}");
    }
    let ended = daemon.output(["cp", "--user", "root", &format!("{id}:d"), &back]);
    assert!(ended.code != 0 && ended.stderr.contains("root"), "{ended:?}");
}

#[test]
fn a_copy_that_is_cancelled_ends_in_the_machine_too() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let mut shell = Command::new("sh");
    sandbox.settle_in(&mut shell);
    // Its stdin is a pipe that nobody writes to, so it waits.
    let script = r#"mkfifo silent && exec "$1" cp - "$2:endless" <>silent"#;
    shell.current_dir(sandbox.work_dir()).args(["-c", script, "sh"]).arg(&world.program).arg(&id);
    let copy = Run::start(shell);
    wait_until(Duration::from_secs(60), "the agent unpacks", || {
        let seen = daemon.output(["exec", &id, "--", "ps", "-o", "args"]);
        seen.stdout.contains("--files-write")
    });
    copy.signal(Signal::INT);
    copy.finish().expect_code(130).expect_stderr("is left at");
    wait_until(Duration::from_secs(10), "the agent has stopped", || {
        let seen = daemon.output(["exec", &id, "--", "ps", "-o", "args"]);
        !seen.stdout.contains("--files-write")
    });
}
