use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

#[test]
fn the_trailer_alone_is_a_valid_archive() {
    let mut bytes = Vec::new();
    Archive::new().write(&mut bytes).expect("memory takes all");
    assert!(bytes.starts_with(b"070701"));
    assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
    assert_eq!(bytes.len() % 4, 0);
}

#[test]
fn order_of_calls_does_not_matter() {
    let write = |archive: Archive| {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).expect("memory takes all");
        bytes
    };
    let (mut one, mut two) = (Archive::new(), Archive::new());
    one.file("a/b", 0o644, *b"x");
    one.directory("a", 0o700);
    one.char_device("dev/console", 0o600, 5, 1);
    two.char_device("dev/console", 0o600, 5, 1);
    two.directory("a", 0o700);
    two.file("/a/b", 0o644, *b"x");
    assert_eq!(write(one), write(two));
}

/// Lists an archive with GNU cpio or busybox, whichever is there.
fn unpack(archive: &[u8], into: &std::path::Path) -> Option<()> {
    let packed = into.join("packed");
    fs::write(&packed, archive).expect("temporary file");
    let run = |program: &str, arguments: &[&str]| {
        let stdin = fs::File::open(&packed).expect("just written");
        Command::new(program)
            .args(arguments)
            .current_dir(into)
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    let status = run("cpio", &["-i", "--quiet", "--no-absolute-filenames"])
        .or_else(|_| run("busybox", &["cpio", "-i"]))
        .ok()?;
    assert!(status.success(), "cpio refused the archive");
    fs::remove_file(packed).expect("just written");
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_goes_in_comes_out(
        files in proptest::collection::btree_map("[a-z]{1,3}(/[a-z]{4,9}){0,2}", (0u32..0o1000, any::<Vec<u8>>()), 0..8)
    ) {
        let mut archive = Archive::new();
        // A component of one length is a directory or a file by its depth, so that no file is another's parent.
        let files: Vec<_> = files.into_iter().map(|(path, rest)| (format!("d/{path}/leaf-file"), rest)).collect();
        for (path, (mode, content)) in &files {
            archive.file(path, mode | 0o400, content.clone());
        }
        archive.symlink("link", "d/nowhere");
        let mut bytes = Vec::new();
        archive.write(&mut bytes).expect("memory takes all");
        let directory = tempfile::tempdir().expect("temporary directory");
        if unpack(&bytes, directory.path()).is_none() {
            eprintln!("skipped: neither cpio nor busybox is installed");
            return Ok(());
        }
        for (path, (mode, content)) in &files {
            let found = directory.path().join(path);
            prop_assert_eq!(&fs::read(&found).expect("unpacked"), content);
            let metadata = found.metadata().expect("unpacked");
            // Whoever unpacks is subject to a umask; the owner's bits stay.
            prop_assert_eq!(metadata.permissions().mode() & 0o700, (mode | 0o400) & 0o700);
        }
        prop_assert_eq!(fs::read_link(directory.path().join("link")).expect("unpacked"), std::path::Path::new("d/nowhere"));
    }
}
