//! Lives of machines over a runtime that follows a script, and the races between those who want something of them.

mod held;
mod stuck;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Counts, CreateError, Creation, DestroyError, ENDED_KEPT, ExecError, Lifetime, Machines, NamedBy, State,
    Summary,
};
use crate::runtime::fake::{Death, FakeRuntime, Journal, ScriptedExec, ScriptedSetup};
use crate::runtime::streams::output;
use crate::runtime::{
    CrashCause, DestroyMode, ExecRequest, ExecStreams, MachineId, Outcome, SetupError, SetupEvents,
    SetupFailure, SetupRequest, Tenant, Verdict, Work,
};

const DETACHED: Lifetime = Lifetime::Detached { max_age: None };

struct World {
    machines: Machines,
    journal: Journal,
    death: Death,
}

fn world(setup: ScriptedSetup, execs: impl IntoIterator<Item = ScriptedExec>) -> World {
    let runtime = FakeRuntime::new(setup, execs);
    let (journal, death) = (runtime.journal(), runtime.death());
    World { machines: Machines::new(Arc::new(runtime), 3), journal, death }
}

fn creation(id: &MachineId, lifetime: Lifetime) -> Creation {
    let request = SetupRequest {
        id: id.clone(),
        tenant: Tenant::local(1000),
        workflow_id: "w".into(),
        image: "tiny".into(),
        work_dir: "/workspace".into(),
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
    Creation { request, creator_uid: 1000, lifetime, fingerprint: None }
}

fn id() -> MachineId {
    MachineId::random().unwrap()
}

impl World {
    async fn create(
        &self,
        id: &MachineId,
        lifetime: Lifetime,
        cancel: CancellationToken,
    ) -> Result<Summary, CreateError> {
        self.machines.create(creation(id, lifetime), SetupEvents::ignored(), cancel).await
    }

    async fn created(&self) -> MachineId {
        let id = id();
        self.create(&id, DETACHED, CancellationToken::new()).await.unwrap();
        id
    }

    /// A creation under way, in a task of its own.
    async fn creating(&self) -> (MachineId, tokio::task::JoinHandle<Result<Summary, CreateError>>) {
        let id = id();
        let (machines, creation) = (self.machines.clone(), creation(&id, DETACHED));
        let creating = tokio::spawn(async move {
            machines.create(creation, SetupEvents::ignored(), CancellationToken::new()).await
        });
        let mut counts = self.machines.counts();
        counts.wait_for(|counts| counts.setting_up == 1).await.unwrap();
        (id, creating)
    }

    async fn exec(&self, id: &MachineId) -> Result<Verdict, ExecError> {
        self.exec_named(id, NamedBy::Us).await
    }

    async fn exec_named(&self, id: &MachineId, named_by: NamedBy) -> Result<Verdict, ExecError> {
        let work = Work::UnpackSource { destination: "/workspace".into(), user: String::new() };
        let request = ExecRequest { id: "e".into(), work, deadline: None };
        let (output, _reader) = output();
        let streams = ExecStreams { input: None, output };
        self.machines.exec(id, request, named_by, streams, CancellationToken::new()).await
    }

    async fn destroy(&self, id: &MachineId) -> Summary {
        self.machines.destroy(id, DestroyMode::Kill).await.unwrap()
    }
}

fn outcome(summary: &Summary) -> Option<&Outcome> {
    summary.verdict.as_ref().map(|verdict| &verdict.outcome)
}

fn crashed() -> Outcome {
    Outcome::MachineCrashed { cause: CrashCause::GuestResetOrPanic }
}

#[tokio::test]
async fn a_machine_lives_works_and_is_remembered() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::exits(4)]);
    let id = world.created().await;
    let listed = world.machines.list(false);
    assert_eq!((listed.len(), &listed[0].id, listed[0].state), (1, &id, State::Ready));
    assert_eq!((listed[0].image.as_str(), listed[0].creator_uid, listed[0].execs), ("tiny", 1000, 0));
    assert_eq!(world.exec(&id).await.unwrap().outcome, Outcome::Exited { code: 4 });
    let ended = world.machines.destroy(&id, DestroyMode::Graceful).await.unwrap();
    assert_eq!((ended.state, outcome(&ended)), (State::Ended, Some(&Outcome::Cancelled)));
    assert!(ended.ended_at >= Some(ended.created_at));
    assert_eq!(world.machines.list(false), []);
    assert_eq!(world.machines.list(true), std::slice::from_ref(&ended));
    assert_eq!(world.machines.get(&id), Some(ended.clone()));
    assert_eq!(world.machines.destroy(&id, DestroyMode::Kill).await, Ok(ended), "idempotent");
    assert_eq!(world.exec(&id).await.unwrap().outcome, Outcome::Cancelled, "the verdict that it ended with");
    assert_eq!(world.journal.entries(), ["setup", "exec e", "destroy Graceful"]);
}

