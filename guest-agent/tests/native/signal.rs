//! Signals to execs and their cancellation (`creel.signal.1`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_proto::agent::{ExecCancel, ExecSignal, ExecStart};
use creel_proto::names::extensions;

use crate::host::{Host, Session, is_root, sh, until};

const TERM: u32 = 15;
const GRACE_MS: u32 = 300;

/// Far less than what is left to run on would take.
const SOON: Duration = Duration::from_secs(4);

/// Starts `script` in a directory of its own and waits until it has made the file `ready` there.
async fn start(host: &Host, session: &mut Session, id: &str, script: &str) -> PathBuf {
    let directory = host.writable(id);
    let cwd = directory.to_str().unwrap().to_owned();
    session.send(id, ExecStart { cwd, ..sh(script) }).await;
    until("the start", || directory.join("ready").exists()).await;
    directory
}

/// A process that a script wrote down.
fn pid(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap().trim().to_owned()
}

/// Whether it runs. One that has ended and was not waited for does not.
fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_signal_reaches_the_group_and_is_the_program_s_to_heed() {
    let (host, mut session) = Host::with_session().await;
    let script = "trap 'echo heard; exit 7' USR1; sleep 1000 & echo $! > child; touch ready; wait";
    let directory = start(&host, &mut session, "heeds", script).await;
    session.send("heeds", ExecSignal { signal: 10 }).await;
    let ended = session.end("heeds").await;
    assert_eq!((ended.stdout(), ended.exit.exit_code), ("heard\n", 7));
    until("the child's end", || !runs(&pid(&directory, "child"))).await;

    start(&host, &mut session, "dies", "touch ready; sleep 1000").await;
    session.send("dies", ExecSignal { signal: TERM }).await;
    let exit = session.end("dies").await.exit;
    assert_eq!((exit.exit_code, exit.signal), (143, 15));
}

#[tokio::test]
async fn what_can_not_be_signalled_is_ignored() {
    let (host, mut session) = Host::with_session().await;
    start(&host, &mut session, "lives", "touch ready; until [ -e go ]; do sleep 0.02; done; exit 3").await;
    for number in [0, 65, 1 << 20, u32::MAX, u32::MAX - 8] {
        session.send("lives", ExecSignal { signal: number }).await;
    }
    session.send("unknown", ExecSignal { signal: 9 }).await;
    session.send("unknown", ExecCancel { grace_ms: 0 }).await;
    fs::write(host.directory().join("lives/go"), "").unwrap();
    assert_eq!(session.end("lives").await.exit.exit_code, 3);
    session.send("lives", ExecSignal { signal: 9 }).await;
    session.send("lives", ExecCancel { grace_ms: 0 }).await;
    assert_eq!(session.exec(sh("exit 4")).await.exit.exit_code, 4);
}

#[tokio::test]
async fn a_host_that_did_not_name_the_extension_ends_nothing() {
    let host = Host::start();
    let mut session = host.accept_with(&[extensions::OUTPUT_1]).await;
    start(&host, &mut session, "lives", "touch ready; until [ -e go ]; do sleep 0.02; done").await;
    session.send("lives", ExecSignal { signal: 9 }).await;
    session.send("lives", ExecCancel { grace_ms: 0 }).await;
    // Messages are taken in order: this one's end means that those had their chance.
    session.send("other", sh("sleep 0.2")).await;
    session.end("other").await;
    fs::write(host.directory().join("lives/go"), "").unwrap();
    assert_eq!(session.end("lives").await.exit.exit_code, 0);
}

#[tokio::test]
async fn a_cancelled_program_may_clean_up_and_its_exit_is_told() {
    let (host, mut session) = Host::with_session().await;
    let script = "trap 'echo cleaning; exit 9' TERM; touch ready; while :; do sleep 0.02; done";
    start(&host, &mut session, "cleans", script).await;
    session.send("cleans", ExecCancel { grace_ms: 20_000 }).await;
    let started = Instant::now();
    let ended = session.end("cleans").await;
    assert_eq!((ended.stdout(), ended.exit.exit_code, ended.exit.timed_out), ("cleaning\n", 9, false));
    assert!(started.elapsed() < SOON, "the grace is an upper bound");
}

#[tokio::test]
async fn a_cancelled_program_that_does_not_heed_is_killed_after_the_grace() {
    let (host, mut session) = Host::with_session().await;
    let script = "trap '' TERM; touch ready; while :; do sleep 0.02; done";
    start(&host, &mut session, "stubborn", script).await;
    let started = Instant::now();
    session.send("stubborn", ExecCancel { grace_ms: GRACE_MS }).await;
    // The first one counts.
    session.send("stubborn", ExecCancel { grace_ms: 60_000 }).await;
    let exit = session.end("stubborn").await.exit;
    assert_eq!((exit.exit_code, exit.signal), (137, 9));
    assert!(started.elapsed() >= Duration::from_millis(GRACE_MS.into()));
    assert!(started.elapsed() < SOON);
}

/// Leaves a daemon behind in a session of its own, twice removed, which ignores TERM and holds the output.
const DAEMON: &str = "(setsid sh -c \"trap '' TERM HUP; echo \\$\\$ > daemon; exec sleep 1000\" &) ; \
                      until [ -s daemon ]; do sleep 0.02; done; ";

#[tokio::test]
async fn a_cancel_ends_what_has_left_the_group_and_the_session_and_nothing_else() {
    assert!(has_cgroups(), "without a cgroup2 that can be written to (as root) a daemon can't be found");
    let (host, mut session) = Host::with_session().await;
    let other = start(&host, &mut session, "other", &format!("{DAEMON} touch ready; sleep 1000")).await;
    let ended = start(&host, &mut session, "ended", &format!("{DAEMON} touch ready")).await;
    let script = format!("{DAEMON} touch ready; sleep 1000");
    let cancelled = start(&host, &mut session, "cancelled", &script).await;
    let daemon = |directory: &Path| pid(directory, "daemon");
    assert!(runs(&daemon(&other)) && runs(&daemon(&ended)) && runs(&daemon(&cancelled)));
    session.send("cancelled", ExecCancel { grace_ms: GRACE_MS }).await;
    let mut ends = session.ends(&["cancelled", "ended"]).await;
    assert_eq!(ends.remove("cancelled").unwrap().exit.signal, 15);
    assert_eq!(ends.remove("ended").unwrap().exit.exit_code, 0);
    until("the daemon's end", || !runs(&daemon(&cancelled))).await;
    assert!(runs(&daemon(&other)), "another exec goes on");
    assert!(runs(&daemon(&ended)), "an exec that ends by itself leaves its daemons alone");

    let left = host.cgroups();
    assert_eq!(left.len(), 2, "{left:?}");
    session.send("other", ExecCancel { grace_ms: 0 }).await;
    session.end("other").await;
    until("the other daemon's end", || !runs(&daemon(&other))).await;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon(&ended).parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    until("the last cgroup's removal", || host.cgroups().is_empty()).await;
}

fn has_cgroups() -> bool {
    let mounts = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"];
    is_root() && mounts.iter().any(|path| Path::new(path).exists())
}
