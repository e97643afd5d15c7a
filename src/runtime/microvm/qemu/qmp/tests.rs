//! A scripted peer stands in for QEMU where QEMU would not misbehave; the last test asks a real one.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::*;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;
const PATIENT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

struct Peer {
    stream: BufReader<UnixStream>,
}

impl Peer {
    async fn say(&mut self, line: impl AsRef<str>) {
        let line = format!("{}\r\n", line.as_ref());
        self.stream.write_all(line.as_bytes()).await.expect("creel reads");
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("creel writes");
        serde_json::from_str(&line).expect("a command")
    }
}

/// A connection past its greeting.
async fn connected() -> (Qmp, Events, Peer) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut peer = Peer { stream: BufReader::new(theirs) };
    let greet = async {
        peer.say(GREETING).await;
        assert_eq!(peer.hear().await, json!({"execute": "qmp_capabilities", "id": 0}));
        peer.say(r#"{"return": {}, "id": 0}"#).await;
    };
    let (connection, ()) = tokio::join!(Qmp::handshake(ours, PATIENT), greet);
    let (qmp, events) = connection.expect("greeted");
    (qmp, events, peer)
}

#[tokio::test]
async fn answers_find_their_askers_in_any_order() {
    let (qmp, _events, mut peer) = connected().await;
    let script = async {
        let (first, second) = (peer.hear().await, peer.hear().await);
        peer.say(json!({"return": second["execute"], "id": second["id"]}).to_string()).await;
        peer.say(json!({"return": first["execute"], "id": first["id"]}).to_string()).await;
    };
    let (a, b, ()) = tokio::join!(
        qmp.execute("query-status", None, PATIENT),
        qmp.execute("query-version", Some(json!({"x": 1})), PATIENT),
        script
    );
    assert_eq!(a.expect("answered"), json!("query-status"));
    assert_eq!(b.expect("answered"), json!("query-version"));
}

#[tokio::test]
async fn a_refusal_is_told_in_qemu_s_words() {
    let (qmp, _events, mut peer) = connected().await;
    let script = async {
        let asked = peer.hear().await;
        let error = json!({"class": "CommandNotFound", "desc": "The command nope has not been found"});
        peer.say(json!({"error": error, "id": asked["id"]}).to_string()).await;
    };
    let (answer, ()) = tokio::join!(qmp.execute("nope", None, PATIENT), script);
    assert_eq!(
        answer.expect_err("refused").to_string(),
        "QEMU refused `nope`: The command nope has not been found (CommandNotFound)"
    );
}

#[tokio::test]
async fn a_late_answer_harms_nobody() {
    let (qmp, _events, mut peer) = connected().await;
    let late = qmp.execute("query-status", None, SHORT).await.expect_err("late");
    assert!(matches!(late, QmpError::NoAnswer { .. }), "{late}");
    let script = async {
        let (late, timely) = (peer.hear().await, peer.hear().await);
        peer.say(json!({"return": "late", "id": late["id"]}).to_string()).await;
        peer.say(json!({"return": "timely", "id": timely["id"]}).to_string()).await;
    };
    let (answer, ()) = tokio::join!(qmp.execute("query-status", None, PATIENT), script);
    assert_eq!(answer.expect("answered"), json!("timely"));
}

