//! Sockets: bound, inherited, stale, taken.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use crate::harness::{Place, TCG, ask};

#[test]
fn anyone_may_connect_to_the_socket() {
    let place = Place::new();
    let _creeld = place.start(place.creeld());
    place.told("READY=1");
    let mode = fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

#[test]
fn a_second_daemon_is_told_of_the_first_and_displaces_nothing() {
    let place = Place::new();
    let first = place.start(place.creeld());
    place.told("READY=1");
    let (code, text) = place.run(place.creeld());
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&format!("another creeld (pid {}) serves", first.pid())), "{text}");

    // With a state of its own, it would still end the machines that it finds in the runtime directory.
    let mut elsewhere = place.creeld();
    elsewhere.env("CREEL_STATE__DIR", place.path("state-2"));
    let (code, text) = place.run(elsewhere);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&place.path("run").display().to_string()), "{text}");

    // With both, it is the socket that is taken.
    let mut elsewhere = place.creeld();
    elsewhere.env("CREEL_STATE__DIR", place.path("state-2")).env("CREEL_RUN__DIR", place.path("run-2"));
    let (code, text) = place.run(elsewhere);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&place.socket().display().to_string()), "{text}");
    assert!(ask(&place.socket()).join().unwrap());
}

#[test]
fn a_stale_socket_is_replaced() {
    let place = Place::new();
    let mut creeld = place.start(place.creeld());
    place.told("READY=1");
    creeld.kill();
    assert!(place.socket().exists(), "a killed one leaves it");
    let _next = place.start(place.creeld());
    place.told("READY=1");
    assert!(ask(&place.socket()).join().unwrap());
}

#[test]
fn what_others_hold_at_its_place_is_left_alone() {
    let place = Place::new();
    let theirs = UnixListener::bind(place.socket()).unwrap();
    let (code, text) = place.run(place.creeld());
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("another program serves"), "{text}");
    drop(theirs);

    fs::remove_file(place.socket()).unwrap();
    fs::write(place.socket(), "precious").unwrap();
    let (code, text) = place.run(place.creeld());
    assert_eq!(code, Some(3), "{text}");
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
}

#[test]
fn a_missing_directory_is_named() {
    let place = Place::new();
    let mut command = place.creeld();
    command.env("CREEL_DAEMON__SOCKET", place.path("missing/creel.sock"));
    let (code, text) = place.run(command);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("missing/creel.sock") && text.contains("directory must exist"), "{text}");
}

#[test]
fn a_client_that_comes_while_creeld_is_dead_is_served_by_the_next() {
    let place = Place::new();
    let path = place.path("activated.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let mut creeld = place.start_activated([socket.try_clone().unwrap().into()]);
    place.told("READY=1");
    assert!(ask(&path).join().unwrap());
    let log = creeld.log();
    assert!(log.contains(&format!("control socket unix:{}, inherited", path.display())), "{log}");
    assert!(!place.socket().exists(), "what is inherited is not bound as well");

    creeld.kill();
    let waiting = ask(&path);
    let mut next = place.start_activated([socket.try_clone().unwrap().into()]);
    assert!(waiting.join().unwrap());
    place.told("READY=1");
    next.signal(Signal::TERM);
    assert!(next.ended().success(), "{}", next.log());
    assert!(path.exists(), "the socket is the service manager's");
}

#[test]
fn inherited_sockets_go_no_further() {
    let place = Place::new();
    let socket = UnixListener::bind(place.path("activated.sock")).unwrap();
    let _creeld = place.start_activated([socket.into()]);
    place.status_with("tcg, hybrid transport");
    let environment = fs::read_to_string(place.path("qemu-environment")).unwrap();
    assert!(!environment.contains("LISTEN_"), "{environment}");
    let descriptors = fs::read_to_string(place.path("qemu-descriptors")).unwrap();
    assert!(!descriptors.contains("socket:"), "{descriptors}");
}

#[test]
fn activation_for_another_process_is_not_ours() {
    let place = Place::new();
    let mut command = place.creeld();
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "control");
    let _creeld = place.start(command);
    place.told("READY=1");
    assert!(ask(&place.socket()).join().unwrap());
}

