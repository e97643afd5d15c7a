//! How machines end, and what is left of them: a real keeper over real processes.

mod fixture;

use std::fs;
use std::time::{Duration, Instant};

use creel_keeper::{Ending, Output, ProcessEnd, Program};
use fixture::{Fixture, is_dead, lives_as, open_fds, shell, side, until};
use rustix::process::Signal;

#[test]
fn the_exit_of_the_main_process_ends_the_machine_and_everything_is_recorded() {
    let fixture = Fixture::daemon();
    let mut keeper = fixture.start(&fixture.plan(vec![
        side("early", "exit 3"),
        side("helper", &lives_as("helper.pid")),
        shell("qemu", "while [ ! -e helper.pid ]; do sleep 0.01; done; echo over; exit 7"),
    ]));
    assert!(keeper.end().success());

    assert_eq!(fixture.exit("early").expect("recorded").end, ProcessEnd::Exited { code: 3 });
    let helper = fixture.exit("helper").expect("recorded");
    assert_eq!(helper.end, ProcessEnd::Signalled { signal: 9, core_dumped: false });
    let qemu = fixture.exit("qemu").expect("recorded");
    assert_eq!(qemu.end, ProcessEnd::Exited { code: 7 });
    assert!(qemu.started_at_unix_ns > 0 && qemu.started_at_unix_ns <= qemu.ended_at_unix_ns);
    assert!(qemu.usage.max_rss_kib > 0);
    let done = fixture.done().expect("recorded");
    assert_eq!(done.ending, Ending::ProcessEnded { process: "qemu".into() });
    assert!(done.left_behind.is_empty());
    assert!(done.ended_at_unix_ns >= helper.ended_at_unix_ns);
    assert_eq!(fixture.history("console").head, b"over\n");
    assert!(is_dead(fixture.pid("helper.pid")));
}

#[test]
fn a_signal_is_recorded_as_one() {
    let fixture = Fixture::daemon();
    let mut keeper = fixture.start(&fixture.plan(vec![shell("qemu", "kill -SEGV $$")]));
    assert!(keeper.end().success());
    let end = fixture.exit("qemu").expect("recorded").end;
    assert_eq!(end, ProcessEnd::Signalled { signal: 11, core_dumped: false });
}

#[test]
fn sigterm_ends_all_and_leaves_the_directory() {
    let fixture = Fixture::embedded();
    let mut keeper = fixture.start(
        &fixture.plan(vec![side("helper", &lives_as("helper.pid")), shell("qemu", &lives_as("qemu.pid"))]),
    );
    let pids = [fixture.pid("helper.pid"), fixture.pid("qemu.pid")];
    keeper.signal(Signal::TERM);
    assert!(keeper.end().success());
    assert!(pids.into_iter().all(is_dead));
    assert_eq!(fixture.done().expect("recorded").ending, Ending::Terminated);
    let killed = ProcessEnd::Signalled { signal: 9, core_dumped: false };
    assert_eq!(fixture.exit("qemu").expect("recorded").end, killed);
    assert_eq!(fixture.exit("helper").expect("recorded").end, killed);
}

#[test]
fn what_a_terminal_sends_ends_nothing() {
    let fixture = Fixture::daemon();
    let fifo = fixture.path().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .expect("a fifo");
    let script = "echo $$ > pid.tmp; mv pid.tmp pid; cat go; exit 5";
    let mut keeper = fixture.start(&fixture.plan(vec![shell("qemu", script)]));
    fixture.pid("pid");
    for signal in [Signal::INT, Signal::HUP, Signal::QUIT] {
        keeper.signal(signal);
    }
    drop(fs::OpenOptions::new().write(true).open(&fifo).expect("opened when the script reads"));
    assert!(keeper.end().success());
    assert_eq!(fixture.exit("qemu").expect("recorded").end, ProcessEnd::Exited { code: 5 });
}

#[test]
fn nothing_is_left_within_a_second_of_the_owners_death() {
    let mut fixture = Fixture::embedded();
    let mut keeper = fixture.start(
        &fixture.plan(vec![side("helper", &lives_as("helper.pid")), shell("qemu", &lives_as("qemu.pid"))]),
    );
    let pids = [fixture.pid("helper.pid"), fixture.pid("qemu.pid")];
    let died_at = Instant::now();
    fixture.owner_dies();
    assert!(keeper.end().success());
    assert!(died_at.elapsed() < Duration::from_secs(1), "promised in SECURITY.md");
    assert!(pids.into_iter().all(is_dead));
    assert!(!fixture.path().exists());
}

#[test]
fn an_owner_that_was_dead_before_is_cleaned_up_after_as_well() {
    let mut fixture = Fixture::embedded();
    fixture.owner_dies();
    let proof = tempfile::tempdir().expect("a scratch directory");
    let script = format!("touch {}/ran", proof.path().display());
    let mut keeper = fixture.start(&fixture.plan(vec![shell("qemu", &script)]));
    assert!(keeper.end().success());
    assert!(!fixture.path().exists());
    assert!(!proof.path().join("ran").exists(), "nothing is started for a dead owner");
}

