//! The debug shell, on a connection of its own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use creel_proto::agent::{ExecExit, OpenDebugShell, PtyData, PtyResize};
use creel_proto::names::{extensions, ids};
use creel_proto::{FrameCodec, Payload};
use tokio::net::UnixListener;
use tokio_util::codec::Framed;

use crate::host::{Host, Session, bounded, ids_of_user, is_root, sh, until};

const PORT: u32 = 4321;

/// The host's end of a shell.
struct Shell {
    wire: Session,
    shown: String,
}

async fn open(host: &Host, session: &mut Session, term: &str) -> Shell {
    let path = host.directory().join(format!("agent.sock_{PORT}"));
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let request = OpenDebugShell { vsock_port: PORT, term: term.to_owned(), rows: 33, cols: 101 };
    session.send("open", request).await;
    let (stream, _) = bounded("the shell's connection", listener.accept()).await.unwrap();
    Shell { wire: Session { stream: Framed::new(stream, FrameCodec) }, shown: String::new() }
}

impl Shell {
    async fn types(&mut self, text: &str) {
        self.wire.send(ids::PTY, PtyData { data: text.to_owned().into() }).await;
    }

    /// The next thing: `None` for something shown.
    async fn next(&mut self) -> Option<ExecExit> {
        let message = self.wire.receive().await;
        assert_eq!(message.id(), ids::PTY);
        match message.payload {
            Payload::PtyData(data) => {
                self.shown += &String::from_utf8_lossy(&data.data);
                None
            }
            Payload::ExecExit(exit) => Some(exit),
            other => panic!("unexpected {}", other.name()),
        }
    }

    async fn shows(&mut self, text: &str) {
        while !self.shown.contains(text) {
            if let Some(exit) = self.next().await {
                panic!("ended before it showed `{text}`: {exit:?}\n{}", self.shown);
            }
        }
    }

    async fn ends(&mut self) -> ExecExit {
        loop {
            if let Some(exit) = self.next().await {
                return exit;
            }
        }
    }
}

async fn with_shell() -> (Host, Session, Shell) {
    let host = Host::start_with_workflow_user();
    let mut session = host.accept().await;
    let shell = open(&host, &mut session, "vt220").await;
    (host, session, shell)
}

#[tokio::test]
async fn a_login_shell_of_the_user_has_a_terminal_of_the_size_that_was_asked_for() {
    let (host, _session, mut shell) = with_shell().await;
    // What is typed is shown as well: what is looked for must not stand in it.
    shell.types("tty; stty size; echo u-$(id -u)-$TERM; pwd; : </dev/tty && echo ok-$((1+1))\n").await;
    shell.shows("ok-2").await;
    let (uid, _) = ids_of_user();
    assert!(shell.shown.contains("/dev/pts/"), "{}", shell.shown);
    assert!(shell.shown.contains("33 101\r\n"), "{}", shell.shown);
    assert!(shell.shown.contains(&format!("u-{uid}-vt220\r\n")), "{}", shell.shown);
    assert!(
        shell.shown.contains(&format!("{}\r\n", host.directory().join("home").display())),
        "{}",
        shell.shown
    );
    shell.wire.send(ids::PTY, PtyResize { rows: 50, cols: 132 }).await;
    shell.types("stty size\n").await;
    shell.shows("50 132\r\n").await;
    shell.types("exit 7\n").await;
    let exit = shell.ends().await;
    assert_eq!((exit.exit_code, exit.signal, exit.error.as_str()), (7, 0, ""));
}

#[tokio::test]
async fn it_starts_in_the_repository_where_there_is_one_and_execs_go_on_beside_it() {
    let host = Host::start_with_workflow_user();
    let mut session = host.accept_with(&[extensions::OUTPUT_1]).await;
    fs::create_dir(host.directory().join("home/repo")).unwrap();
    let mut shell = open(&host, &mut session, "../evil").await;
    assert_eq!(session.exec(sh("exit 4")).await.exit.exit_code, 4);
    shell.types("echo $(pwd)=$TERM; kill -9 $$\n").await;
    let exit = shell.ends().await;
    let repository = host.directory().join("home/repo");
    assert!(shell.shown.contains(&format!("{}=xterm-256color", repository.display())), "{}", shell.shown);
    assert_eq!((exit.exit_code, exit.signal), (137, 9));
}

