//! What all commands of `creel` have in common at a prompt and in a pipe.

#![expect(clippy::unwrap_used, reason = "a test that can't start the program has failed")]

use std::fs::File;
use std::process::{Command, Output, Stdio};

/// `creel` with a home of its own, and no settings of the tests.
fn creel(arguments: &[&str], stdout: Stdio) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_creel"));
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path());
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    for arguments in [&["version"][..], &["version", "--json"], &["completions", "zsh"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = creel(arguments, writer.into());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*told), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_one() {
    let output = creel(&["version"], File::create("/dev/full").unwrap().into());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(told.contains("No space left on device"), "{told}");
}

#[test]
fn colour_is_for_terminals() {
    for arguments in [&["--help"][..], &["rnu"], &["-vvv", "version"], &["image", "ls"]] {
        let output = creel(arguments, Stdio::piped());
        let told = [output.stdout, output.stderr].concat();
        assert!(
            !told.is_empty() && !told.contains(&0x1b),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&told)
        );
    }
}

#[test]
fn what_needs_no_configuration_is_not_kept_by_a_bad_one() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().display().to_string();
    for arguments in [&["completions", "bash"][..], &["debug", "man", "--output", &pages]] {
        let output = creel(&[&["--config", "/nonexistent.toml"], arguments].concat(), Stdio::piped());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    assert!(directory.path().join("man8/creeld.8").is_file());
}
