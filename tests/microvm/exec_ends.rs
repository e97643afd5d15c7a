//! Programs of `creel exec` that are ended: by their caller's signal, by their time, by `creel kill`.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Daemon, Run, Sandbox, TINY, World};

/// The guest's grace between SIGTERM and SIGKILL, and as much again for an emulated guest to die and to be asked.
const ALL_GONE: Duration = Duration::from_secs(4);

/// A creel that was killed can't say that it gives up: its exec waits so long for one that attaches.
const LINGER: Duration = Duration::from_secs(6);

/// Between two looks: each is work for the guest too.
const PAUSE: Duration = Duration::from_millis(100);

/// A program with a child, and a daemon: two forks and a session away from it, deaf to SIGTERM.
const FAMILY: &str =
    "(setsid sh -c \"trap '' TERM HUP; sleep 54321; true\" &) ; sleep 54322 & echo started; wait";

/// How many processes of the guest have a command line with `mark` in it.
fn running(daemon: &Daemon<'_>, id: &str, mark: &str) -> usize {
    let said = daemon.output(["exec", id, "--", "ps", "-o", "args"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout.lines().filter(|line| line.contains(mark)).count()
}

/// # Panics
/// When something of [`FAMILY`] lives longer than was promised.
fn expect_all_gone(daemon: &Daemon<'_>, id: &str, since: Instant, promised: Duration) {
    loop {
        let left = running(daemon, id, "sleep 5432");
        if left == 0 {
            eprintln!("all gone after {:?}", since.elapsed());
            return;
        }
        assert!(since.elapsed() < promised, "{left} processes are left after {:?}", since.elapsed());
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn who_gives_an_exec_up_ends_all_that_it_started_while_others_go_on() {
    let Some(world) = World::get() else { return };
    // Promised bounds are measured where nobody else has the CPUs.
    let sandbox = Sandbox::alone(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let other = Run::start(
        sandbox.creel(
            ["exec", "--id", "other", &id, "--", "sh", "-c"]
                .into_iter()
                .chain(["trap 'echo heard; exit 7' USR1; echo started; while :; do sleep 1; done"]),
        ),
    );
    other.wait_for_stdout("started");
    let family = || Run::start(sandbox.creel(["exec", &id, "--", "sh", "-c", FAMILY]));

    for signal in [Signal::INT, Signal::TERM] {
        let run = family();
        run.wait_for_stdout("started");
        assert!(running(&daemon, &id, "sleep 5432") >= 2);
        let since = Instant::now();
        run.signal_group(signal);
        run.finish().expect_code(130).expect_stderr("cancelled").expect_within(Duration::from_secs(1), since);
        expect_all_gone(&daemon, &id, since, ALL_GONE);
    }

    let late = Run::start(sandbox.creel(["exec", "--timeout", "3s", &id, "--", "sh", "-c", FAMILY]));
    let ended = late.finish();
    ended.expect_code(124);
    assert_eq!(ended.text(), "started\n");
    expect_all_gone(&daemon, &id, ended.at, ALL_GONE);

    let killed = family();
    killed.wait_for_stdout("started");
    let since = Instant::now();
    killed.signal(Signal::KILL);
    killed.finish();
    expect_all_gone(&daemon, &id, since, LINGER + ALL_GONE);

    let sent = daemon.output(["kill", "--exec", "other", "-s", "usr1", &id]);
    assert_eq!((sent.code, sent.stdout.as_str(), sent.stderr.as_str()), (0, "", ""), "{sent:?}");
    let ended = other.finish();
    ended.expect_code(7);
    assert_eq!(ended.text(), "started\nheard\n", "it went on all the time");
    let gone = daemon.output(["kill", "--exec", "other", &id]);
    assert_eq!(gone.code, 2, "{gone:?}");
    assert!(gone.stderr.contains("no exec `other`"), "{gone:?}");

    let killed = daemon.output(["kill", &id]);
    assert_eq!((killed.code, killed.stdout.as_str(), killed.stderr.as_str()), (0, "", ""), "{killed:?}");
    assert!(sandbox.machine_directory().is_none());
}