#[tokio::test]
async fn events_are_typed_and_come_before_the_end() {
    let (qmp, mut events, mut peer) = connected().await;
    peer.say(r#"{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}"#).await;
    peer.say(
        r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "", "node-name": "volume-0", "nospace": true,
            "reason": "No space left on device", "operation": "write", "action": "stop"}}"#
            .replace('\n', " "),
    )
    .await;
    peer.say(r#"{"event": "GUEST_PANICKED", "data": {"action": "poweroff"}}"#).await;
    peer.say(r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}"#).await;
    drop(peer);
    assert_eq!(events.next().await, Some(Event::Stop));
    assert_eq!(
        events.next().await,
        Some(Event::BlockIoError {
            device: "volume-0".into(),
            no_space: true,
            reason: "No space left on device".into(),
            operation: "write".into(),
            action: "stop".into(),
        })
    );
    assert_eq!(events.next().await, Some(Event::GuestPanicked { action: "poweroff".into() }));
    assert_eq!(events.next().await, Some(Event::Shutdown { guest: true, reason: "guest-panic".into() }));
    assert_eq!(events.next().await, None);
    let error = qmp.execute("quit", None, PATIENT).await.expect_err("closed");
    assert_eq!(error.to_string(), "the connection to QEMU has ended: QEMU closed it");
}

