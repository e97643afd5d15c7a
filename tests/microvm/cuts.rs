//! The connection to the agent breaks while a step writes, and while a program reads.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::harness::{Daemon, Noise, Repository, Run, Sandbox, TINY, World, cut};

const BYTES: usize = 100 << 20;

/// Between two cuts: about as long as a connection takes to come back.
const PAUSES_MS: [u64; 7] = [150, 40, 310, 90, 220, 15, 500];

#[test]
fn a_hundred_mebibytes_of_a_step_are_logged_complete_and_undoubled_however_often_the_connection_is_cut() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let repository = Repository::create(sandbox.work_dir().join("project"));
    let sent = Noise::take(BYTES);
    repository.write("noise", &sent);
    let text = "engine: microvm\nimage: tiny\nwhen:\n  - event: manual\nsteps:\n  - name: say\n    command: cat noise\n";
    repository.write("ci.yml", text);
    repository.commit();
    let mut command = sandbox.creel(["run", "-f", "ci.yml"]);
    command.current_dir(&repository.path).env("CREEL_LOGS__MAX_STEP", "512MiB");
    let run = Run::start(command);
    run.wait_for_stdout_bytes(1);
    let agent = sandbox.machine_directory().expect("a machine").join("sockets/vsock_824");
    let (mut cuts, mut tries) = (0, 0);
    while run.stdout_len() < BYTES && run.is_running() {
        cuts += cut(run.pid().as_raw_nonzero().get().cast_unsigned(), &agent).expect("its sockets");
        std::thread::sleep(Duration::from_millis(PAUSES_MS[tries % PAUSES_MS.len()]));
        tries += 1;
    }
    let ended = run.finish();
    eprintln!("{cuts} cuts in {:?}", ended.took);
    ended.expect_code(0);
    assert!(cuts >= 5, "only {cuts} cuts");
    assert_eq!(ended.stdout.len(), sent.len());
    assert_eq!(Sha256::digest(&ended.stdout), Sha256::digest(&sent), "the log is not what was written");
}

#[test]
fn input_reaches_a_program_whole_across_cuts_and_its_exit_is_told() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let agent = sandbox.machine_directory().expect("a machine").join("sockets/vsock_824");
    let mut command = sandbox.creel(["exec", "-i", &id, "--", "sh", "-c", "sha256sum; exit 7"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("creel starts");
    let sent = Noise::take(32 << 20);
    let digest: String = Sha256::digest(&sent).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut input = child.stdin.take().expect("a pipe");
    let pouring = std::thread::spawn(move || input.write_all(&sent));
    let started = Instant::now();
    let mut cuts = 0;
    for pause in PAUSES_MS {
        std::thread::sleep(Duration::from_millis(pause));
        cuts += cut(daemon.pid().as_raw_nonzero().get().cast_unsigned(), &agent).expect("its sockets");
    }
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("the sum");
    pouring.join().expect("it pours").expect("all was taken");
    assert_eq!(child.wait().expect("its status").code(), Some(7), "{}", daemon.log());
    assert_eq!(said.split_whitespace().next(), Some(digest.as_str()));
    eprintln!("{cuts} cuts in {:?}", started.elapsed());
    assert!(cuts >= 2, "only {cuts} cuts");
}
