//! What the service manager is told, and what it may ask for.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Place, TCG, ask};

#[test]
fn readiness_comes_when_the_api_answers_and_the_status_says_what_the_host_can_do() {
    let place = Place::new();
    let creeld = place.start(place.creeld());
    let (ready, _) = place.told("READY=1");
    assert!(ready.contains("STATUS=no machines"), "{ready}");
    assert!(ask(&place.socket()).join().unwrap());
    place.status_with("no machines; tcg, hybrid transport");
    let log = creeld.log();
    for line in ["creeld starts", "bound here", "cgroups=auto", "QEMU does not promise to isolate"] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
}

#[test]
fn a_host_that_can_run_no_machines_is_served_and_named() {
    let place = Place::new();
    fs::remove_file(place.path("qemu")).unwrap();
    let creeld = place.start(place.creeld());
    place.told("READY=1");
    let status = place.status_with("CAN'T RUN MACHINES");
    assert!(status.contains("qemu"), "{status}");
    assert!(creeld.log().contains("no machines can be run"), "{}", creeld.log());
    assert!(ask(&place.socket()).join().unwrap());
}

#[test]
fn emulation_that_is_not_allowed_is_said_loudly() {
    let place = Place::new();
    place.configure("[machine]\naccel = \"tcg\"\ntransport = \"hybrid\"\n");
    let _creeld = place.start(place.creeld());
    let status = place.status_with("CAN'T RUN MACHINES");
    assert!(status.contains("machine.allow_tcg"), "{status}");
}

#[test]
fn signs_of_life_come_in_time() {
    const LIMIT: Duration = Duration::from_secs(2);
    let place = Place::new();
    let mut command = place.creeld();
    command.env("WATCHDOG_USEC", LIMIT.as_micros().to_string());
    let _creeld = place.start(command);
    let (_, mut last) = place.told("READY=1");
    for _ in 0..3 {
        let (_, at) = place.told("WATCHDOG=1");
        assert!(at - last < LIMIT, "{:?} without a sign of life", at - last);
        last = at;
    }
}

#[test]
fn nobody_is_pinged_who_did_not_ask() {
    let place = Place::new();
    let mut command = place.creeld();
    // Another process's watchdog (sd_watchdog_enabled(3)).
    command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let mut creeld = place.start(command);
    place.status_with("hybrid transport");
    creeld.signal(Signal::TERM);
    let (next, _) = place.told("=1");
    assert!(next.contains("STOPPING=1"), "{next}");
    assert!(creeld.ended().success());
}

#[test]
fn a_good_configuration_is_taken_and_a_bad_one_leaves_the_old_in_force() {
    let place = Place::new();
    let creeld = place.start(place.creeld());
    place.status_with("tcg, hybrid transport");

    place.configure("[machine]\naccel = \"warp\"\n[nosuch]\n");
    creeld.signal(Signal::HUP);
    let (reloading, _) = place.told("RELOADING=1");
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let seconds = i64::try_from(micros.parse::<u64>().unwrap() / 1_000_000).unwrap();
    assert!((since_boot.tv_sec - 60..=since_boot.tv_sec).contains(&seconds), "{reloading}");
    let (ready, _) = place.told("READY=1");
    assert!(ready.contains("2 problems") && ready.contains("tcg, hybrid"), "{ready}");
    let log = creeld.log();
    assert!(log.contains("`warp`") && log.contains("`nosuch`"), "{log}");
    assert!(ask(&place.socket()).join().unwrap());

    // New machines are made by the new one: what it forbids shows at once.
    place.configure("[machine]\naccel = \"tcg\"\ntransport = \"hybrid\"\n");
    creeld.signal(Signal::HUP);
    let (ready, _) = place.told("READY=1");
    assert!(!ready.contains("problem"), "{ready}");
    place.status_with("CAN'T RUN MACHINES");

    place.configure(TCG);
    creeld.signal(Signal::HUP);
    place.status_with("tcg, hybrid transport");
    assert!(ask(&place.socket()).join().unwrap());
}

#[test]
fn what_takes_effect_at_a_restart_only_is_said() {
    let place = Place::new();
    let creeld = place.start(place.creeld());
    place.told("READY=1");
    place.configure(&TCG.replace("hybrid", "kernel"));
    creeld.signal(Signal::HUP);
    place.told("READY=1");
    place.status_with("tcg, hybrid transport");
    assert!(creeld.log().contains("`machine.transport` has changed"), "{}", creeld.log());
}

#[test]
fn a_request_to_end_is_followed_in_bounded_time() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut creeld = place.start(place.creeld());
        place.told("READY=1");
        let asked = Instant::now();
        creeld.signal(signal);
        let (stopping, _) = place.told("STOPPING=1");
        assert!(stopping.contains("EXTEND_TIMEOUT_USEC=30000000"), "{stopping}");
        assert!(creeld.ended().success(), "{}", creeld.log());
        assert!(asked.elapsed() < Duration::from_secs(30));
        assert!(!place.socket().exists(), "its own socket goes with it");
    }
}

#[test]
fn none_of_it_is_needed() {
    let place = Place::new();
    let mut command = place.creeld();
    command.env_remove("NOTIFY_SOCKET");
    let mut creeld = place.start(command);
    // Nobody tells us, so the socket does.
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while std::os::unix::net::UnixStream::connect(place.socket()).is_err() {
        assert!(Instant::now() < deadline, "{}", creeld.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ask(&place.socket()).join().unwrap());
    creeld.signal(Signal::TERM);
    assert!(creeld.ended().success());
}