#[tokio::test]
async fn an_interrupt_that_is_typed_reaches_the_program_in_the_foreground() {
    let (_host, _session, mut shell) = with_shell().await;
    shell.types("echo re''ady; sleep 1000; echo after-$?\n").await;
    shell.shows("ready").await;
    // The shell says that it is ready a moment before it has given the terminal to its child.
    tokio::time::sleep(Duration::from_millis(300)).await;
    shell.types("\x03").await;
    shell.types("echo and-$((40+2)); exit\n").await;
    shell.ends().await;
    assert!(shell.shown.contains("and-42"), "{}", shell.shown);
}

#[tokio::test]
async fn much_that_is_shown_arrives_whole_and_in_order() {
    let (_host, _session, mut shell) = with_shell().await;
    shell.types("stty -echo -onlcr; seq 100000 200000; exit 3\n").await;
    let exit = shell.ends().await;
    assert_eq!(exit.exit_code, 3);
    let expected: String = (100_000..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(shell.shown.contains(&expected), "{} bytes", shell.shown.len());
}

#[tokio::test]
async fn much_that_is_typed_arrives_whole() {
    let (host, _session, mut shell) = with_shell().await;
    shell.types("stty raw -echo; echo re''ady; head -c 300000 | cksum > sum; exit 0\n").await;
    shell.shows("ready").await;
    let text: Vec<u8> = (0..300_000u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    for part in text.chunks(8000) {
        shell.wire.send(ids::PTY, PtyData { data: part.to_vec().into() }).await;
    }
    assert_eq!(shell.ends().await.exit_code, 0);
    let home = host.directory().join("home");
    fs::write(home.join("text"), &text).unwrap();
    let sum = std::process::Command::new("cksum").stdin(fs::File::open(home.join("text")).unwrap()).output();
    assert_eq!(fs::read(home.join("sum")).unwrap(), sum.unwrap().stdout);
}

#[tokio::test]
async fn a_host_that_goes_takes_the_shell_and_all_that_it_started_along() {
    let (host, mut session, mut shell) = with_shell().await;
    // A job that ignores the hang-up, and what has left the session.
    shell.types("sh -c 'trap \"\" HUP; echo $$ > job; sleep 1000; :' &\n").await;
    shell.types("setsid sh -c 'trap \"\" HUP; echo $$ > daemon; sleep 1000; :' &\n").await;
    shell.types("echo $$ > shell; echo re''ady; exec sleep 1000\n").await;
    shell.shows("ready").await;
    let home = host.directory().join("home");
    let written = |name: &str| fs::read_to_string(home.join(name)).unwrap_or_default().trim().to_owned();
    until("the processes", || !written("job").is_empty() && !written("daemon").is_empty()).await;
    let since = Instant::now();
    drop(shell);
    let names: &[&str] = if is_root() { &["shell", "job", "daemon"] } else { &["shell"] };
    for name in names {
        until(name, || !runs(&written(name))).await;
    }
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    assert_eq!(session.exec(sh("exit 4")).await.exit.exit_code, 4);
    until("the cgroup's removal", || host.cgroups().is_empty()).await;
}

#[tokio::test]
async fn what_can_not_be_opened_is_told() {
    let host = Host::start_with_workflow_user();
    let mut session = host.accept().await;
    session.send("open", OpenDebugShell { vsock_port: 9, ..Default::default() }).await;
    let refusal = session.receive().await;
    let Payload::ExecExit(exit) = refusal.payload.clone() else { panic!("{refusal:?}") };
    assert_eq!((refusal.id(), exit.exit_code), (ids::PTY, 127));
    assert!(exit.error.contains("failed to dial the host"), "{}", exit.error);

    let (plain, mut session) = Host::with_session().await;
    if fs::read_to_string("/etc/passwd").unwrap().contains("spindle-workflow") {
        return;
    }
    let exit = open(&plain, &mut session, "").await.ends().await;
    assert_eq!(exit.exit_code, 127);
    assert!(exit.error.contains("user `spindle-workflow`"), "{}", exit.error);
}

fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}
