//! creeld and the commands that talk to it, with real machines. What needs systemd, KVM and cgroups is shown in the
//! booted host (`tests/kvm-host`).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Daemon, Run, Sandbox, TINY, World, wait_until, workflow};

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

/// The line of `creel doctor` that has this name.
fn finding(report: &str, name: &str) -> String {
    let is_named = |line: &&str| line.split_whitespace().nth(1) == Some(name);
    report.lines().find(is_named).unwrap_or_else(|| panic!("no line `{name}` in {report}")).to_owned()
}

#[test]
fn doctor_names_what_creeld_lacks_here_and_what_follows() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.creel(["doctor"]);
    command.env("CREEL_CGROUPS__ROOT", sandbox.root().join("no-cgroup"));
    let output = command.output().expect("creel runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let cgroups = finding(&text, "cgroups");
    assert!(cgroups.starts_with("limited") && cgroups.contains("no-cgroup"), "{text}");
    assert!(cgroups.contains("creeld refuses to make machines"), "{text}");
    let creeld = finding(&text, "creeld");
    assert!(creeld.starts_with("limited") && creeld.contains("creeld does not run here"), "{text}");
    assert!(creeld.contains("`creel run` works without"), "{text}");

    let daemon = Daemon::start(&sandbox);
    let text = daemon.output(["doctor"]).stdout;
    assert!(text.lines().any(|line| line.starts_with("ok") && line.contains("machines: 0")), "{text}");
}

#[test]
fn doctor_says_what_takes_the_place_of_kvm_and_of_the_kernel_s_vsock_and_what_follows() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    // Whatever this host has, the trial of KVM fails with it.
    let qemu = sandbox.work_dir().join("qemu");
    let script = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'QEMU emulator version 7.2.0'; exit; fi\n\
                  echo 'broken underneath' >&2\nexit 1\n";
    fs::write(&qemu, script).expect("a program");
    fs::set_permissions(&qemu, Permissions::from_mode(0o755)).expect("a program's mode");
    let mut command = sandbox.creel(["doctor"]);
    command.env("CREEL_QEMU__PATH", &qemu);
    let output = command.output().expect("creel runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "workflows can run all the same: {text}");

    let kvm = finding(&text, "kvm");
    assert!(kvm.starts_with("limited") && kvm.contains("/dev/kvm"), "{text}");
    for consequence in ["guests are emulated", "many times slower", "run only what you trust"] {
        assert!(kvm.contains(consequence), "`{consequence}`: {text}");
    }

    let device = "/dev/vhost-vsock";
    let vsock = finding(&text, "vsock");
    if Path::new(device).exists() {
        assert!(vsock.starts_with("ok") && vsock.contains(device), "{text}");
    } else {
        assert!(vsock.starts_with("limited") && vsock.contains(device), "{text}");
        assert!(vsock.contains("through a helper process each, which is slower"), "{text}");
        assert!(text.contains("-> modprobe vhost_vsock"), "{text}");
    }
}

#[test]
fn a_machine_has_as_many_cpus_as_were_asked_for_or_there_is_none() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let create = |vcpus: usize| daemon.output(["create", "--image", TINY, "--vcpus", &vcpus.to_string()]);
    let cpus = std::thread::available_parallelism().expect("a number of CPUs").get();
    let refused = create(cpus + 1);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains(&format!("this host has {cpus}")), "{refused:?}");

    let wanted = cpus.min(2);
    let created = create(wanted);
    assert_eq!(created.code, 0, "{created:?}");
    let id = created.stdout.trim();
    let seen = daemon.output(["exec", id, "--", "nproc"]);
    assert_eq!((seen.code, seen.stdout), (0, format!("{wanted}\n")), "{}", seen.stderr);
    assert_eq!(daemon.output(["rm", "--force", id]).code, 0);
}

#[test]
fn statistics_are_told_each_second_until_their_machine_has_ended() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let watching = Run::start(sandbox.creel(["stats", "--watch", &id]));
    wait_until(TEN_SECONDS, "a heading and two lines", || watching.stdout_so_far().lines().count() >= 3);
    assert_eq!(daemon.output(["rm", "--force", &id]).code, 0);
    let ended = watching.finish();
    ended.expect_code(0);
    let text = ended.text();
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(|heading| heading.starts_with("ID ")), "{}", ended.said());
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().all(|row| row[0] == id), "{}", ended.said());
    // A share of a CPU takes two looks.
    assert_eq!(rows[0][1..3], ["ready", "-"], "{}", ended.said());
    assert!(rows[1][1] == "ready" && rows[1][2].ends_with('%'), "{}", ended.said());
    assert_eq!(rows.last().map(|row| row[1]), Some("ended"), "{}", ended.said());
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
    wait_until(TEN_SECONDS, "only the other machine lives", || {
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

#[test]
fn what_is_written_down_of_machines_outlives_creeld_and_the_next_one_removes_it_with_them() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let state = |arguments: &[&str]| {
        let output = sandbox.creel(["debug", "state"].iter().chain(arguments)).output().expect("creel runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let records = || -> Vec<Value> { serde_json::from_str(&state(&["--json"])).expect("JSON") };
    assert!(records().is_empty());
    let id = daemon.create(TINY);
    let [record] = records().try_into().expect("one");
    assert_eq!(
        (&record["id"], &record["stage"], &record["image"]),
        (&json!(id), &json!("ready"), &json!(TINY))
    );
    assert_eq!(record["keeper_lives"], true);
    let keeper = record["keeper"]["pid"].as_u64().expect("a pid").to_string();
    assert!(fs::read_to_string(format!("/proc/{keeper}/comm")).expect("it runs").starts_with("creel-keeper"));
    let directory = sandbox.root().join("state/machines");
    let of_it = fs::read_to_string(directory.join(format!("{id}.json"))).expect("a record");
    assert!(state(&[&id]).contains(&keeper));

    daemon.kill();
    sandbox.expect_no_process_within(TEN_SECONDS);
    assert_eq!(
        records()[0]["keeper_lives"],
        false,
        "nothing could find it again, so it has ended with creeld"
    );
    assert!(state(&[]).contains("gone"));
    fs::write(directory.join("aaaaaaaaaa.json"), &of_it[..of_it.len() / 2]).expect("half a record");
    let newer = of_it.replace("\"version\": 1", "\"version\": 2").replace(&id, "bbbbbbbbbb");
    fs::write(directory.join("bbbbbbbbbb.json"), newer).expect("a record from the future");
    let told = state(&[]);
    assert!(told.contains("aaaaaaaaaa   damaged: ") && told.contains("a newer creel wrote it"), "{told}");
    assert!(told.contains(&id), "{told}");

    let next = Daemon::start(&sandbox);
    wait_until(TEN_SECONDS, "the records of the gone are removed", || records().len() == 1);
    assert_eq!(records()[0]["id"], "bbbbbbbbbb", "it may be somebody's");
    let log = next.log();
    for said in [
        "removed the records of machines that are gone",
        "is damaged, and the machine is gone",
        "is left as it is",
    ] {
        assert!(log.contains(said), "{said}:\n{log}");
    }
    let id = next.create(TINY);
    assert_eq!(next.output(["rm", "--force", &id]).code, 0);
    assert_eq!(records().len(), 1, "the record goes with the machine");
    assert_eq!(next.stop(), Some(0));
}
