use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use super::*;

fn run_dir() -> (tempfile::TempDir, RunDir) {
    let base = tempfile::tempdir().expect("a scratch directory");
    let run_dir = RunDir::open(&base.path().join("a/creel")).expect("opened");
    (base, run_dir)
}

#[test]
fn a_machine_directory_is_private_and_goes_with_its_lease() {
    let (_base, run_dir) = run_dir();
    let machine = MachineDirectory::acquire(&run_dir, "abc-1").expect("acquired");
    let path = machine.path().to_owned();
    assert_eq!(path, run_dir.path().join("m-abc-1"));
    assert_eq!(fs::metadata(&path).expect("it exists").permissions().mode() & 0o777, 0o700);
    assert_eq!(run_dir.discover().expect("listed"), ["abc-1"]);
    fs::create_dir(path.join("sub")).expect("mkdir");
    fs::write(path.join("sub/file"), "x").expect("written");
    drop(machine);
    assert!(!path.exists());
    assert!(run_dir.discover().expect("listed").is_empty());
}

#[test]
fn dropping_a_lease_whose_directory_is_gone_is_fine() {
    let (_base, run_dir) = run_dir();
    let machine = MachineDirectory::acquire(&run_dir, "abc").expect("acquired");
    fs::remove_dir(machine.path()).expect("empty");
    drop(machine);
}

#[test]
fn reclaim_removes_the_dead_and_leaves_the_living() {
    let (_base, run_dir) = run_dir();
    let living = MachineDirectory::acquire(&run_dir, "living").expect("acquired");
    // A creel that was killed: its directory stays, its lock does not.
    fs::create_dir(run_dir.path().join("m-dead")).expect("mkdir");
    fs::write(run_dir.path().join("m-dead/console"), "x").expect("written");
    // A keeper that outlived its creel: the lock is held by a copy of the open file.
    fs::create_dir(run_dir.path().join("m-kept")).expect("mkdir");
    let creels = File::open(run_dir.path().join("m-kept")).expect("open");
    flock(&creels, FlockOperation::LockExclusive).expect("locked");
    let keepers = creels.try_clone().expect("copied");
    drop(creels);
    fs::create_dir(run_dir.path().join("other")).expect("mkdir");

    let reclaimed = run_dir.reclaim().expect("reclaimed");
    assert_eq!(reclaimed.names, ["dead"]);
    assert_eq!((reclaimed.count(), reclaimed.failed.len()), (1, 0));
    assert_eq!(run_dir.discover().expect("listed"), ["kept", "living"]);
    assert!(run_dir.path().join("other").exists());
    drop((living, keepers));
}

#[test]
fn an_id_is_given_once_and_must_be_plain() {
    let (_base, run_dir) = run_dir();
    let first = MachineDirectory::acquire(&run_dir, "one").expect("acquired");
    let error = MachineDirectory::acquire(&run_dir, "one").expect_err("taken");
    assert!(matches!(error, DirectoryError::Exists { .. }));
    assert!(first.path().exists(), "the failed attempt took nothing away");
    for id in ["", "..", "a/b", "A", "a b"] {
        assert!(matches!(MachineDirectory::acquire(&run_dir, id), Err(DirectoryError::BadId { .. })), "{id}");
    }
}

#[test]
fn foreign_open_and_linked_runtime_directories_are_refused() {
    let base = tempfile::tempdir().expect("a scratch directory");
    let path = base.path().join("open");
    fs::create_dir(&path).expect("mkdir");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).expect("chmod");
    let error = RunDir::open(&path).expect_err("open to others").to_string();
    assert!(error.contains("mode 775") && error.contains("chmod 700"), "{error}");

    let link = base.path().join("link");
    symlink(base.path(), &link).expect("symlink");
    assert!(matches!(RunDir::open(&link), Err(DirectoryError::NotADirectory { .. })));

    // Root's own directories are foreign to a user, and a user's to root.
    if rustix::process::geteuid().is_root() {
        let foreign = base.path().join("foreign");
        fs::create_dir(&foreign).expect("mkdir");
        std::os::unix::fs::chown(&foreign, Some(12345), None).expect("chown");
        assert!(matches!(RunDir::open(&foreign), Err(DirectoryError::ForeignOwner { owner: 12345, .. })));
    } else {
        assert!(matches!(
            RunDir::open(Path::new("/usr")),
            Err(DirectoryError::ForeignOwner { owner: 0, .. })
        ));
    }
}

#[test]
fn paths_that_fit_no_socket_are_refused_early() {
    let base = tempfile::tempdir().expect("a scratch directory");
    let error = RunDir::open(&base.path().join("x".repeat(90))).expect_err("too long").to_string();
    assert!(error.contains("under 108 bytes") && error.contains("shorter runtime directory"), "{error}");
    let run_dir = RunDir::open(&base.path().join("r")).expect("opened");
    let machine = MachineDirectory::acquire(&run_dir, "m").expect("acquired");
    assert!(machine.socket_path("qmp.sock").is_ok());
    assert!(matches!(machine.socket_path(&"s".repeat(100)), Err(DirectoryError::TooLong { .. })));
}

#[test]
fn reclaim_beside_acquire_never_takes_a_living_directory() {
    let (_base, run_dir) = run_dir();
    let run_dir = Arc::new(run_dir);
    let reclaimer = std::thread::spawn({
        let run_dir = Arc::clone(&run_dir);
        move || (0..200).map(|_| run_dir.reclaim().expect("reclaimed").count()).sum::<usize>()
    });
    for index in 0..200 {
        let machine = MachineDirectory::acquire(&run_dir, &format!("m{index}")).expect("acquired");
        assert!(machine.path().exists());
        drop(machine);
    }
    assert_eq!(reclaimer.join().expect("no panic"), 0, "every directory had a living owner");
}