#[tokio::test]
async fn what_is_unknown_is_said_to_be() {
    let world = world(ScriptedSetup::Ready, []);
    let id = id();
    assert_eq!(world.exec(&id).await, Err(ExecError::Unknown(id.clone())));
    assert_eq!(world.machines.destroy(&id, DestroyMode::Kill).await, Err(DestroyError::Unknown(id.clone())));
    assert_eq!(world.machines.get(&id), None);
}

#[tokio::test]
async fn an_execs_id_is_used_once_in_a_machines_life() {
    let world = world(ScriptedSetup::Ready, vec![ScriptedExec::exits(0); 4]);
    let (one, other) = (world.created().await, world.created().await);
    world.exec_named(&one, NamedBy::Caller).await.unwrap();
    let duplicate = ExecError::Duplicate { machine: one.clone(), exec: "e".into() };
    assert_eq!(world.exec_named(&one, NamedBy::Caller).await, Err(duplicate));
    world.exec_named(&other, NamedBy::Caller).await.unwrap();
    world.exec_named(&one, NamedBy::Us).await.unwrap();
    assert_eq!(world.journal.entries(), ["setup", "setup", "exec e", "exec e", "exec e"]);
    world.destroy(&one).await;
    let after = world.exec_named(&one, NamedBy::Caller).await.unwrap();
    assert_eq!(after.outcome, Outcome::Cancelled, "the verdict that it ended with");
}

#[tokio::test]
async fn one_id_names_one_machine_also_after_its_end() {
    let world = world(ScriptedSetup::Ready, []);
    let id = world.created().await;
    let again = || world.create(&id, DETACHED, CancellationToken::new());
    assert!(matches!(again().await, Err(CreateError::Exists(_))));
    world.destroy(&id).await;
    assert!(matches!(again().await, Err(CreateError::Exists(_))));
    assert_eq!(world.journal.entries(), ["setup", "destroy Kill"]);
}

#[tokio::test]
async fn who_asks_for_the_same_again_by_its_id_gets_the_same_machine() {
    let world = world(ScriptedSetup::Ready, []);
    let id = id();
    let asked = || Creation { fingerprint: Some([7; 32]), ..creation(&id, DETACHED) };
    assert_eq!(world.machines.created(&id, asked().asker()).await.unwrap(), None);
    let cancel = CancellationToken::new;
    let made = world.machines.create(asked(), SetupEvents::ignored(), cancel()).await.unwrap();
    assert_eq!(world.machines.created(&id, asked().asker()).await.unwrap(), Some(made));
    for other in [
        Creation { fingerprint: Some([8; 32]), ..asked() },
        Creation { fingerprint: None, ..asked() },
        Creation { creator_uid: 1001, ..asked() },
    ] {
        assert!(matches!(world.machines.created(&id, other.asker()).await, Err(CreateError::Exists(_))));
    }
    assert_eq!(world.journal.entries(), ["setup"]);
    world.destroy(&id).await;
    assert!(matches!(world.machines.created(&id, asked().asker()).await, Err(CreateError::Exists(_))));
}

