//! The agent's own reading and writing of file trees: the real binary, as an exec starts it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Runs the agent with these words and this input, which it may leave unread.
fn agent(words: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_creel-agent"))
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // An agent that has given up does not read.
    let _ = feed.join().unwrap();
    output
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stderr.clone()).unwrap().lines().map(ToOwned::to_owned).collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn room() -> (TempDir, String) {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().to_str().unwrap().to_owned();
    fs::create_dir_all(room.path().join("tree/sub")).unwrap();
    fs::write(room.path().join("tree/sub/file"), vec![b'x'; 300_000]).unwrap();
    symlink("sub/file", room.path().join("tree/link")).unwrap();
    (room, path)
}

fn same(from: &Path, into: &Path) {
    assert_eq!(fs::read(from.join("sub/file")).unwrap(), fs::read(into.join("sub/file")).unwrap());
    assert_eq!(fs::read_link(into.join("link")).unwrap(), Path::new("sub/file"));
}

#[test]
fn a_tree_goes_out_and_in() {
    let (room, path) = room();
    let read = agent(&["--files-read", &format!("{path}/tree")], b"");
    assert_eq!((code(&read), lines(&read)), (0, vec![]));
    // Under a new name, below a directory, and below one that is made.
    let archive = [read.stdout.as_slice(), &[0; 10240]].concat();
    let copies: [(&[&str], &str); 3] = [
        (&["new"], "new"),
        (&["tree/sub"], "tree/sub/tree"),
        (&["made/here", "--directory"], "made/here/tree"),
    ];
    for (words, place) in copies {
        let destination = format!("{path}/{}", words[0]);
        let words = [&["--files-write", &destination], &words[1..]].concat();
        let written = agent(&words, &archive);
        assert_eq!((code(&written), lines(&written)), (0, vec![]), "{words:?}");
        assert!(written.stdout.is_empty());
        same(&room.path().join("tree"), &room.path().join(place));
    }
}

#[test]
fn what_is_left_out_is_a_line_and_code_1() {
    let (room, path) = room();
    let _socket = std::os::unix::net::UnixListener::bind(room.path().join("tree/socket")).unwrap();
    let read = agent(&["--files-read", &format!("{path}/tree")], b"");
    assert_eq!(
        (code(&read), lines(&read)),
        (1, vec!["`tree/socket` is a socket; it was left out".to_owned()])
    );
    fs::create_dir_all(room.path().join("there/tree/link/full")).unwrap();
    let written = agent(&["--files-write", &format!("{path}/there")], &read.stdout);
    assert_eq!(code(&written), 1);
    assert_eq!(lines(&written).len(), 1);
    assert!(lines(&written)[0].contains("`tree/link` is a directory"), "{:?}", lines(&written));
    assert!(room.path().join("there/tree/sub/file").exists());
}

#[test]
fn what_comes_to_nothing_is_a_line_and_code_2() {
    let (room, path) = room();
    let archive = agent(&["--files-read", &format!("{path}/tree")], b"").stdout;
    let at = |name: &str| format!("{path}/{name}");
    let half = &archive[..archive.len() / 2];
    let up = {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.as_old_mut().name[..5].copy_from_slice(b"../up");
        header.set_cksum();
        [header.as_bytes().as_slice(), &[0; 1024]].concat()
    };
    let cases: [(&[&str], &[u8], &str); 8] = [
        (&["--files-read", &at("nothing")], b"", "does not exist"),
        (&["--files-read", &at("tree/sub/file/.")], b"", "directories only"),
        (&["--files-write", &at("no/such")], &archive, "does not exist"),
        (&["--files-write", &at("new/")], &archive, "make it first"),
        (&["--files-write", &at("tree/sub/file"), "--directory"], &archive, "failed to open destination"),
        (&["--files-write", &at("half")], half, "cut short"),
        (&["--files-write", &at("text")], &[b'x'; 1000], "not a tar archive"),
        (&["--files-write", &at("tree")], &up, "leads up with `..`"),
    ];
    for (words, input, expected) in cases {
        let output = agent(words, input);
        assert_eq!(code(&output), 2, "{words:?}");
        assert_eq!(lines(&output).len(), 1, "{words:?}: {:?}", lines(&output));
        assert!(lines(&output)[0].contains(expected), "{words:?}: {:?}", lines(&output));
    }
    assert!(!room.path().join("up").exists() && !room.path().join("half/sub/file").exists());
}

/// As when the reader has gone: no panic, no endless line.
#[test]
fn a_reader_that_goes_ends_it() {
    let (_room, path) = room();
    let mut child = Command::new(env!("CARGO_BIN_EXE_creel-agent"))
        .args(["--files-read", &format!("{path}/tree")])
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn wrong_words_are_no_work() {
    for words in
        [&["--files-read"][..], &["--files-write", "/tmp", "x"], &["--files-read", "/tmp", "--directory"]]
    {
        let output = agent(words, b"");
        assert_eq!(code(&output), 2, "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
