//! The console and the logs: bounded, and no writer ever waits for a reader.

mod fixture;

use creel_keeper::{Ending, Output};
use fixture::{Fixture, shell, side};

const FLOOD_BYTES: u64 = 50 * 1024 * 1024;

#[test]
fn a_flood_is_kept_first_and_last_in_a_file_of_fixed_size() {
    let fixture = Fixture::daemon();
    let script = format!("echo first; head -c {FLOOD_BYTES} /dev/zero | tr '\\0' x; echo; echo last; exit 0");
    let mut keeper = fixture.start(&fixture.plan(vec![shell("qemu", &script)]));
    assert!(keeper.end().success());
    let total = FLOOD_BYTES + "first\n\nlast\n".len() as u64;
    assert_eq!(fixture.done().expect("recorded").console_total_bytes, total);
    let history = fixture.history("console");
    assert_eq!(history.total, total);
    assert!(history.head.starts_with(b"first\nxxx") && history.head.len() == 1024);
    assert!(history.tail.ends_with(b"xxx\nlast\n") && history.tail.len() == 4096);
    assert_eq!(history.dropped_bytes(), total - 1024 - 4096);
    assert_eq!(history.last(6), b"\nlast\n");
    let length = std::fs::metadata(fixture.path().join("console")).expect("it exists").len();
    assert_eq!(length, 64 + 1024 + 4096);
}

#[test]
fn what_was_written_just_before_the_end_is_not_lost() {
    for _ in 0..20 {
        let fixture = Fixture::daemon();
        let mut keeper = fixture.start(&fixture.plan(vec![shell("qemu", "printf '%4000s' end; kill -9 $$")]));
        assert!(keeper.end().success());
        assert!(fixture.history("console").tail.ends_with(b" end"));
    }
}

#[test]
fn a_process_may_have_a_log_of_its_own() {
    let fixture = Fixture::daemon();
    let mut helper = side("helper", "echo out; echo err >&2; touch written; exec sleep 1000");
    (helper.stdout, helper.stderr) = (Output::Log, Output::Log);
    let qemu = shell("qemu", "while [ ! -e written ]; do sleep 0.01; done; echo console");
    let mut keeper = fixture.start(&fixture.plan(vec![helper, qemu]));
    assert!(keeper.end().success());
    assert_eq!(fixture.history("log-helper").head, b"out\nerr\n");
    assert_eq!(fixture.history("console").head, b"console\n");
    assert_eq!(fixture.done().expect("recorded").ending, Ending::ProcessEnded { process: "qemu".into() });
}
