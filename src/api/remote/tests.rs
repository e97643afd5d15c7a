//! A workflow is the same, whether its machine is this process's or a daemon's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RemoteRuntime;
use crate::api::testing::World;
use crate::engine::{ImageFacts, Manifest, PlanInput, RunFacts, SourceKind, Trigger, WORK_DIR, plan};
use crate::runtime::fake::{FakeRuntime, ScriptedExec, ScriptedSetup};
use crate::runtime::streams::output;
use crate::runtime::{
    CrashCause, DestroyMode, ExecRequest, ExecStreams, Machine, MachineId, OutOfMemory, Outcome, Runtime,
    SetupEvents, SetupFailure, SetupRequest, Stream, Tenant, Work,
};
use crate::state::log::{Limits, LineSplitter, LogStore, Mask};
use crate::workflow::{Ending, Job, Report, Session, run};

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
";

fn job(deadline: Option<Duration>) -> Job {
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
        deadline: deadline.map(|after| Instant::now() + after),
    }
}

/// What does not depend on the clock, of a report and of the log.
async fn told(
    runtime: impl Runtime + 'static,
    deadline: Option<Duration>,
    cancel: CancellationToken,
) -> String {
    let directory = tempfile::tempdir().unwrap();
    let log =
        LogStore::anonymous(directory.path(), Limits::of_step(1 << 20), Mask::new(&["hunter2"]).unwrap());
    let log = log.unwrap();
    let (events, _queue) = mpsc::unbounded_channel();
    let session = Session::new(Arc::new(runtime), job(deadline), log.clone(), events, cancel);
    let report: Report = run(session).await;
    let mut text = format!("phases {:?}\n", report.phases);
    for step in &report.steps {
        let (verdict, usage) = (&step.verdict, &step.verdict.usage);
        let bytes = (usage.stdout_bytes, usage.stderr_bytes);
        text += &format!("{} {:?} {verdict} {bytes:?} {:?}\n", step.index, step.name, verdict.console_tail);
    }
    match &report.ending {
        Ending::Success => text += "success",
        Ending::StepFailed => text += "step failed",
        Ending::SetupFailed(error) => text += &format!("setup failed: {:?}", error.failure),
    }
    text += &format!(" {:?}\n", report.teardown_error);
    let (mut follower, mut splitter) = (log.follow(0), LineSplitter::default());
    let mut line = |line: crate::state::log::LogLine| {
        text += &format!("{} {:?} {:?} {}\n", line.step_id, line.kind, line.stream, line.content);
    };
    while let Some(record) = follower.next().await {
        splitter.push(&record.unwrap(), &mut line);
    }
    splitter.finish(&mut line);
    text
}

#[tokio::test]
async fn every_ending_of_a_workflow_is_the_same_over_a_daemon() {
    let talking = || {
        ScriptedExec::exits(0)
            .writing(Stream::Stdout, "a token: hunt")
            .writing(Stream::Stderr, "complaint\n")
            .writing(Stream::Stdout, "er2\n")
    };
    let endings = [
        Outcome::Exited { code: 0 },
        Outcome::Exited { code: 3 },
        Outcome::Signalled { signal: 11 },
        Outcome::OutOfMemory { scope: OutOfMemory::MachineLimit { limit_mib: 352, peak_mib: 352 } },
        Outcome::MachineCrashed { cause: CrashCause::HolderStopped },
        Outcome::HostDiskFull { detail: "no room".into() },
        Outcome::AgentLost { detail: "closed".into() },
        Outcome::internal("oops"),
    ];
    let ready = |ending: Outcome| (ScriptedSetup::Ready, vec![talking(), ScriptedExec::ends(ending)], None);
    let mut scripts: Vec<_> = endings.map(ready).into();
    for failure in [
        SetupFailure::BadInput("unknown image `x`".into()),
        SetupFailure::HostCannot("no QEMU".into()),
        SetupFailure::Ended(Outcome::AgentLost { detail: "never connected".into() }),
    ] {
        scripts.push((ScriptedSetup::Fails(failure), Vec::new(), None));
    }
    let soon = Some(Duration::from_millis(300));
    scripts.push((ScriptedSetup::Hangs, Vec::new(), soon));
    scripts.push((ScriptedSetup::Ready, vec![talking(), ScriptedExec::hangs()], soon));
    for (setup, execs, deadline) in scripts {
        let direct = FakeRuntime::new(setup.clone(), execs.clone());
        let journal = direct.journal();
        let expected = told(direct, deadline, CancellationToken::new()).await;
        let world = World::new(setup, execs);
        let remote = RemoteRuntime::new(world.client().await);
        assert_eq!(told(remote, deadline, CancellationToken::new()).await, expected);
        assert_eq!(world.journal.entries(), journal.entries());
        world.living(0).await;
    }
}

