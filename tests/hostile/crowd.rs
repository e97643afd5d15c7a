//! Many execs over one connection.

use creel::agent::credit::MAX_EXECS;
use creel::agent::{Patience, SessionEvent, StartError};
use creel::runtime::ExecStreams;
use creel::runtime::streams::output;
use creel::transport::memory;
use tokio::time::timeout;

use crate::cuts::read_all;
use crate::guest::{Program, ScriptedGuest};
use crate::host::{Host, SOON};

const OUTPUT: u64 = 1 << 20;

async fn world() -> (Host, tokio::task::JoinHandle<()>) {
    let (dialer, listener) = memory::pair();
    let guest = ScriptedGuest::new(|id| match id {
        "endless" => Program { writes: u64::MAX, reads: false },
        "nothing" => Program::default(),
        _ => Program { writes: OUTPUT, reads: false },
    });
    let serving = tokio::spawn(async move {
        let mut guest = guest;
        let stream = dialer.dial().unwrap();
        let _ = guest.serve(stream).await;
    });
    (Host::greet(listener, Patience::default()).await, serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_has_stopped_holds_up_its_own_exec_and_no_other() {
    let (mut host, serving) = world().await;
    let unread = host.run("endless");
    let readers: Vec<_> =
        (1..64).map(|number| tokio::spawn(read_all(host.run(&number.to_string())))).collect();
    for reader in readers {
        assert_eq!(timeout(SOON, reader).await.expect("it goes on").unwrap(), OUTPUT);
    }
    for _ in 1..64 {
        assert!(matches!(host.event().await, SessionEvent::WorkEnded { .. }));
    }
    // Given up, it ends like any other, and its output needs no reader.
    host.session.cancel("endless");
    drop(unread);
    let last = host.run("nothing");
    assert_eq!(timeout(SOON, read_all(last)).await.unwrap(), 0);
    serving.abort();
}

#[tokio::test]
async fn a_machine_runs_so_many_execs_and_one_that_ends_makes_room() {
    let (mut host, serving) = world().await;
    let mut readers: Vec<_> = (0..MAX_EXECS).map(|number| host.run(&number.to_string())).collect();
    let (writer, _reader) = output();
    let refused = host.begin("one more", ExecStreams { input: None, output: writer });
    assert_eq!(refused, Err(StartError::TooMany { max: MAX_EXECS }));
    let first = readers.remove(0);
    assert_eq!(timeout(SOON, read_all(first)).await.unwrap(), OUTPUT);
    assert!(matches!(host.event().await, SessionEvent::WorkEnded { id, .. } if id == "0"));
    let again = host.run("nothing");
    assert_eq!(timeout(SOON, read_all(again)).await.unwrap(), 0);
    serving.abort();
}
