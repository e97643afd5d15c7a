//! The session itself: handshake, order, repetition, ends.

use std::fs;

use creel_proto::agent::{
    ActivateConfig, CacheDrain, CacheDrainResult, ExecStart, Init, Poweroff, PoweroffResult, SourceUnpack,
};
use creel_proto::names::{PROTOCOL_VERSION, extensions, ids};
use creel_proto::{FrameCodec, Payload};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_util::codec::Framed;

use crate::credit::CREDIT_EXTENSIONS;
use crate::host::{Host, PLAIN_EXTENSIONS, Session, bounded, sh, until};

#[tokio::test]
async fn hello_says_who_speaks() {
    let host = Host::start();
    let mut session = Session { stream: Framed::new(host.accept_stream().await, FrameCodec) };
    let hello = session.hello().await;
    assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
    assert_eq!(hello.agent_version, env!("CARGO_PKG_VERSION"));
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(hello.boot_id, boot_id.trim());
    for extension in PLAIN_EXTENSIONS.iter().chain(&CREDIT_EXTENSIONS) {
        assert!(hello.extensions.iter().any(|named| named == extension), "{extension}");
    }
}

#[tokio::test]
async fn a_repeated_id_is_not_started_twice() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let request =
        ExecStart { cwd, ..sh("echo started >> log; until [ -e go ]; do sleep 0.02; done; echo done") };
    session.send("same", request.clone()).await;
    session.send("same", request.clone()).await;
    until("the start", || directory.join("log").exists()).await;
    fs::write(directory.join("go"), "").unwrap();
    assert_eq!(session.end("same").await.stdout(), "done\n");
    session.send("same", request).await;
    // Whatever the repetitions had started would have written before this one ends, or speak up in it.
    session.send("other", sh("sleep 0.3")).await;
    session.end("other").await;
    assert_eq!(fs::read_to_string(directory.join("log")).unwrap(), "started\n");
}

#[tokio::test]
async fn the_agent_redials_and_its_programs_run_on() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let script =
        "echo; touch started; until [ -e go ]; do sleep 0.02; done; head -c 8000000 /dev/zero; touch done";
    session.send("long", ExecStart { cwd, ..sh(script) }).await;
    until("the start", || directory.join("started").exists()).await;
    drop(session);
    fs::write(directory.join("go"), "").unwrap();
    until("the end of a program without a session", || directory.join("done").exists()).await;
    let mut session = host.accept().await;
    // The new session knows nothing of the old one's ids.
    session.send("long", sh("echo again")).await;
    assert_eq!(session.end("long").await.stdout(), "again\n");
}

#[tokio::test]
async fn a_session_that_starts_wrong_is_tried_again() {
    let host = Host::start();
    let mut wrong = Session { stream: Framed::new(host.accept_stream().await, FrameCodec) };
    wrong.hello().await;
    wrong.send("poweroff", Poweroff {}).await;
    assert!(bounded("the agent's hanging up", wrong.stream.next()).await.is_none());

    let mut garbage = host.accept_stream().await;
    garbage.write_all(&[0xff; 64]).await.unwrap();
    let mut session = host.accept().await;
    assert_eq!(session.exec(sh("exit 4")).await.exit.exit_code, 4);
}

#[tokio::test]
async fn what_is_not_supported_is_answered_so() {
    let (_host, mut session) = Host::with_session().await;
    session.send("wf-config", ActivateConfig { config_key: "key".into(), ..Default::default() }).await;
    match session.receive().await.payload {
        Payload::ActivateConfigResult(result) => {
            assert_eq!(result.config_key, "key");
            assert_eq!(result.error, "this agent does not support NixOS configuration yet");
        }
        other => panic!("unexpected {}", other.name()),
    }
    session.send(ids::CACHE_DRAIN, CacheDrain::default()).await;
    let drained = session.receive().await;
    assert_eq!(drained.payload, CacheDrainResult::default().into());
}

#[tokio::test]
async fn what_has_no_place_is_ignored() {
    let host = Host::start();
    let mut session = host.accept_with(&[extensions::OUTPUT_1]).await;
    session.send("x", Init::default()).await;
    session.send("x", PoweroffResult::default()).await;
    // Its extension was not agreed on.
    session.send(ids::SOURCE, SourceUnpack::default()).await;
    assert_eq!(session.exec(sh("exit 5")).await.exit.exit_code, 5);
}

#[tokio::test]
async fn power_off_is_answered_before_it_happens() {
    let (mut host, mut session) = Host::with_session().await;
    session.send("busy", sh("while :; do echo busy; done")).await;
    assert_eq!(session.receive().await.id(), "busy");
    session.send(ids::POWEROFF, Poweroff {}).await;
    loop {
        let message = session.receive().await;
        if message.id() == ids::POWEROFF {
            assert_eq!(message.payload, PoweroffResult::default().into());
            break;
        }
    }
    drop(session);
    let status = tokio::task::spawn_blocking(move || host.agent.wait().unwrap());
    assert!(bounded("the agent's end", status).await.unwrap().success());
}
