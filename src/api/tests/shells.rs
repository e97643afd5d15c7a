//! Shells, through the daemon.

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::machines_client::MachinesClient;
use creel_proto::v1::shell_request::Message;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use tonic::Code;

use super::raw;
use crate::api::testing::World;
use crate::api::{ApiError, RemoteRuntime};
use crate::runtime::fake::ScriptedSetup;
use crate::runtime::{
    CrashCause, MachineId, Outcome, Runtime as _, Shell, ShellInput, ShellRequest, TerminalSize,
};

const SOON: Duration = Duration::from_secs(5);

fn request() -> ShellRequest {
    ShellRequest { term: "vt100".into(), size: TerminalSize { rows: 40, columns: 120 } }
}

async fn types(shell: &Shell, text: &str) {
    shell.input.send(ShellInput::Bytes(text.to_owned().into())).await.unwrap();
}

#[tokio::test]
async fn what_is_typed_and_shown_passes_and_the_end_is_the_shell_s() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let mut shell = client.shell(&id, request()).await.unwrap();
    types(&shell, "ls\n").await;
    assert_eq!(timeout(SOON, shell.output.recv()).await.unwrap().unwrap(), "ls\n");
    shell.input.send(ShellInput::Resize(TerminalSize { rows: 9, columns: 8 })).await.unwrap();
    types(&shell, "exit 7").await;
    let verdict = timeout(SOON, shell.ended()).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Exited { code: 7 });
    assert_eq!(world.journal.entries(), ["setup", "shell vt100 40x120", "resize 9x8"]);
}

#[tokio::test]
async fn the_machine_s_end_is_the_shell_s() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let shell = client.shell(&id, request()).await.unwrap();
    let outcome = Outcome::MachineCrashed { cause: CrashCause::GuestPoweredOff };
    world.death.strike(outcome.clone());
    assert_eq!(timeout(SOON, shell.ended()).await.unwrap().outcome, outcome);
    world.living(0).await;
    assert!(matches!(client.shell(&id, request()).await, Err(ApiError::NotNow(_))));
    let unknown = MachineId::random().unwrap();
    assert!(matches!(client.shell(&unknown, request()).await, Err(ApiError::NotFound(_))));
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_back_its_shell_and_no_other_call() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let mut shell = client.shell(&id, request()).await.unwrap();
    let key = "k".repeat(8 << 10);
    let mut typed = 0;
    while timeout(Duration::from_millis(200), types(&shell, &key)).await.is_ok() {
        typed += 1;
        assert!(typed < 4 << 7, "4 MiB wait for a reader");
    }
    timeout(SOON, client.list(false)).await.unwrap().unwrap();
    for _ in 0..typed {
        assert_eq!(timeout(SOON, shell.output.recv()).await.unwrap().unwrap().len(), key.len());
    }
}

#[tokio::test]
async fn a_daemon_that_dies_is_said_to_be_lost() {
    let mut world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    let shell = client.shell(&id, request()).await.unwrap();
    world.kill_daemon();
    let Outcome::Internal { detail } = timeout(SOON, shell.ended()).await.unwrap().outcome else {
        panic!("another end")
    };
    assert!(detail.starts_with("lost the connection to creeld"), "{detail}");
    drop(RemoteRuntime::new(client).info().await);
}

#[tokio::test]
async fn messages_that_make_no_sense_end_the_call_by_name() {
    let world = World::new(ScriptedSetup::Ready, []);
    let id = world.machine(&world.client().await).await.id.to_string();
    let client = MachinesClient::new(raw(&world).await);
    let message = |message: Message| wire::ShellRequest { message: Some(message) };
    let start = |term: &str, size: Option<(u32, u32)>| {
        let size = size.map(|(rows, columns)| wire::TerminalSize { rows, columns });
        message(Message::Start(wire::ShellStart { machine_id: id.clone(), term: term.into(), size }))
    };
    let fine = || start("xterm", None);
    let resize = |rows, columns| message(Message::Resize(wire::TerminalSize { rows, columns }));
    let calls = [
        vec![],
        vec![message(Message::Data("x".into()))],
        vec![message(Message::Start(wire::ShellStart::default()))],
        vec![start("a\nb", None)],
        vec![start(&"x".repeat(65), None)],
        vec![start("", Some((0, 80)))],
        vec![fine(), fine()],
        vec![fine(), resize(24, 65_536)],
        vec![fine(), message(Message::Data(vec![b'x'; (8 << 10) + 1].into()))],
        vec![fine(), message(Message::Data(vec![b'x'; 17 << 10].into()))],
    ];
    let mut told = Vec::new();
    for messages in calls {
        // Who has said something would go on.
        let rest = if messages.is_empty() { stream::empty().boxed() } else { stream::pending().boxed() };
        let call = async {
            match client.clone().shell(stream::iter(messages).chain(rest)).await {
                Err(status) => status,
                Ok(events) => events.into_inner().message().await.unwrap_err(),
            }
        };
        let status = timeout(SOON, call).await.unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
        told.push(status.message().to_owned());
    }
    insta::assert_snapshot!(told.join("\n"), @"
    the first message of a call must be `start`
    the first message of a call must be `start`
    `` is not a machine's id: those have ten lower-case letters and digits
    `term` must have at most 64 bytes, without control characters
    `term` must have at most 64 bytes, without control characters
    `size.rows` is 0; a terminal has 1 to 65535 of them
    `start` may only be the first message of a call
    `resize.columns` is 65536; a terminal has 1 to 65535 of them
    `data` has 8193 bytes, more than the 8192 that it may have
    the message has 17412 bytes, more than the 16384 that it may have
    ");
}
