//! Bytes of `creel exec` in a real microVM: a gibibyte each way, text that is none, many programs at once, and a reader that
//! has stopped.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::harness::{Daemon, Noise, Run, Sandbox, TINY, World};

const GIBIBYTE: usize = 1 << 30;
const PIECE: usize = 1 << 20;

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes noise until nobody takes it, or `bytes` are written; their digest.
fn pour(mut into: impl Write, bytes: usize) -> String {
    let (mut noise, mut digest, mut piece) = (Noise::default(), Sha256::new(), vec![0; PIECE]);
    for _ in 0..bytes / PIECE {
        noise.fill(&mut piece);
        digest.update(&piece);
        into.write_all(&piece).expect("creel takes its input");
    }
    hex(digest.finalize())
}

fn exec(sandbox: &Sandbox, arguments: &[&str]) -> Child {
    let mut command = sandbox.creel(["exec"].iter().chain(arguments));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().expect("creel starts")
}

#[test]
fn a_gibibyte_goes_in_and_a_gibibyte_comes_out_as_it_was_written() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);

    let started = Instant::now();
    let mut child = exec(&sandbox, &["-i", &id, "--", "sha256sum"]);
    let input = child.stdin.take().expect("a pipe");
    let pouring = std::thread::spawn(move || pour(input, GIBIBYTE));
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("the sum");
    let poured = pouring.join().expect("all was taken");
    assert!(child.wait().expect("its status").success());
    assert_eq!(said.split_whitespace().next(), Some(poured.as_str()), "after {:?}", started.elapsed());
    eprintln!("1 GiB in, hashed in the guest: {:?}", started.elapsed());

    // Out: sixty-four times what the guest was given before, since an emulated one takes minutes to make so much noise. Each
    // round has its number before it, so that none can stand for another.
    let mut child = exec(&sandbox, &["-i", &id, "--", "sh", "-c", "cat >/tmp/noise"]);
    let block = Noise::take(GIBIBYTE / 64);
    child.stdin.take().expect("a pipe").write_all(&block).expect("creel takes its input");
    assert!(child.wait().expect("its status").success());
    let started = Instant::now();
    let say = "i=0; while [ $i -lt 64 ]; do printf '%08d' $i; cat /tmp/noise; i=$((i+1)); done";
    let mut command = sandbox.creel(["exec", &id, "--", "sh", "-c", say]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("creel starts");
    let (mut stdout, mut digest, mut count) = (child.stdout.take().expect("a pipe"), Sha256::new(), 0);
    let mut piece = vec![0; PIECE];
    loop {
        let read = stdout.read(&mut piece).expect("creel's output");
        if read == 0 {
            break;
        }
        count += read;
        digest.update(&piece[..read]);
    }
    assert!(child.wait().expect("its status").success());
    let mut expected = Sha256::new();
    for round in 0..64 {
        expected.update(format!("{round:08}"));
        expected.update(&block);
    }
    assert_eq!((count, hex(digest.finalize())), (GIBIBYTE + 64 * 8, hex(expected.finalize())));
    eprintln!("1 GiB out: {:?}", started.elapsed());
}

#[test]
fn bytes_that_are_no_text_arrive_as_they_are() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    // All 256 of them, characters cut in two by a pause, a lone continuation byte, and no newline at the end.
    let all: Vec<u8> = (0..=255).collect();
    let mut child = exec(&sandbox, &["-i", &id, "--", "cat"]);
    let mut input = child.stdin.take().expect("a pipe");
    let parts: [&[u8]; 6] = [&all, b"\xf0\x9f", b"\xa6\x80 \xe2", b"\x82\xac", b"\x80", b"\xc3"];
    for part in parts {
        input.write_all(part).expect("creel takes its input");
        input.flush().expect("creel takes its input");
        std::thread::sleep(Duration::from_millis(30));
    }
    drop(input);
    let mut said = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut said).expect("its output");
    assert!(child.wait().expect("its status").success());
    assert_eq!(said, parts.concat());
}

/// How long it takes for 63 programs, started at once, to be done.
fn sixty_three(sandbox: &Sandbox, id: &str) -> Duration {
    let started = Instant::now();
    let runs: Vec<_> = (0..63)
        .map(|number| {
            let text = format!("i=0; while [ $i -lt 20 ]; do echo {number} $i; i=$((i+1)); done");
            Run::start(sandbox.creel(["exec", id, "--", "sh", "-c", &text]))
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let ended = run.finish();
        ended.expect_code(0);
        let expected: String = (0..20).map(|line| format!("{number} {line}\n")).collect();
        assert_eq!(ended.text(), expected);
    }
    started.elapsed()
}

#[test]
fn one_of_sixty_four_programs_writes_without_end_and_is_not_read_and_the_others_are_as_fast() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    sixty_three(&sandbox, &id);
    let without = sixty_three(&sandbox, &id);
    let mut unread = exec(&sandbox, &[&id, "--", "sh", "-c", "echo begun; exec yes"]);
    let mut begun = [0; 6];
    unread.stdout.as_mut().expect("a pipe").read_exact(&mut begun).expect("it has begun");
    // It fills all that there is on its way, and then waits.
    std::thread::sleep(Duration::from_secs(2));
    let with = sixty_three(&sandbox, &id);
    let twice = sixty_three(&sandbox, &id);
    eprintln!("63 programs: {without:?}; beside one that is not read: {with:?}, {twice:?}");
    // Held up they would never end; the machine's own noise is some tenths.
    assert!(with.min(twice) < without * 2, "{with:?} and {twice:?} instead of {without:?}");
    unread.kill().expect("it runs");
    unread.wait().expect("it ends");
}