#[test]
fn a_killed_keeper_takes_its_children_along() {
    let fixture = Fixture::daemon();
    let mut keeper = fixture.start(
        &fixture.plan(vec![side("helper", &lives_as("helper.pid")), shell("qemu", &lives_as("qemu.pid"))]),
    );
    let pids = [fixture.pid("helper.pid"), fixture.pid("qemu.pid")];
    keeper.signal(Signal::KILL);
    assert!(!keeper.end().success());
    until("the children's death", || pids.into_iter().all(is_dead));
    assert!(fixture.done().is_none());
}

#[test]
fn orphans_in_sessions_of_their_own_do_not_escape() {
    let fixture = Fixture::daemon();
    let script =
        format!("setsid sh -c '{}' & while [ ! -e orphan.pid ]; do sleep 0.01; done", lives_as("orphan.pid"));
    let mut keeper = fixture.start(&fixture.plan(vec![shell("qemu", &script)]));
    assert!(keeper.end().success());
    assert!(is_dead(fixture.pid("orphan.pid")));
    assert!(fixture.done().expect("recorded").left_behind.is_empty());
}

#[test]
fn a_program_that_can_not_be_executed_is_reported_with_its_error_number() {
    let fixture = Fixture::daemon();
    let mut qemu = shell("qemu", "");
    qemu.program = Program::Path("/nonexistent/qemu".into());
    let mut keeper = fixture.start(&fixture.plan(vec![side("helper", &lives_as("helper.pid")), qemu]));
    assert_eq!(keeper.end().code(), Some(1));
    let ProcessEnd::FailedToStart { error, errno } = fixture.exit("qemu").expect("recorded").end else {
        panic!("it did not start");
    };
    assert_eq!(errno, Some(2));
    assert!(error.contains("failed to execute the program"), "{error}");
    let done = fixture.done().expect("recorded");
    assert!(matches!(done.ending, Ending::StartFailed { process, .. } if process == "qemu"));
    assert!(matches!(fixture.exit("helper").expect("recorded").end, ProcessEnd::Signalled { signal: 9, .. }));
}

#[test]
fn a_process_has_exactly_what_was_planned() {
    let fixture = Fixture::daemon();
    let passed = fs::File::open("/dev/zero").expect("open");
    let mut qemu = shell("qemu", &lives_as("qemu.pid"));
    // Its number in the keeper is a target too, so a naive dup2 would hand over the wrong file.
    let number = std::os::fd::AsRawFd::as_raw_fd(&passed);
    let grant = |from, to| creel_keeper::FdGrant { from, to };
    qemu.fds = vec![
        grant(creel_keeper::FdSource::Console, number),
        grant(creel_keeper::FdSource::Fd(number), number + 1),
        grant(creel_keeper::FdSource::Fd(number), 40),
    ];
    qemu.stdout = Output::Null;
    let keeper = fixture.start(&fixture.plan(vec![qemu]));
    let pid = fixture.pid("qemu.pid");
    until("the last exec", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    });
    assert_eq!(open_fds(pid), [0, 1, 2, number, number + 1, 40]);
    let target = |fd: i32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).expect("open").display().to_string();
    assert_eq!((target(0).as_str(), target(1).as_str()), ("/dev/null", "/dev/null"));
    assert_eq!(target(2), target(number));
    assert!(target(2).starts_with("pipe:"));
    assert_eq!((target(number + 1).as_str(), target(40).as_str()), ("/dev/zero", "/dev/zero"));

    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("SigBlk:"), "0000000000000000");
    assert_eq!(field("SigIgn:"), "0000000000000000");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let after_name: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    assert_eq!(after_name[3], pid.to_string(), "it leads its own session");

    let kept = open_fds(keeper.0.id());
    let files: Vec<_> = kept
        .iter()
        .map(|fd| fs::read_link(format!("/proc/{}/fd/{fd}", keeper.0.id())).expect("open"))
        .collect();
    assert!(!files.iter().any(|file| file.ends_with("zero")), "the keeper keeps no copy: {files:?}");
}

#[test]
fn a_directory_that_takes_no_files_does_not_stop_the_keeper() {
    let fixture = Fixture::daemon();
    let plan = fixture.plan(vec![shell("qemu", "head -c 1000000 /dev/zero; exit 4")]);
    fs::remove_dir(fixture.path()).expect("empty");
    let mut keeper = fixture.start(&plan);
    assert!(keeper.end().success());
}

#[test]
fn a_plan_of_another_version_is_refused() {
    let fixture = Fixture::daemon();
    let mut plan = fixture.plan(vec![shell("qemu", "true")]);
    plan.version += 1;
    assert_eq!(fixture.start(&plan).end().code(), Some(2));
    assert!(fixture.done().is_none());
}