#[tokio::test]
async fn a_cancel_reaches_the_daemon_from_setup_and_from_a_step() {
    let table = [
        (ScriptedSetup::Hangs, false, "setup failed: Ended(Cancelled)"),
        (ScriptedSetup::Ready, true, "0 \"one\" cancelled"),
    ];
    for (setup, step, ending) in table {
        let world = World::new(setup, [ScriptedExec::hangs()]);
        let remote = RemoteRuntime::new(world.client().await);
        let cancel = CancellationToken::new();
        let under_way = async {
            world.living(1).await;
            while step && world.machines.list(false)[0].execs == 0 {
                tokio::task::yield_now().await;
            }
            cancel.cancel();
        };
        let (told, ()) = tokio::join!(told(remote, None, cancel.clone()), under_way);
        assert!(told.contains(ending), "{told}");
        assert_eq!(world.machines.counts().borrow().living(), 0, "nothing is left when it returns");
    }
}

async fn machine(remote: &RemoteRuntime) -> Box<dyn Machine> {
    let request = SetupRequest {
        id: MachineId::random().unwrap(),
        tenant: Tenant::local(1000),
        workflow_id: "w".into(),
        image: "tiny".into(),
        work_dir: WORK_DIR.into(),
        source: None,
        labels: BTreeMap::new(),
        architecture: None,
        memory_mib: None,
        vcpus: None,
        memory_limit_mib: None,
        batch: Vec::new(),
        deadline: None,
        ledger: None,
    };
    remote.setup(request, SetupEvents::ignored(), CancellationToken::new()).await.unwrap()
}

fn exec() -> ExecRequest {
    let work = Work::UnpackSource { destination: "/workspace".into(), user: String::new() };
    ExecRequest { id: "e".into(), work, deadline: None }
}

#[tokio::test]
async fn a_daemon_that_dies_is_creels_own_fault_and_said_to_be_lost() {
    let mut world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let remote = RemoteRuntime::new(world.client().await);
    let machine = machine(&remote).await;
    let (output, _reader) = output();
    let streams = ExecStreams { input: None, output };
    let machines = world.machines.clone();
    let dying = async {
        while machines.list(false)[0].execs == 0 {
            tokio::task::yield_now().await;
        }
        world.kill_daemon();
    };
    let (verdict, ()) = tokio::join!(machine.exec(exec(), streams, CancellationToken::new()), dying);
    for outcome in [verdict.outcome, machine.ended().await.outcome] {
        let Outcome::Internal { detail } = outcome else { panic!("{outcome}") };
        assert!(detail.starts_with("lost the connection to creeld"), "{detail}");
    }
    let error = machine.destroy(DestroyMode::Kill).await.unwrap_err();
    assert!(error.starts_with("lost the connection to creeld"), "{error}");
    assert!(remote.info().await.usable.is_err());
}

#[tokio::test]
async fn a_machine_that_dies_tells_its_holder() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::exits(0)]);
    let remote = RemoteRuntime::new(world.client().await);
    assert_eq!(remote.info().await.usable, Ok(()));
    let machine = machine(&remote).await;
    let outcome = Outcome::MachineCrashed { cause: CrashCause::QemuSignalled { signal: 9 } };
    world.death.strike(outcome.clone());
    assert_eq!(machine.ended().await.outcome, outcome);
    let (output, _reader) = output();
    let streams = ExecStreams { input: None, output };
    assert_eq!(machine.exec(exec(), streams, CancellationToken::new()).await.outcome, outcome);
    assert_eq!(machine.destroy(DestroyMode::Kill).await, Ok(()));
}

#[tokio::test]
async fn a_machine_that_is_dropped_is_destroyed() {
    let world = World::new(ScriptedSetup::Ready, []);
    let remote = RemoteRuntime::new(world.client().await);
    drop(machine(&remote).await);
    world.living(0).await;
    assert_eq!(world.journal.entries(), ["setup", "destroy Kill"]);
}

#[tokio::test]
async fn more_machines_than_a_connection_has_calls_for_have_one_more() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::exits(0)]);
    let remote = RemoteRuntime::new(world.client().await);
    let mut held: Vec<_> = (0..10).map(|_| remote.share().unwrap()).collect();
    assert_eq!(remote.connections(), 1);
    let eleventh = machine(&remote).await;
    assert_eq!(remote.connections(), 2);
    let (output, _reader) = output();
    let streams = ExecStreams { input: None, output };
    let verdict = eleventh.exec(exec(), streams, CancellationToken::new()).await;
    assert_eq!(verdict.outcome, Outcome::Exited { code: 0 });
    held.pop();
    held.push(remote.share().unwrap());
    assert_eq!(remote.connections(), 2, "what is given back is taken first");
}
