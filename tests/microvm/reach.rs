//! An embedded run is reached from other terminals while it lives, beside a creeld or without one.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Daemon, Run, Sandbox, TINY, World, workflow};

/// What a command said, and its exit code.
fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("creel runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The ids of the machines that `creel ps` lists.
fn ids(sandbox: &Sandbox) -> Vec<String> {
    let (code, stdout, stderr) = said(&mut sandbox.creel(["ps", "--json"]));
    assert_eq!(code, Some(0), "{stderr}");
    let listed: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let machines = listed.as_array().expect("an array").iter();
    machines.map(|machine| machine["id"].as_str().expect("an id").to_owned()).collect()
}

fn sockets(sandbox: &Sandbox) -> usize {
    let entries = std::fs::read_dir(sandbox.run_dir()).expect("a run directory").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".sock")).count()
}

#[test]
fn the_machine_of_a_run_is_listed_used_watched_and_ended_from_another_terminal() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let run = sandbox.start_step(TINY, "echo started; sleep 1000");
    run.wait_for_stdout("started");
    let following = Run::start(sandbox.creel(["events", "-f"]));
    following.wait_for_stdout("exec-started");
    let [id] = &ids(&sandbox)[..] else { panic!("one machine") };

    let (code, stdout, _) = said(&mut sandbox.creel(["ps"]));
    assert!(code == Some(0) && stdout.contains(id) && stdout.contains("ready"), "{stdout}");
    let exec = said(&mut sandbox.creel(["exec", id, "--", "sh", "-c", "echo here; exit 7"]));
    assert_eq!((exec.0, exec.1.as_str()), (Some(7), "here\n"), "{}", exec.2);

    let (code, stdout, stderr) = said(&mut sandbox.creel(["stats", "--json", id]));
    assert_eq!(code, Some(0), "{stderr}");
    let stats: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(stats[0]["execs"], 1, "{stats}");
    for number in ["memory_bytes", "cpu_us", "pids"] {
        assert!(stats[0][number].as_u64() > Some(1), "`{number}`: {stats}");
    }
    let (_, table, _) = said(&mut sandbox.creel(["stats"]));
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with(id.as_str())), "{table}");

    let (code, stdout, stderr) = said(&mut sandbox.creel(["inspect", "--json", "--console", id]));
    assert_eq!(code, Some(0), "{stderr}");
    let seen: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&seen["image"], &seen["limits"]), (&TINY.into(), &serde_json::Value::Null), "{seen}");
    let phases: Vec<_> =
        seen["setup"].as_array().expect("phases").iter().map(|phase| &phase["phase"]).collect();
    assert_eq!(phases, ["prepare", "spawn", "boot", "handshake"]);
    assert!(
        seen["setup"].as_array().expect("phases").iter().all(|phase| phase["took_us"].is_u64()),
        "{seen}"
    );
    let names: Vec<_> = seen["processes"].as_array().expect("processes").iter().collect();
    assert!(
        names.iter().any(|process| process["name"].as_str().is_some_and(|name| name.starts_with("qemu")))
    );
    assert!(seen["console_tail"].as_str().is_some_and(|tail| !tail.is_empty()), "{seen}");
    let (code, console, stderr) = said(&mut sandbox.creel(["logs", "--console", id]));
    assert!(code == Some(0) && console.contains("Linux version"), "{stderr}");

    let created = said(&mut sandbox.creel(["create", "--image", TINY]));
    assert_eq!(created.0, Some(3), "machines are created by creeld alone: {}", created.2);

    let (code, removed, stderr) = said(&mut sandbox.creel(["rm", id]));
    assert_eq!((code, removed.trim()), (Some(0), id.as_str()), "{stderr}");
    run.finish().expect_code(130).expect_stderr("step `step`: cancelled");
    let told = following.finish();
    told.expect_code(0);
    let words = ["created", "ready", "exec-started", "exec-ended", "ending", "ended"];
    let mut rest = told.text();
    for word in words {
        let at = rest.find(&format!("{id}  {word}")).unwrap_or_else(|| panic!("`{word}` in {}", told.said()));
        rest = rest.split_off(at + 1);
    }
    assert_eq!((sockets(&sandbox), ids(&sandbox)), (0, Vec::<String>::new()));
}

