//! A helper's socket is waited for, and its connection handed to the process that needs it.

mod fixture;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use creel_keeper::{Ending, FdGrant, FdSource, Process, ProcessEnd, Program, Ready};
use fixture::{Fixture, shell, side};

/// Not a test: the helper process of the tests below, which is this test binary itself. It binds its socket late, as
/// a real helper does, and greets whoever comes.
#[test]
#[ignore = "run by the other tests as a child process"]
fn helper_that_listens() {
    std::thread::sleep(Duration::from_millis(50));
    let listener = UnixListener::bind("vhost.sock").expect("the working directory is the machine's");
    let (mut connection, _) = listener.accept().expect("a connection");
    connection.write_all(b"hello over the handed socket\n").expect("written");
    drop(connection);
    std::thread::sleep(Duration::from_secs(1000));
}

fn helper(timeout: Duration) -> Process {
    let exe = std::env::current_exe().expect("this test binary").display().to_string();
    Process {
        program: Program::Path(exe),
        argv: ["test", "--ignored", "--exact", "helper_that_listens"].map(String::from).to_vec(),
        ready: Some(ready(timeout)),
        ..side("vsock", "")
    }
}

fn ready(timeout: Duration) -> Ready {
    Ready { socket: "vhost.sock".into(), timeout_ms: timeout.as_millis().try_into().expect("short") }
}

#[test]
fn the_connected_socket_is_handed_to_the_next_process() {
    let fixture = Fixture::daemon();
    let mut qemu = shell("qemu", "cat <&5");
    qemu.fds = vec![FdGrant { from: FdSource::ReadySocketOf("vsock".into()), to: 5 }];
    let mut keeper = fixture.start(&fixture.plan(vec![helper(Duration::from_secs(10)), qemu]));
    assert!(keeper.end().success());
    let console = fixture.history("console");
    let text = String::from_utf8_lossy(&console.tail).into_owned() + &String::from_utf8_lossy(&console.head);
    assert!(text.contains("hello over the handed socket"), "{text}");
    assert_eq!(fixture.exit("qemu").expect("recorded").end, ProcessEnd::Exited { code: 0 });
}

#[test]
fn a_helper_that_never_listens_fails_the_machine_in_time() {
    let fixture = Fixture::daemon();
    let mut helper = side("vsock", "exec sleep 1000");
    helper.ready = Some(ready(Duration::from_millis(200)));
    let started_at = Instant::now();
    let mut keeper = fixture.start(&fixture.plan(vec![helper, shell("qemu", "touch ran")]));
    assert_eq!(keeper.end().code(), Some(1));
    assert!(started_at.elapsed() >= Duration::from_millis(200));
    let Ending::StartFailed { process, error } = fixture.done().expect("recorded").ending else {
        panic!("it did not start");
    };
    assert_eq!(process, "vsock");
    assert!(error.contains("`vhost.sock` did not accept within 200 ms"), "{error}");
    assert!(!fixture.path().join("ran").exists());
    assert!(fixture.exit("qemu").is_none());
    assert!(matches!(fixture.exit("vsock").expect("recorded").end, ProcessEnd::Signalled { signal: 9, .. }));
}

#[test]
fn a_helper_that_dies_instead_of_listening_is_noticed_at_once() {
    let fixture = Fixture::daemon();
    let mut helper = side("vsock", "exit 3");
    helper.ready = Some(ready(Duration::from_secs(600)));
    let mut keeper = fixture.start(&fixture.plan(vec![helper, shell("qemu", "true")]));
    assert_eq!(keeper.end().code(), Some(1));
    assert_eq!(fixture.exit("vsock").expect("recorded").end, ProcessEnd::Exited { code: 3 });
    let Ending::StartFailed { error, .. } = fixture.done().expect("recorded").ending else {
        panic!("it did not start");
    };
    assert!(error.contains("the process has ended"), "{error}");
}

#[test]
fn an_owner_that_dies_while_a_helper_is_waited_for_ends_it_all() {
    let mut fixture = Fixture::embedded();
    let mut helper = side("vsock", "exec sleep 1000");
    helper.ready = Some(ready(Duration::from_secs(600)));
    let mut keeper = fixture.start(&fixture.plan(vec![helper, shell("qemu", "true")]));
    fixture.owner_dies();
    assert!(keeper.end().success());
    assert!(!fixture.path().exists());
}
