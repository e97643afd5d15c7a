//! The knife of tests with real machines, on a connection of this process.

#[path = "../microvm/harness/cut.rs"]
mod cut;

use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};

#[test]
fn the_accepted_end_of_a_connection_is_cut_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("vsock_824"), directory.path().join("other"));
    let (listener, other_listener) =
        (UnixListener::bind(&path).unwrap(), UnixListener::bind(&other).unwrap());
    let mut dialled = UnixStream::connect(&path).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let spared = UnixStream::connect(&other).unwrap();
    let (_other_accepted, _) = other_listener.accept().unwrap();
    assert_eq!(cut::cut(std::process::id(), &path).unwrap(), 1);
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    assert_eq!(dialled.read(&mut [0]).unwrap(), 0);
    spared.set_nonblocking(true).unwrap();
    assert_eq!((&spared).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(UnixStream::connect(&path).unwrap());
}