#[test]
fn a_killed_run_is_not_listed_and_its_socket_goes_with_the_next_look() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let killed = sandbox.start_step(TINY, "echo started; sleep 1000");
    killed.wait_for_stdout("started");
    let gone = ids(&sandbox);
    killed.signal(Signal::KILL);
    killed.finish();
    assert_eq!(sockets(&sandbox), 1);
    let living = sandbox.start_step(TINY, "echo started; sleep 1000");
    living.wait_for_stdout("started");
    assert_eq!(sockets(&sandbox), 1, "the next run has removed it");
    let listed = ids(&sandbox);
    assert!(listed.len() == 1 && listed != gone, "{listed:?}, not {gone:?}");
    let (code, _, stderr) = said(&mut sandbox.creel(["exec", &gone[0], "--", "true"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains(&gone[0]) && stderr.contains("run-") && stderr.contains("creel ps"), "{stderr}");
    living.signal(Signal::KILL);
    living.finish();
    assert_eq!(ids(&sandbox), Vec::<String>::new());
    assert_eq!(sockets(&sandbox), 0, "looking has removed it");
    sandbox.expect_nothing_left_within(Duration::from_secs(2));
}

#[test]
fn machines_of_a_creeld_and_of_a_run_are_one_list() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let daemon = Daemon::start(&sandbox);
    let detached = daemon.create(TINY);
    let text = workflow(TINY, &[("step", "echo started; sleep 1000")]);
    let mut command = sandbox.workflow(&text);
    command.arg("--embedded");
    let run = Run::start(command);
    run.wait_for_stdout("started");
    let both = ids(&sandbox);
    assert!(both.len() == 2 && both[0] == detached, "oldest first: {both:?}");
    for id in &both {
        assert_eq!(daemon.output(["exec", id, "--", "echo", "here"]).stdout, "here\n");
        assert!(daemon.output(["stats"]).stdout.contains(id.as_str()));
        assert!(daemon.output(["events"]).stdout.contains(&format!("{id}  ready")));
    }
    let socket = sandbox.daemon_socket().display().to_string();
    let alone = daemon.output(["stats", "--socket", &socket]).stdout;
    assert!(alone.contains(&both[0]) && !alone.contains(&both[1]), "{alone}");
    let unknown = daemon.output(["inspect", "zzzzzzzzzz"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains(&socket) && unknown.stderr.contains("run-"), "{unknown:?}");
    let removed = daemon.output(["rm", "--force", &both[0], &both[1]]);
    assert_eq!((removed.code, removed.stdout), (0, format!("{}\n{}\n", both[0], both[1])));
    run.finish().expect_code(130);
    assert_eq!(ids(&sandbox), Vec::<String>::new(), "creeld still answers");
}

#[test]
fn neither_a_stopped_run_nor_a_stopped_follower_holds_up_others() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let run = sandbox.start_step(TINY, "echo started; sleep 1000");
    run.wait_for_stdout("started");
    let follower = Run::start(sandbox.creel(["events", "-f"]));
    follower.wait_for_stdout("exec-started");
    follower.signal(Signal::STOP);
    run.signal(Signal::STOP);
    // The run is known by its record, though its machine can't be asked for.
    let (code, listed, stderr) = said(&mut sandbox.creel(["ps"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(listed.contains("running") && stderr.contains("does not answer"), "{listed}{stderr}");
    run.signal(Signal::CONT);
    let since = Instant::now();
    run.signal(Signal::TERM);
    run.finish().expect_code(130).expect_within(Duration::from_secs(2), since);
    follower.signal(Signal::CONT);
    follower.finish();
}
