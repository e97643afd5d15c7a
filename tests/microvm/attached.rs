//! `creel exec -i` and `-it`: a program that reads what is sent to it, and one on a terminal of the test's own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::harness::{Daemon, Sandbox, TINY, World, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn exec(sandbox: &Sandbox, flags: &[&str], id: &str, program: &[&str]) -> Command {
    let mut command = sandbox.creel(["exec"]);
    command.args(flags).arg(id).arg("--").args(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn code(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_until(PATIENCE, "creel exec ends", || {
        status = child.try_wait().expect("its status");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// Bytes that no text has: invalid UTF-8, NULs, split characters.
fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

#[test]
fn what_is_piped_in_comes_back_byte_for_byte() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let sent = noise(3_000_001);
    let mut child = exec(&sandbox, &["-i"], &id, &["cat"]).spawn().expect("creel starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let saying = {
        let sent = sent.clone();
        std::thread::spawn(move || stdin.write_all(&sent).expect("all is taken"))
    };
    let mut came = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut came).expect("it is read");
    saying.join().expect("it was said");
    assert_eq!(code(&mut child), Some(0));
    assert!(came == sent, "{} of {} bytes", came.len(), sent.len());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn stdin_is_the_program_s_with_i_alone_and_holds_nobody_up() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let mut without = exec(&sandbox, &[], &id, &["wc", "-c"]).spawn().expect("creel starts");
    let mut said = String::new();
    without.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!((code(&mut without), said.trim()), (Some(0), "0"), "its input is empty, though ours is open");
    // A program that ends while stdin stays open, and says nothing.
    let mut ends = exec(&sandbox, &["-i"], &id, &["sh", "-c", "exit 7"]).spawn().expect("creel starts");
    assert_eq!(code(&mut ends), Some(7));
    // One that closes its input early: who feeds it goes on, and its code is its own.
    let mut picky = exec(&sandbox, &["-i"], &id, &["head", "-c", "3"]).spawn().expect("creel starts");
    let _ = picky.stdin.take().expect("a pipe").write_all(&noise(2 << 20));
    let mut said = Vec::new();
    picky.stdout.take().expect("a pipe").read_to_end(&mut said).expect("bytes");
    assert_eq!((code(&mut picky), said), (Some(0), noise(3)));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let mut endless = exec(&sandbox, &[], &id, &["yes"]).spawn().expect("creel starts");
    let mut some = [0; 4];
    endless.stdout.take().expect("a pipe").read_exact(&mut some).expect("output");
    assert_eq!(&some, b"y\ny\n");
    assert_eq!(code(&mut endless), Some(141), "as a program in a pipeline");
    let mut complaint = String::new();
    endless.stderr.take().expect("a pipe").read_to_string(&mut complaint).expect("text");
    assert_eq!(complaint, "");
    wait_until(PATIENCE, "no `yes` is left", || daemon.output(["exec", &id, "--", "pidof", "yes"]).code == 1);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_terminal_is_refused_where_there_is_none() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let mut refused = exec(&sandbox, &["-it"], &id, &["sh"]).spawn().expect("creel starts");
    assert_eq!(code(&mut refused), Some(2));
    let mut why = String::new();
    refused.stderr.take().expect("a pipe").read_to_string(&mut why).expect("text");
    assert!(why.contains("stdin is none"), "{why}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_program_on_a_terminal_sees_its_kind_and_its_sizes_and_ctrl_c_is_its_own() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a pty");
    grantpt(&master).expect("a pty");
    unlockpt(&master).expect("a pty");
    let end = ioctl_tiocgptpeer(&master, flags).expect("its other end");
    let resize = |rows, columns| {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
    };
    resize(33, 77);
    let mut command = Command::new("setsid");
    sandbox.settle_in(&mut command);
    command.arg("--ctty").arg(&sandbox.world().program).args(["exec", "-it", &id, "--", "sh"]);
    let stdio = || Stdio::from(end.try_clone().expect("a descriptor"));
    let mut child = command
        .env("TERM", "vt220")
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .expect("it starts");
    let mut keys = File::from(master.try_clone().expect("a descriptor"));
    let screen = Arc::new(Mutex::new(Vec::new()));
    let (mut shown, so_far) = (File::from(master.try_clone().expect("a descriptor")), Arc::clone(&screen));
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = shown.read(&mut chunk) {
            so_far.lock().expect("nobody panics").extend_from_slice(&chunk[..length]);
        }
    });
    let mut shows = |typed: &str, text: &str| {
        keys.write_all(typed.as_bytes()).expect("the terminal takes keys");
        let so_far = || String::from_utf8_lossy(&screen.lock().expect("nobody panics")).into_owned();
        let deadline = Instant::now() + PATIENCE;
        while !so_far().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not on the screen, but {:?}", so_far());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Cut, so that what is echoed is not what is looked for.
    shows("stty size; echo te''rm=$TERM\n", "33 77");
    shows("", "term=vt220");
    resize(20, 50);
    shows("sleep 1; stty size\n", "20 50");
    // It has the terminal when it speaks. Whether `^C` is shown is up to a race in the kernel: it signals first, and echoes by
    // the modes that the shell may have set again by then (isig and n_tty_receive_signal_char in drivers/tty/n_tty.c).
    shows("sh -c \"echo wai''ting; exec sleep 1000\"\n", "waiting");
    shows("\x03echo sta''tus=$?\n", "status=130");
    shows("exit 9\n", "exit");
    assert_eq!(code(&mut child), Some(9));
    assert_eq!(daemon.stop(), Some(0));
}
