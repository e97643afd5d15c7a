//! The log as journald reads it on its stream. (Its own protocol: `src/daemon/logging/tests.rs`.)

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::harness::Place;

/// systemd connects stderr to a socket and names it in `JOURNAL_STREAM`.
fn log_with(place: &Place, mut command: Command, journal_stream: impl FnOnce(String) -> String) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let stat = rustix::fs::fstat(&theirs).unwrap();
    command.env("JOURNAL_STREAM", journal_stream(format!("{}:{}", stat.st_dev, stat.st_ino)));
    // Where these tests run there may be a journald, which `auto` would take.
    command.env("CREEL_DAEMON__LOG_FORMAT", "text");
    // Ends it at once: the place is no directory.
    command.env("CREEL_DAEMON__SOCKET", place.path("missing/creel.sock"));
    let status = command.stderr(Stdio::from(OwnedFd::from(theirs))).status().unwrap();
    drop(command);
    assert_eq!(status.code(), Some(3));
    let mut log = String::new();
    ours.read_to_string(&mut log).unwrap();
    log
}

#[test]
fn every_line_has_its_level_and_neither_time_nor_colour() {
    let place = Place::new();
    let log = log_with(&place, place.creeld(), |stream| stream);
    assert!(log.contains("<6>creeld starts"), "{log}");
    assert!(log.contains("<3>failed to serve"), "{log}");
    for line in log.lines() {
        assert!(matches!(line.as_bytes(), [b'<', b'3'..=b'7', b'>', ..]), "{line}");
        assert!(!line.contains('\x1b') && !line.contains("INFO") && !line.contains("ERROR"), "{line}");
    }
}

#[test]
fn a_variable_left_over_from_another_stderr_changes_nothing() {
    let place = Place::new();
    let log = log_with(&place, place.creeld(), |_| "1:1".to_owned());
    assert!(log.contains("INFO") && !log.contains("<6>"), "{log}");
}

#[test]
fn the_filter_is_the_operator_s_and_a_bad_one_is_named() {
    let place = Place::new();
    let mut command = place.creeld();
    command.env("CREEL_LOG", "error");
    let log = log_with(&place, command, |stream| stream);
    assert!(log.lines().all(|line| line.starts_with("<3>")) && !log.is_empty(), "{log}");

    let mut command = place.creeld();
    command.env("CREEL_LOG", "creel=loud");
    let log = log_with(&place, command, |stream| stream);
    assert!(log.contains("<4>CREEL_LOG `creel=loud` is no filter"), "{log}");
}