#[tokio::test]
async fn a_flood_of_events_neither_fills_memory_nor_hides_the_end() {
    let (qmp, mut events, mut peer) = connected().await;
    let flood = r#"{"event": "RTC_CHANGE", "data": {"offset": 1}}"#;
    for _ in 0..2_000 {
        peer.say(flood).await;
    }
    peer.say(r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#).await;
    drop(peer);
    assert!(matches!(qmp.execute("quit", None, PATIENT).await, Err(QmpError::Closed(_))));
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    assert!(all.len() < 200, "{} events were kept", all.len());
    assert_eq!(all.last(), Some(&Event::Shutdown { guest: true, reason: "guest-reset".into() }));
}

#[tokio::test]
async fn an_endless_line_ends_the_connection() {
    let (qmp, mut events, mut peer) = connected().await;
    let asking = qmp.execute("query-status", None, PATIENT);
    let flooding = async {
        let junk = vec![b'{'; 64 * 1024];
        while peer.stream.write_all(&junk).await.is_ok() {}
    };
    let (answer, ()) = tokio::join!(asking, flooding);
    let error = answer.expect_err("closed").to_string();
    assert!(error.ends_with("a line is longer than 1048576 bytes"), "{error}");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_silent_peer_and_a_wrong_one_are_told_apart() {
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let error = Qmp::handshake(ours, SHORT).await.expect_err("silent");
    assert_eq!(error.to_string(), "QEMU did not greet on its control socket within 50 ms");

    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(b"SSH-2.0-OpenSSH\r\n").await.expect("written");
    let error = Qmp::handshake(ours, PATIENT).await.expect_err("wrong");
    assert!(error.to_string().ends_with("a line is not JSON"), "{error}");

    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(b"{\"return\": {}}\n").await.expect("written");
    let error = Qmp::handshake(ours, PATIENT).await.expect_err("out of order");
    assert!(error.to_string().ends_with("something else than QMP has at this point"), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_an_error_at_once() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let error = Qmp::connect(&directory.path().join("qmp"), PATIENT).await.expect_err("nobody");
    assert!(matches!(error, QmpError::Connect { .. }));
}

fn parsed(line: &str) -> Incoming {
    Incoming::parse(line.as_bytes()).expect(line)
}

#[test]
fn messages_are_what_they_say() {
    assert_eq!(parsed(GREETING), Incoming::Greeting { version: "7.2.22".into() });
    assert_eq!(parsed(r#"{"return": [1], "id": 7}"#), Incoming::Return { id: Some(7), value: json!([1]) });
    assert_eq!(parsed(r#"{"event": "X"}"#), Incoming::Event(Event::Other("X".into())));
    let hostile = parsed(r#"{"event": "SHUTDOWN", "data": {"guest": "yes", "reason": {"a": 1}}}"#);
    assert_eq!(hostile, Incoming::Event(Event::Shutdown { guest: false, reason: String::new() }));
}

#[test]
fn texts_from_qemu_are_short_and_printable() {
    let long = json!({"event": format!("A\u{1b}[31m{}", "x".repeat(5_000))}).to_string();
    let Incoming::Event(Event::Other(name)) = parsed(&long) else { panic!("another message") };
    assert_eq!(name.len(), 256);
    assert!(name.starts_with("A[31mxx"));
}

#[test]
fn nesting_has_a_bound() {
    let line = format!("{{\"return\": {}", "[".repeat(100_000));
    assert!(matches!(Incoming::parse(line.as_bytes()), Err(LineError::Json(_))));
}

fn fed(chunks: &[&[u8]]) -> Result<Vec<Incoming>, LineError> {
    let mut buffer = LineBuffer::default();
    let mut messages = Vec::new();
    for chunk in chunks {
        buffer.space().extend_from_slice(chunk);
        while let Some(message) = buffer.next_message()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn lines_survive_any_chunking(ids in proptest::collection::vec(any::<u64>(), 1..20), size in 1usize..40) {
        let wire: String = ids.iter().map(|id| format!("{{\"return\": {{}}, \"id\": {id}}}\r\n\n")).collect();
        let chunks: Vec<_> = wire.as_bytes().chunks(size).collect();
        let expected: Vec<_> = ids.iter().map(|id| Incoming::Return { id: Some(*id), value: json!({}) }).collect();
        prop_assert_eq!(fed(&chunks).expect("QMP"), expected);
    }

    #[test]
    fn any_bytes_are_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600), size in 1usize..64) {
        let chunks: Vec<_> = bytes.chunks(size).collect();
        drop(fed(&chunks));
    }

    #[test]
    fn any_json_is_a_message_or_an_error(
        key in "(return|error|event|QMP|id|data)", other in "(return|error|event|QMP|id|data)",
        value in "(1|-1|null|true|\"a\"|\\[\\]|\\{\\}|\\{\"guest\":1\\}|1e400)", second in "(1|null|\"SHUTDOWN\"|\\{\\})",
    ) {
        drop(Incoming::parse(format!("{{\"{key}\": {value}, \"{other}\": {second}}}").as_bytes()));
    }
}

mod with_qemu {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::*;
    use crate::host::{Exit, Spawn, spawn};

    /// QEMU without a machine, listening on a socket that it inherited.
    #[tokio::test]
    async fn a_real_qemu_answers_on_an_inherited_socket() {
        let program = Path::new("/usr/bin/qemu-system-x86_64");
        if !program.exists() {
            println!("skipped: there is no {}", program.display());
            return;
        }
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("bound");
        let null = std::fs::File::options().read(true).write(true).open("/dev/null").expect("opened");
        let mut spec = Spawn::new(program).expect("a path");
        for argument in "-M none -S -nodefaults -no-user-config -display none -monitor none \
                         -chardev socket,id=qmp0,fd=3,server=on,wait=off -mon chardev=qmp0,mode=control"
            .split_whitespace()
        {
            spec = spec.arg(argument).expect("an argument");
        }
        let spec = spec.fd(null.as_fd(), 0).fd(null.as_fd(), 1).fd(null.as_fd(), 2).fd(listener.as_fd(), 3);
        let mut child = spawn(&spec).expect("started");
        drop(spec);
        drop(listener);

        let (qmp, mut events) = Qmp::connect(&path, PATIENT).await.expect("greeted");
        let version = qmp.execute("query-version", None, PATIENT).await.expect("answered");
        assert!(version["qemu"]["major"].as_u64() >= Some(7), "{version}");
        let status = qmp.execute("query-status", None, PATIENT).await.expect("answered");
        assert_eq!(status["running"], json!(false));
        assert!(matches!(qmp.execute("nonsense", None, PATIENT).await, Err(QmpError::Refused { .. })));
        qmp.execute("quit", None, PATIENT).await.expect("answered");
        assert_eq!(
            events.next().await,
            Some(Event::Shutdown { guest: false, reason: "host-qmp-quit".into() })
        );
        assert_eq!(events.next().await, None);
        assert_eq!(child.wait().await.expect("waited for"), Exit::Code(0));
    }
}
