//! Verdicts, deadlines and teardown, against a runtime that follows a script.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Ending, Job, LetGo, Report, Session, WorkflowEvent, run};
use crate::engine::{ImageFacts, Manifest, PlanInput, RunFacts, SourceKind, Trigger, plan};
use crate::exit::Exit;
use crate::runtime::fake::{FakeRuntime, Journal, ScriptedExec, ScriptedSetup};
use crate::runtime::{CrashCause, MachineId, OutOfMemory, Outcome, SetupFailure, Stream, Tenant};
use crate::state::log::{Limits, LineKind, LineSplitter, LogLine, LogStore, Mask};

const WORKFLOW: &str = "
engine: microvm
when:
  - event: manual
clone:
  skip: true
steps:
  - name: one
    command: one
  - name: two
    command: two
  - name: three
    command: three
";

fn job(deadline: Option<Instant>) -> Job {
    let manifest = Manifest::parse("test.yml", WORKFLOW).unwrap();
    let input = PlanInput {
        workflow_name: "test".into(),
        trigger: Trigger::manual(),
        facts: RunFacts::default(),
        image: Some(ImageFacts { name: "tiny".into(), shell: "/bin/sh".into(), base_config_hash: None }),
        source: SourceKind::Disk { commit: None, dirty: false },
    };
    Job {
        id: MachineId::random().unwrap(),
        workflow_id: "r-test".into(),
        tenant: Tenant::local(1000),
        plan: plan(&manifest, &input).unwrap(),
        image: "tiny".into(),
        source: None,
        deadline,
    }
}

/// What a run of a script leaves: its report, what was done to the machine, and its log.
struct Ran {
    report: Report,
    journal: Vec<String>,
    lines: Vec<LogLine>,
}

impl Ran {
    fn exit_code(&self) -> u8 {
        Exit::from(&self.report).code()
    }

    fn steps(&self) -> Vec<&str> {
        self.report.steps.iter().map(|step| step.name.as_str()).collect()
    }
}

async fn ran_with(runtime: FakeRuntime, deadline: Option<Duration>, cancel: CancellationToken) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let log =
        LogStore::anonymous(directory.path(), Limits::of_step(1 << 20), Mask::new(&["hunter2"]).unwrap());
    let log = log.unwrap();
    let journal: Journal = runtime.journal();
    let (events, _queue) = mpsc::unbounded_channel();
    let deadline = deadline.map(|after| Instant::now() + after);
    let session = Session::new(Arc::new(runtime), job(deadline), log.clone(), events, cancel);
    let report = run(session).await;
    let (mut follower, mut splitter, mut lines) = (log.follow(0), LineSplitter::default(), Vec::new());
    while let Some(record) = follower.next().await {
        splitter.push(&record.unwrap(), |line| lines.push(line));
    }
    splitter.finish(|line| lines.push(line));
    Ran { report, journal: journal.entries(), lines }
}

async fn ran(execs: impl IntoIterator<Item = ScriptedExec>) -> Ran {
    ran_with(FakeRuntime::new(ScriptedSetup::Ready, execs), None, CancellationToken::new()).await
}

#[tokio::test]
async fn all_steps_run_in_order_and_the_machine_powers_off() {
    let ran = ran([ScriptedExec::exits(0), ScriptedExec::exits(0), ScriptedExec::exits(0)]).await;
    assert!(matches!(ran.report.ending, Ending::Success));
    assert_eq!(ran.exit_code(), 0);
    assert_eq!(ran.journal, ["setup", "exec r-test-0", "exec r-test-1", "exec r-test-2", "destroy Graceful"]);
}