#[tokio::test]
async fn one_that_was_never_ready_is_made_anew() {
    let world = world(ScriptedSetup::Fails(SetupFailure::Ended(crashed())), []);
    let id = id();
    let asked = || Creation { fingerprint: Some([7; 32]), ..creation(&id, DETACHED) };
    for _ in 0..2 {
        assert_eq!(world.machines.created(&id, asked().asker()).await.unwrap(), None);
        let failed = world.machines.create(asked(), SetupEvents::ignored(), CancellationToken::new()).await;
        assert!(matches!(failed, Err(CreateError::Setup(_))), "{failed:?}");
        assert_eq!(world.machines.list(true).len(), 1);
    }
}

#[tokio::test]
async fn a_setup_that_fails_by_its_input_is_forgotten_and_one_that_had_begun_is_not() {
    let bad = SetupFailure::BadInput("unknown image `x`".into());
    let world_of = |failure: &SetupFailure| world(ScriptedSetup::Fails(failure.clone()), []);
    let forgotten = world_of(&bad);
    let result = forgotten.create(&id(), DETACHED, CancellationToken::new()).await;
    assert!(matches!(result, Err(CreateError::Setup(SetupError { failure, .. })) if failure == bad));
    assert_eq!(forgotten.machines.list(true), []);
    let remembered = world_of(&SetupFailure::Ended(crashed()));
    remembered.create(&id(), DETACHED, CancellationToken::new()).await.unwrap_err();
    assert_eq!(outcome(&remembered.machines.list(true)[0]), Some(&crashed()));
    assert_eq!(remembered.machines.counts().borrow().living(), 0);
}

#[tokio::test]
async fn destroying_a_setup_cancels_it_and_waits_for_its_end() {
    let world = world(ScriptedSetup::Hangs, []);
    let (id, creating) = world.creating().await;
    assert_eq!(world.machines.list(false)[0].state, State::SettingUp);
    assert_eq!(world.exec(&id).await, Err(ExecError::SettingUp(id.clone())));
    let destroy = |mode| world.machines.destroy(&id, mode);
    let (one, other) = tokio::join!(destroy(DestroyMode::Graceful), destroy(DestroyMode::Kill));
    assert_eq!((outcome(one.as_ref().unwrap()), &one), (Some(&Outcome::Cancelled), &other));
    let failure = creating.await.unwrap().unwrap_err();
    assert!(
        matches!(&failure, CreateError::Setup(error) if error.failure == SetupFailure::Ended(Outcome::Cancelled)),
        "{failure}"
    );
    assert_eq!(*world.machines.counts().borrow(), Counts::default());
}

#[tokio::test]
async fn many_may_destroy_one_machine_at_once() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let id = world.created().await;
    let destroy = |mode| world.machines.destroy(&id, mode);
    let (exec, one, other) =
        tokio::join!(world.exec(&id), destroy(DestroyMode::Kill), destroy(DestroyMode::Graceful));
    assert_eq!(exec.unwrap().outcome, Outcome::Cancelled);
    assert_eq!(one.unwrap().id, other.unwrap().id);
    assert_eq!(world.journal.entries(), ["setup", "exec e", "destroy Kill"]);
}

#[tokio::test]
async fn a_creator_that_goes_away_leaves_nothing() {
    let world = world(ScriptedSetup::Hangs, []);
    let (_, creating) = world.creating().await;
    creating.abort();
    let mut counts = world.machines.counts();
    counts.wait_for(|counts| counts.living() == 0).await.unwrap();
}

#[tokio::test]
async fn cancelling_ends_an_attached_machine_and_leaves_a_detached_one() {
    let world = world(ScriptedSetup::Ready, []);
    let cancel = CancellationToken::new();
    let (attached, detached) = (id(), id());
    world.create(&attached, Lifetime::Attached, cancel.clone()).await.unwrap();
    world.create(&detached, DETACHED, cancel.clone()).await.unwrap();
    cancel.cancel();
    assert_eq!(outcome(&world.machines.ended(&attached).await.unwrap()), Some(&Outcome::Cancelled));
    assert_eq!(world.machines.get(&detached).unwrap().state, State::Ready);
    let cancelled = world.create(&id(), DETACHED, cancel).await;
    assert!(matches!(cancelled, Err(CreateError::Setup(_))));
}