#[test]
fn a_socket_without_a_use_is_refused_by_number_and_address() {
    let place = Place::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let mut creeld = place.start_activated([tcp.into()]);
    assert_eq!(creeld.ended().code(), Some(3));
    let log = creeld.log();
    assert!(log.contains("descriptor 3 (`one`") && log.contains(&address), "{log}");
}

#[test]
fn two_activated_daemons_do_not_share_a_state() {
    let place = Place::new();
    let socket = |name: &str| UnixListener::bind(place.path(name)).unwrap();
    let _first = place.start_activated([socket("a.sock").into()]);
    place.told("READY=1");
    let mut second = place.start_activated([socket("b.sock").into()]);
    assert_eq!(second.ended().code(), Some(3));
    assert!(second.log().contains("another creeld"), "{}", second.log());
}

#[test]
fn there_is_one_control_socket() {
    let place = Place::new();
    let socket = |name: &str| UnixListener::bind(place.path(name)).unwrap();
    let mut creeld = place.start_activated([socket("a.sock").into(), socket("b.sock").into()]);
    assert_eq!(creeld.ended().code(), Some(3));
    let log = creeld.log();
    assert!(log.contains("descriptor 4") && log.contains("b.sock"), "{log}");
}

#[test]
fn a_connection_is_no_control_socket() {
    let place = Place::new();
    let (connected, _other) = UnixStream::pair().unwrap();
    let mut creeld = place.start_activated([connected.into()]);
    assert_eq!(creeld.ended().code(), Some(3));
    assert!(creeld.log().contains("no listening stream socket"), "{}", creeld.log());
}

/// A port of nobody else's, as a service manager holds it. Needs AF_VSOCK, though no guests: Linux with
/// `CONFIG_VSOCKETS`, and no network namespace that hides it.
fn vsock() -> (OwnedFd, u32) {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = tokio.enter();
    // VMADDR_PORT_ANY (vsock(7)).
    let address = VsockAddr::new(VMADDR_CID_ANY, u32::MAX);
    let listener = VsockListener::bind(address).expect("this test needs AF_VSOCK: modprobe vsock");
    let port = listener.local_addr().unwrap().port();
    (listener.into(), port)
}

#[test]
fn vsock_ports_are_told_apart_by_number_beside_the_control_socket() {
    let place = Place::new();
    let (dns, port) = vsock();
    place.configure(&format!("{TCG}[vsock_ports]\ndns = {port}\n"));
    let path = place.path("activated.sock");
    let control = UnixListener::bind(&path).unwrap();
    // The order is systemd's and says nothing.
    let creeld = place.start_activated([dns, control.into()]);
    place.told("READY=1");
    let log = creeld.log();
    assert!(log.contains(&format!("vsock::{port} for DNS, inherited")), "{log}");
    assert!(log.contains("connections are refused"), "{log}");
    assert!(ask(&path).join().unwrap());
}

#[test]
fn agents_are_met_at_the_inherited_port() {
    let place = Place::new();
    let (agents, port) = vsock();
    place.configure(&format!("{}[vsock_ports]\nagent = {port}\n", TCG.replace("hybrid", "kernel")));
    let creeld = place.start_activated([agents]);
    // Bound a second time, it would be in use.
    place.status_with("tcg, kernel transport");
    assert!(creeld.log().contains(&format!("vsock::{port} for agents, inherited")), "{}", creeld.log());
    assert!(ask(&place.socket()).join().unwrap(), "control is bound where none is inherited");
}

#[test]
fn a_vsock_port_that_another_holds_keeps_machines_away_but_not_the_api() {
    let place = Place::new();
    let (_held, port) = vsock();
    place.configure(&format!("{}[vsock_ports]\nagent = {port}\n", TCG.replace("hybrid", "kernel")));
    let _creeld = place.start(place.creeld());
    let status = place.status_with("CAN'T RUN MACHINES");
    assert!(status.contains(&port.to_string()) && status.contains("another creel"), "{status}");
    assert!(ask(&place.socket()).join().unwrap());
}

#[test]
fn a_vsock_port_that_is_not_configured_is_refused() {
    let place = Place::new();
    let (stray, port) = vsock();
    let mut creeld = place.start_activated([stray]);
    assert_eq!(creeld.ended().code(), Some(3));
    let log = creeld.log();
    assert!(log.contains(&format!("vsock::{port}")) && log.contains("[vsock_ports]"), "{log}");
}
