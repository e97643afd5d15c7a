//! `creel shell`, on a terminal of the test's own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::{Daemon, Run, Sandbox, TINY, World, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// The guest's grace between SIGHUP and SIGKILL, and as much again for an emulated guest to die and to be asked.
const ALL_GONE: Duration = Duration::from_secs(4);

/// Between two looks: each is work for the guest too.
const PAUSE: Duration = Duration::from_millis(100);

/// A person at a terminal, whose program is `creel shell`.
struct Seat {
    master: File,
    /// Held, so that the terminal outlives the program.
    programs: OwnedFd,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Seat {
    fn new(sandbox: &Sandbox, id: &str, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("a pty");
        unlockpt(&master).expect("a pty");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let programs = ioctl_tiocgptpeer(&master, flags).expect("its other end");
        resize(&master, rows, columns);
        // It makes the terminal the program's own, so that the kernel tells it of resizes, and becomes the program.
        let mut command = Command::new("setsid");
        sandbox.settle_in(&mut command);
        let end = || Stdio::from(programs.try_clone().expect("a descriptor"));
        command.arg("--ctty").arg(&sandbox.world().program).args(["shell", id]).env("TERM", "vt220");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid(1) starts");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, so_far) =
            (File::from(master.try_clone().expect("a descriptor")), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut chunk) {
                so_far.lock().expect("nobody panics").extend_from_slice(&chunk[..length]);
            }
        });
        Self { master: master.into(), programs, child, shown }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes keys");
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("nobody panics")).into_owned()
    }

    fn shows(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown().contains(text) {
            assert!(Instant::now() < deadline, "`{text}` is not shown:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(PATIENCE, "creel shell ends", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Whether keys are echoed and lines edited, as they are where nobody has asked for anything else.
    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.programs).expect("the terminal's modes").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn resize(terminal: &impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}

/// How many processes of the guest have a command line with `mark` in it.
fn running(daemon: &Daemon<'_>, id: &str, mark: &str) -> usize {
    let said = daemon.output(["exec", id, "--", "ps", "-o", "args"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout.lines().filter(|line| line.contains(mark)).count()
}

#[test]
fn a_shell_is_on_a_terminal_of_the_same_size_and_its_code_is_the_command_s() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let mut seat = Seat::new(&sandbox, &id, 31, 97);
    // What is typed is shown as well: what is looked for must not stand in it.
    seat.types("tty; stty size; echo $(id -un)-$TERM; pwd; echo re''ady\r");
    seat.shows("ready\r\n");
    assert!(!seat.is_cooked(), "keys go to the guest");
    for line in ["/dev/pts/", "31 97\r\n", "spindle-workflow-vt220\r\n", "/workspace/repo\r\n"] {
        assert!(seat.shown().contains(line), "{line}: {}", seat.shown());
    }
    resize(&seat.master, 50, 120);
    // The news goes through three programs; asked too early the shell would tell the old size.
    wait_until(PATIENCE, "the guest's terminal has the new size", || {
        seat.types("stty size\r");
        std::thread::sleep(Duration::from_millis(200));
        seat.shown().contains("50 120\r\n")
    });
    // Ctrl-C is the guest's.
    seat.types("sleep 54323\r");
    wait_until(PATIENCE, "the program runs", || running(&daemon, &id, "sleep 54323") == 1);
    seat.types("\x03");
    wait_until(PATIENCE, "the program is interrupted", || running(&daemon, &id, "sleep 54323") == 0);
    seat.types("exit 7\r");
    assert_eq!(seat.code(), Some(7), "{}", seat.shown());
    assert!(seat.is_cooked(), "the terminal is given back");
}

#[test]
fn a_shell_that_is_left_ends_with_all_that_it_started() {
    let Some(world) = World::get() else { return };
    // A promised bound is measured where nobody else has the CPUs.
    let sandbox = Sandbox::alone(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    for signal in [Signal::KILL, Signal::TERM] {
        let mut seat = Seat::new(&sandbox, &id, 24, 80);
        seat.types("(setsid sh -c \"trap '' HUP TERM; sleep 54321; true\" &); exec sleep 54322\r");
        wait_until(PATIENCE, "the programs run", || running(&daemon, &id, "sleep 5432") >= 2);
        let since = Instant::now();
        seat.signal(signal);
        let code = seat.code();
        if signal == Signal::TERM {
            assert_eq!(code, Some(130), "{}", seat.shown());
            assert!(seat.is_cooked(), "the terminal is given back");
        }
        loop {
            let left = running(&daemon, &id, "sleep 5432");
            if left == 0 {
                eprintln!("all gone {:?} after {signal:?}", since.elapsed());
                break;
            }
            assert!(since.elapsed() < ALL_GONE, "{left} are left after {:?}", since.elapsed());
            std::thread::sleep(PAUSE);
        }
    }
    let mut seat = Seat::new(&sandbox, &id, 24, 80);
    seat.types("echo re''ady\r");
    seat.shows("ready");
    assert_eq!(daemon.output(["kill", &id]).code, 0);
    assert_eq!(seat.code(), Some(130), "{}", seat.shown());
    assert!(seat.is_cooked(), "the terminal is given back");
}

#[test]
fn what_a_pipe_says_is_typed_and_its_end_is_the_shell_s() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let daemon = Daemon::start(&sandbox);
    let id = daemon.create(TINY);
    let mut shell = Command::new("sh");
    sandbox.settle_in(&mut shell);
    shell.args(["-c", "printf 'stty size\\ntrue' | \"$@\"", "sh"]).arg(&world.program).args(["shell", &id]);
    let ended = Run::start(shell).finish();
    ended.expect_code(0);
    assert!(ended.text().contains("24 80\r\n"), "{}", ended.text());
    let unknown = daemon.output(["shell", "zzzzzzzzzz"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
}
