//! A holder in a real cgroup, with a stand-in for systemd's socket. The controllers that it wants are those that the
//! machine has.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

#[path = "../../tests/fixture/cgroup.rs"]
mod cgroup;

use cgroup::{Cgroup, cgroup_of};

const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test: the holder of the tests below.
#[test]
#[ignore = "run by the other tests as a child process"]
fn holder() {
    let unit = std::env::var("TEST_UNIT").expect("set by the test");
    fs::write(Path::new(&unit).join("cgroup.procs"), "0").expect("entered, as systemd does for a service");
    let wanted = std::env::var("TEST_WANTED").expect("set by the test");
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    if let Err(error) = run(&wanted) {
        eprintln!("{}", crate::with_causes(&error));
        std::process::exit(1);
    }
}

struct Holder {
    child: Child,
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
}

impl Holder {
    fn start(cgroup: &Cgroup, wanted: &str) -> Self {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut command = Command::new(std::env::current_exe().expect("this test binary"));
        command
            .args(["--ignored", "--exact", "hold::tests::holder", "--nocapture"])
            .env("NOTIFY_SOCKET", &path)
            .env("TEST_UNIT", cgroup.path())
            .env("TEST_WANTED", wanted)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // The holder blocks SIGTERM in its own thread, which in a test binary is not the only one.
        // SAFETY: the closure makes one system call, with a set that is initialised before it is read.
        unsafe {
            command.pre_exec(|| {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGTERM);
                match libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().expect("it starts");
        Self { child, socket, _directory: directory }
    }

    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let bytes = self.socket.recv(&mut buffer).expect("systemd is told in time");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_none()
    }

    /// Exit status and standard error.
    fn end(mut self) -> (Option<i32>, String) {
        until("the holder's end", || !self.lives());
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        io::Read::read_to_string(&mut stderr, &mut text).expect("text");
        (self.child.wait().expect("it is a child").code(), text)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process of a machine's: in the cgroup `name` below the unit's.
struct Member(Child);

impl Member {
    fn start(cgroup: &Cgroup, name: &str) -> Self {
        let child = Command::new("/bin/sleep").arg("1000").spawn().expect("it starts");
        let member = Self(child);
        fs::write(cgroup.path().join(name).join("cgroup.procs"), member.0.id().to_string()).expect("moved");
        member
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn it_makes_room_says_so_and_leaves_on_sigterm_also_a_second_time() {
    let Some(mut cgroup) = Cgroup::for_test("hold") else { return };
    let controller = cgroup.offer_a_controller();
    for _ in 0..2 {
        let holder = Holder::start(&cgroup, &controller);
        let status = format!("READY=1\nSTATUS=holding the machines' cgroup, with {controller}");
        assert_eq!(holder.hears(), status);
        assert_eq!(cgroup_of(holder.child.id()), cgroup.line_of("keep"));
        assert_eq!(cgroup.read("cgroup.procs"), "");
        assert_eq!(cgroup.read("cgroup.subtree_control").trim(), controller);
        holder.terminate();
        assert_eq!(holder.hears(), "STOPPING=1\nSTATUS=waiting for the machines to end");
        assert_eq!(holder.end(), (Some(0), String::new()));
        // systemd puts the main process of a unit into the unit's cgroup only while that passes nothing on.
        fs::write(cgroup.path().join("cgroup.subtree_control"), format!("-{controller}")).expect("disabled");
    }
}

#[test]
fn it_leaves_after_the_last_machine() {
    let Some(cgroup) = Cgroup::for_test("last") else { return };
    let _machines = ["m-a", "m-b", "m-empty"].map(|name| cgroup.child(name));
    let (first, second) = (Member::start(&cgroup, "m-a"), Member::start(&cgroup, "m-b"));
    let mut holder = Holder::start(&cgroup, "");
    assert!(holder.hears().starts_with("READY=1\n"));
    holder.terminate();
    assert!(holder.hears().starts_with("STOPPING=1\n"));
    drop(first);
    until("an empty cgroup", || cgroup.read("m-a/cgroup.events").contains("populated 0"));
    // Gone is as good as empty.
    fs::remove_dir(cgroup.path().join("m-a")).expect("removed");
    assert!(holder.lives(), "a machine still runs");
    drop(second);
    assert_eq!(holder.end(), (Some(0), String::new()));
}

#[test]
fn a_machine_that_does_not_end_is_named_when_the_time_is_over() {
    let Some(cgroup) = Cgroup::for_test("stuck") else { return };
    let _machines = ["m-a", "m-b"].map(|name| cgroup.child(name));
    let _member = Member::start(&cgroup, "m-b");
    let started_at = Instant::now();
    let left = Subtree::new(cgroup.path().to_owned()).await_machines(Duration::from_millis(100));
    assert_eq!(left.expect("watched"), ["m-b"]);
    assert!(started_at.elapsed() >= Duration::from_millis(100));
}

#[test]
fn only_io_may_be_missing() {
    let Some(cgroup) = Cgroup::for_test("missing") else { return };
    let has_io = cgroup.read("cgroup.controllers").split_whitespace().any(|name| name == "io");
    let holder = Holder::start(&cgroup, "io");
    let ready = holder.hears();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert_eq!(ready.contains("without io"), !has_io, "{ready}");
    holder.terminate();
    let (code, stderr) = holder.end();
    assert_eq!((code, stderr.contains("without io: disk use")), (Some(0), !has_io), "{stderr}");

    let holder = Holder::start(&cgroup, "io nothing-like-it");
    let status = holder.hears();
    let words =
        if has_io { "has no controller nothing-like-it:" } else { "has no controller io, nothing-like-it:" };
    assert!(status.starts_with("STATUS=") && status.contains(words), "{status}");
    let (code, stderr) = holder.end();
    assert_eq!(code, Some(1));
    assert!(stderr.contains(words) && stderr.contains("Delegate=yes"), "{stderr}");
}

#[test]
fn a_unit_with_another_process_can_not_be_held() {
    let Some(mut cgroup) = Cgroup::for_test("busy") else { return };
    let controller = cgroup.offer_a_controller();
    let _other = Member::start(&cgroup, ".");
    let holder = Holder::start(&cgroup, &controller);
    let status = holder.hears();
    assert!(status.starts_with(&format!("STATUS=failed to enable `+{controller}` in ")), "{status}");
    let (code, stderr) = holder.end();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("a process other than the holder is in the unit: "), "{stderr}");
}