#[tokio::test]
async fn a_machine_that_dies_under_an_exec_ends_with_its_own_verdict() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let id = world.created().await;
    let dying = async {
        while world.machines.list(false)[0].execs == 0 {
            tokio::task::yield_now().await;
        }
        world.death.strike(crashed());
    };
    let (exec, ()) = tokio::join!(world.exec(&id), dying);
    assert_eq!(exec.unwrap().outcome, crashed());
    let ended = world.machines.ended(&id).await.unwrap();
    assert_eq!((outcome(&ended), ended.execs), (Some(&crashed()), 0));
    assert_eq!(world.journal.entries(), ["setup", "exec e", "destroy Kill"], "what it held is freed");
}

#[tokio::test(start_paused = true)]
async fn a_machine_becomes_no_older_than_it_may() {
    let world = world(ScriptedSetup::Ready, []);
    let (id, max_age) = (id(), Duration::from_secs(90));
    world.create(&id, Lifetime::Detached { max_age: Some(max_age) }, CancellationToken::new()).await.unwrap();
    let started = tokio::time::Instant::now();
    let ended = world.machines.ended(&id).await.unwrap();
    assert_eq!((started.elapsed().as_secs(), outcome(&ended)), (90, Some(&Outcome::TimedOut)));
}

#[tokio::test]
async fn setups_count_too_and_no_more_are_admitted_than_there_may_be() {
    let world = world(ScriptedSetup::Ready, []);
    for _ in 0..3 {
        world.created().await;
    }
    let one_more = async || world.create(&id(), DETACHED, CancellationToken::new()).await;
    assert!(matches!(one_more().await, Err(CreateError::Full { max: 3 })));
    assert!(matches!(world.machines.check_room(), Err(CreateError::Full { max: 3 })));
    let oldest = world.machines.list(false)[0].id.clone();
    world.destroy(&oldest).await;
    one_more().await.unwrap();
    assert_eq!(*world.machines.counts().borrow(), Counts { setting_up: 0, ready: 3, ending: 0 });
}

#[tokio::test]
async fn callers_create_nothing_among_the_machines_of_a_run() {
    let machines = Machines::of_a_run(Arc::new(FakeRuntime::new(ScriptedSetup::Ready, [])));
    assert!(matches!(machines.check_room(), Err(CreateError::OfARun)));
    let id = id();
    let created = machines.create(creation(&id, DETACHED), SetupEvents::ignored(), CancellationToken::new());
    assert_eq!(created.await.unwrap().id, id, "the run itself does");
    assert_eq!(machines.max_machines(), None);
}

#[tokio::test]
async fn draining_admits_nobody_and_end_all_ends_everybody() {
    let world = world(ScriptedSetup::Ready, []);
    let (one, other) = (world.created().await, world.created().await);
    world.machines.drain();
    assert!(matches!(
        world.create(&id(), DETACHED, CancellationToken::new()).await,
        Err(CreateError::Draining)
    ));
    assert_eq!(world.machines.list(false).len(), 2, "those that live go on");
    assert_eq!(world.machines.end_all(Duration::from_secs(10)).await, []);
    let ended: Vec<_> =
        world.machines.list(true).into_iter().map(|machine| (machine.id, machine.state)).collect();
    assert_eq!(ended, [(one, State::Ended), (other, State::Ended)], "oldest first");
}

#[tokio::test]
async fn the_last_ended_ones_are_remembered_and_no_more() {
    let world = world(ScriptedSetup::Ready, []);
    let first = world.created().await;
    world.destroy(&first).await;
    for _ in 0..ENDED_KEPT {
        let id = world.created().await;
        world.destroy(&id).await;
    }
    assert_eq!(world.machines.list(true).len(), ENDED_KEPT);
    assert_eq!(world.machines.get(&first), None);
}
