//! creeld and the commands that talk to it, with real machines. What needs systemd, KVM and cgroups is shown in the
//! booted host (`tests/kvm-host`).

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Daemon, Run, Sandbox, TINY, World, workflow};

const TEN_SECONDS: Duration = Duration::from_secs(10);

#[test]
fn a_machine_is_created_used_listed_and_removed() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let listed = daemon.output(["ps"]);
    assert!(listed.stdout.contains(&id) && listed.stdout.contains("ready"), "{listed:?}");

    let said =
        daemon.output(["exec", "-e", "WHO=me", &id, "--", "sh", "-c", "echo $WHO; echo no >&2; exit 7"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (7, "me\n", "no\n"));
    let killed = daemon.output(["exec", &id, "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137, "{killed:?}");
    assert!(killed.stderr.contains("killed by signal 9"), "{killed:?}");
    let late = daemon.output(["exec", "--timeout", "1s", &id, "--", "sleep", "100"]);
    assert_eq!(late.code, 124, "{late:?}");
    // Every byte, whatever it is.
    let bytes =
        sandbox.creel(["exec", &id, "--", "sh", "-c", r"printf '\377\000\n'"]).output().expect("creel runs");
    assert_eq!(bytes.stdout, b"\xff\0\n");

    let removed = daemon.output(["rm", &id]);
    assert_eq!((removed.code, removed.stdout.trim()), (0, id.as_str()), "{removed:?}");
    let ended = daemon.output(["ps", "-a"]);
    assert!(ended.stdout.contains(&id) && ended.stdout.contains("cancelled"), "{ended:?}");
    assert!(sandbox.machine_directory().is_none());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn bad_input_is_told_by_creeld_with_a_remedy() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    // `ps` has more to list than a daemon's machines, unless a daemon was asked for.
    let socket = sandbox.daemon_socket();
    let nobodies: [(&[&std::ffi::OsStr], i32); 3] = [
        (&["ps".as_ref()], 0),
        (&["ps".as_ref(), "--socket".as_ref(), socket.as_ref()], 3),
        (&["create".as_ref()], 3),
    ];
    for (arguments, code) in nobodies {
        let nobody = sandbox.creel(arguments).output().expect("creel runs");
        assert_eq!(nobody.status.code(), Some(code), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&nobody.stderr).contains("systemctl start creeld.socket"),
            "{nobody:?}"
        );
    }

    let daemon = Daemon::start(&sandbox);
    let cases: [(&[&str], i32, &str); 5] = [
        (&["create", "--image", "nope"], 2, "unknown image `nope`"),
        (&["create", "--image", TINY, "--memory-limit-mib", "100"], 3, "creel-machines.service"),
        (&["exec", "zzzzzzzzzz", "--", "true"], 2, "zzzzzzzzzz"),
        (&["exec", "../..", "--", "true"], 2, "creel ps"),
        (&["rm", "zzzzzzzzzz"], 2, "zzzzzzzzzz"),
    ];
    for (arguments, code, text) in cases {
        let said = daemon.output(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(said.stderr.contains(text), "{arguments:?}: {said:?}");
    }
}

#[test]
fn doctor_names_what_creeld_lacks_here_and_what_follows() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.creel(["doctor"]);
    command.env("CREEL_CGROUPS__ROOT", sandbox.root().join("no-cgroup"));
    let output = command.output().expect("creel runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let is_of = |line: &&str, name: &str| line.split_whitespace().nth(1) == Some(name);
    let line = |name: &str| text.lines().find(|line| is_of(line, name)).unwrap_or_default().to_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let cgroups = line("cgroups");
    assert!(cgroups.starts_with("limited") && cgroups.contains("no-cgroup"), "{text}");
    assert!(cgroups.contains("creeld refuses to make machines"), "{text}");
    let creeld = line("creeld");
    assert!(creeld.starts_with("limited") && creeld.contains("creeld does not run here"), "{text}");
    assert!(creeld.contains("`creel run` works without"), "{text}");

    let daemon = Daemon::start(&sandbox);
    let text = daemon.output(["doctor"]).stdout;
    assert!(text.lines().any(|line| line.starts_with("ok") && line.contains("machines: 0")), "{text}");
}

#[test]
fn a_run_takes_its_machine_from_a_creeld_that_answers() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let text = workflow(TINY, &[("say", "echo said; exit 4"), ("never", "echo never")]);
    let ended = Run::start(sandbox.workflow(&text)).finish();
    ended.expect_code(1).expect_stderr("step `say`: exited with code 4");
    assert_eq!(ended.stdout, b"said\n");
    let listed = || {
        let said = daemon.output(["ps", "-a", "--json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&said.stdout).expect("JSON");
        rows.iter()
            .map(|row| format!("{} {} {}", row["kind"], row["workflow"], row["run_ended_as"]))
            .collect::<Vec<_>>()
    };
    let of_creeld = r#""machine" "ci" "exited with code 4""#;
    assert_eq!(listed(), [of_creeld], "one machine was creeld's, and its run is the same row");

    let mut embedded = sandbox.workflow(&workflow(TINY, &[("say", "echo here")]));
    embedded.arg("--embedded");
    Run::start(embedded).finish().expect_code(0);
    assert_eq!(listed(), [of_creeld, r#""run" "ci" "ok""#], "the second was not");
}

#[test]
fn a_run_that_asks_for_a_creeld_that_is_not_there_does_not_run() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut run = sandbox.workflow(&workflow(TINY, &[("say", "echo said")]));
    run.arg("--socket").arg(sandbox.daemon_socket());
    let ended = Run::start(run).finish();
    ended.expect_code(3).expect_stderr("creeld does not run here");
    assert!(ended.stdout.is_empty());
}

#[test]
fn a_killed_run_takes_its_machine_along_and_no_other() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let daemon = Daemon::start(&sandbox);
    let other = daemon.create(TINY);
    let run = sandbox.start_step(TINY, "echo started; sleep 1000");
    run.wait_for_stdout("started");
    run.signal(Signal::KILL);
    crate::harness::wait_until(TEN_SECONDS, "only the other machine lives", || {
        daemon.output(["ps"]).stdout.lines().count() == 2
    });
    let said = daemon.output(["exec", &other, "--", "echo", "alive"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "alive\n"), "{said:?}");
}

#[test]
fn a_creeld_that_is_stopped_ends_its_machines_and_their_clients_are_told() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let run = sandbox.start_step(TINY, "echo started; sleep 1000");
    run.wait_for_stdout("started");
    assert_eq!(daemon.stop(), Some(0));
    let ended = run.finish();
    assert_ne!(ended.code, Some(0), "{}", ended.stderr);
    ended.expect_stderr("step `step`: cancelled");
    sandbox.expect_nothing_left_within(TEN_SECONDS);
}

#[test]
fn a_killed_creeld_leaves_nothing_where_nothing_could_find_it_again_and_the_next_one_serves() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let run = sandbox.start_step(TINY, "echo started; sleep 1000");
    run.wait_for_stdout("started");
    daemon.kill();
    run.finish().expect_code(125).expect_stderr("lost the connection to creeld");
    sandbox.expect_no_process_within(TEN_SECONDS);
    let next = Daemon::start(&sandbox);
    let id = next.create(TINY);
    assert_eq!(next.output(["exec", &id, "--", "true"]).code, 0);
    assert_eq!(next.output(["rm", "--force", &id]).code, 0);
    assert_eq!(next.stop(), Some(0));
}