#[tokio::test]
async fn every_verdict_ends_the_workflow_in_its_own_words_and_code() {
    let crashed = |cause| Outcome::MachineCrashed { cause };
    let table = [
        (Outcome::Exited { code: 3 }, 1, "Graceful"),
        (Outcome::Signalled { signal: 11 }, 1, "Graceful"),
        (Outcome::TimedOut, 124, "Kill"),
        (Outcome::Cancelled, 130, "Kill"),
        (Outcome::OutOfMemory { scope: OutOfMemory::GuestProcess }, 1, "Kill"),
        (
            Outcome::OutOfMemory { scope: OutOfMemory::MachineLimit { limit_mib: 352, peak_mib: 352 } },
            1,
            "Kill",
        ),
        (crashed(CrashCause::GuestResetOrPanic), 125, "Kill"),
        (crashed(CrashCause::GuestPoweredOff), 125, "Kill"),
        (crashed(CrashCause::QemuExited { status: 1 }), 125, "Kill"),
        (crashed(CrashCause::QemuSignalled { signal: 9 }), 125, "Kill"),
        (crashed(CrashCause::HelperEnded { name: "vsock".into(), how: "signal 9".into() }), 125, "Kill"),
        (Outcome::HostDiskFull { detail: "no room".into() }, 125, "Kill"),
        (Outcome::AgentLost { detail: "closed".into() }, 125, "Kill"),
        (Outcome::internal("oops"), 125, "Kill"),
    ];
    let mut words = Vec::new();
    for (outcome, code, destroyed) in table {
        let ran = ran([ScriptedExec::exits(0), ScriptedExec::ends(outcome.clone())]).await;
        assert_eq!(ran.exit_code(), code, "{outcome}");
        assert_eq!(ran.steps(), ["one", "two"], "{outcome}: step three must not run");
        assert_eq!(ran.journal.last().map(String::as_str), Some(format!("destroy {destroyed}").as_str()));
        assert_eq!(ran.report.failed_step().map(|step| &step.verdict.outcome), Some(&outcome));
        words.push(format!("{code}  {outcome}"));
    }
    insta::assert_snapshot!(words.join("\n"), @"
    1  exited with code 3
    1  killed by signal 11
    124  timed out
    130  cancelled
    1  out of memory (the guest kernel killed a process of this step)
    1  out of memory (the machine's limit of 352 MiB; peak 352 MiB)
    125  machine crashed (guest reset or panic)
    125  machine crashed (guest powered off)
    125  machine crashed (QEMU: exit status 1)
    125  machine crashed (QEMU: signal 9)
    125  machine crashed (vsock: signal 9)
    125  host disk full (no room)
    125  agent lost (closed)
    125  creel's own fault: oops
    ");
}

#[tokio::test]
async fn a_failed_setup_keeps_its_reason_and_has_nothing_to_destroy() {
    let table = [
        (SetupFailure::BadInput("unknown image `x`".into()), 2),
        (SetupFailure::HostCannot("no QEMU".into()), 3),
        (SetupFailure::Ended(Outcome::AgentLost { detail: "never connected".into() }), 125),
    ];
    for (failure, code) in table {
        let runtime = FakeRuntime::new(ScriptedSetup::Fails(failure.clone()), []);
        let ran = ran_with(runtime, None, CancellationToken::new()).await;
        assert_eq!(ran.exit_code(), code);
        assert_eq!(ran.journal, ["setup"]);
        let said = ran.lines.iter().find(|line| line.content == failure.to_string());
        assert!(said.is_some_and(|line| line.step_id == -1), "the log says why: {:?}", ran.lines);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_setup_and_steps_together() {
    let runtime = FakeRuntime::new(ScriptedSetup::Hangs, []);
    let ran = ran_with(runtime, Some(Duration::from_secs(5)), CancellationToken::new()).await;
    assert_eq!((ran.exit_code(), ran.report.total), (124, Duration::from_secs(5)));

    let slow = ScriptedExec { takes: Duration::from_secs(4), ..ScriptedExec::exits(0) };
    let runtime = FakeRuntime::new(ScriptedSetup::Ready, [slow.clone(), slow]);
    let ran = ran_with(runtime, Some(Duration::from_secs(5)), CancellationToken::new()).await;
    assert_eq!((ran.exit_code(), ran.report.total), (124, Duration::from_secs(5)));
    assert_eq!(ran.steps(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_step_and_never_the_teardown() {
    let cancel = CancellationToken::new();
    let runtime = FakeRuntime::new(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let canceller = cancel.clone();
    let cancelling = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        canceller.cancel();
    };
    let (ran, ()) = tokio::join!(ran_with(runtime, None, cancel), cancelling);
    assert_eq!(ran.exit_code(), 130);
    assert_eq!(ran.journal, ["setup", "exec r-test-0", "destroy Kill"]);
}

#[tokio::test]
async fn the_log_has_each_step_between_its_marks_and_secrets_masked() {
    let talking = ScriptedExec::exits(0)
        .writing(Stream::Stdout, "a token: hunt")
        .writing(Stream::Stderr, "complaint\n")
        .writing(Stream::Stdout, "er2\n");
    let ran = ran([talking, ScriptedExec::exits(7)]).await;
    let told: Vec<String> = ran
        .lines
        .iter()
        .map(|line| match line.kind {
            LineKind::Data => format!("{} {:?} {}", line.step_id, line.stream, line.content),
            LineKind::Control => format!("{} {:?} `{}`", line.step_id, line.step_status, line.content),
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @"
    -1 Some(Start) ``
    -1 Some(End) `ok`
    0 Some(Start) ``
    0 Some(Stderr) complaint
    0 Some(Stdout) a token: ***
    0 Some(End) `ok`
    1 Some(Start) ``
    1 Some(End) `exited with code 7`
    ");
}

/// Runs a workflow whose second step ends so, keeping its machine; `meanwhile` is told of the keeping.
async fn kept(
    outcome: Outcome,
    limit: Duration,
    meanwhile: impl FnOnce(&crate::runtime::fake::Death, &CancellationToken),
) -> (Report, Vec<WorkflowEvent>, Vec<String>) {
    let runtime =
        FakeRuntime::new(ScriptedSetup::Ready, [ScriptedExec::exits(0), ScriptedExec::ends(outcome)]);
    let (death, journal, cancel) = (runtime.death(), runtime.journal(), CancellationToken::new());
    let directory = tempfile::tempdir().unwrap();
    let log = LogStore::anonymous(directory.path(), Limits::of_step(1 << 20), Mask::none()).unwrap();
    let (events, mut queue) = mpsc::unbounded_channel();
    // Its time is over long before the machine's is.
    let deadline = Some(Instant::now() + Duration::from_millis(50));
    let session = Session::new(Arc::new(runtime), job(deadline), log, events, cancel.clone());
    let running = tokio::spawn(run(session.keeping_failed(limit)));
    let (mut seen, mut meanwhile) = (Vec::new(), Some(meanwhile));
    while let Some(event) = queue.recv().await {
        if matches!(event, WorkflowEvent::Kept { .. })
            && let Some(meanwhile) = meanwhile.take()
        {
            assert!(!journal.entries().iter().any(|entry| entry.starts_with("destroy")));
            meanwhile(&death, &cancel);
        }
        seen.push(event);
    }
    (running.await.unwrap(), seen, journal.entries())
}

fn let_go(events: &[WorkflowEvent]) -> Vec<LetGo> {
    let why = events.iter().filter_map(|event| match event {
        WorkflowEvent::LetGo(why) => Some(why.clone()),
        _ => None,
    });
    why.collect()
}

#[tokio::test]
async fn a_machine_that_is_kept_stays_until_it_is_let_go_and_changes_no_verdict() {
    let failed = || Outcome::Exited { code: 3 };
    let hour = Duration::from_secs(3600);
    let (report, events, journal) = kept(failed(), hour, |_, cancel| cancel.cancel()).await;
    assert_eq!((Exit::from(&report).code(), let_go(&events)), (1, vec![LetGo::Cancelled]));
    assert_eq!(journal.last().unwrap(), "destroy Kill", "whoever interrupts does not wait");

    let (report, events, journal) = kept(failed(), Duration::from_millis(200), |_, _| {}).await;
    assert_eq!((Exit::from(&report).code(), let_go(&events)), (1, vec![LetGo::TimeLimit]));
    assert_eq!(journal.last().unwrap(), "destroy Graceful");

    let crash = || Outcome::MachineCrashed { cause: CrashCause::GuestPoweredOff };
    let (report, events, _) = kept(failed(), hour, |death, _| death.strike(crash())).await;
    assert_eq!((Exit::from(&report).code(), let_go(&events)), (1, vec![LetGo::Ended(crash())]));

    let (report, events, _) = kept(Outcome::TimedOut, Duration::from_millis(200), |_, _| {}).await;
    assert_eq!((Exit::from(&report).code(), let_go(&events)), (124, vec![LetGo::TimeLimit]));
}

#[tokio::test]
async fn nothing_is_kept_of_a_success_or_of_a_machine_that_is_dead() {
    let crash = Outcome::MachineCrashed { cause: CrashCause::GuestPoweredOff };
    for (death, code) in [(None, 0), (Some(crash), 125)] {
        let execs = [ScriptedExec::exits(0), ScriptedExec::exits(0), ScriptedExec::exits(0)];
        let runtime = FakeRuntime::new(
            ScriptedSetup::Ready,
            if death.is_some() { vec![ScriptedExec::hangs()] } else { execs.into() },
        );
        if let Some(outcome) = death {
            runtime.death().strike(outcome);
        }
        let directory = tempfile::tempdir().unwrap();
        let log = LogStore::anonymous(directory.path(), Limits::of_step(1 << 20), Mask::none()).unwrap();
        let (events, _queue) = mpsc::unbounded_channel();
        let session = Session::new(Arc::new(runtime), job(None), log, events, CancellationToken::new());
        let ended = run(session.keeping_failed(Duration::from_secs(3600)));
        let report = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("not kept");
        assert_eq!(Exit::from(&report).code(), code);
    }
}
