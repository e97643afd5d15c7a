//! What a daemon finds of an earlier one's workflows.

use wire::WorkflowState as State;

use super::*;
use crate::runtime::Stream;

fn nothing() -> FakeRuntime {
    FakeRuntime::new(ScriptedSetup::Ready, [])
}

#[tokio::test]
async fn what_has_ended_is_told_by_its_record() {
    let talking = ScriptedExec::exits(0).writing(Stream::Stdout, "a token: hunter2\n");
    let world = world(ScriptedSetup::Ready, [talking, ScriptedExec::exits(3)]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    set_up(&mut client, "w").await.unwrap();
    step_with(&mut client, "w", 0, &[("TOKEN", "hunter2")]).await.unwrap();
    step(&mut client, "w", 1).await.unwrap();
    let ended = destroy(&mut client, "w").await;
    let log = lines(&mut client, "w", 0, false).await;
    let world = world.restarted(nothing());
    let mut client = super::client(&world).await;
    let past = get(&mut client, "w").await;
    assert_eq!(past.deadline_us, 0, "nobody remembers");
    assert_eq!(wire::Workflow { deadline_us: ended.deadline_us, ..past.clone() }, ended);
    assert_eq!(lines(&mut client, "w", 0, true).await, log);
    assert!(log.iter().any(|line| line.ends_with("a token: ***")), "{log:?}");
    assert_eq!(list(&mut client, false).await, []);
    assert_eq!(list(&mut client, true).await.len(), 1);
    // All calls go on to have their meaning.
    assert_eq!(step(&mut client, "w", 0).await.unwrap(), Outcome::Exited { code: 0 });
    assert_eq!(step(&mut client, "w", 1).await.unwrap(), Outcome::Exited { code: 3 });
    assert_eq!(step(&mut client, "w", 2).await.unwrap_err().code(), Code::InvalidArgument);
    let refused = set_up(&mut client, "w").await.unwrap_err();
    assert_eq!(
        (refused.code(), verdict_in(&refused)),
        (Code::FailedPrecondition, Some(Outcome::Exited { code: 3 }))
    );
    assert_eq!(acquire(&mut client, "w", false).await.1.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(cancel(&mut client, "w").await, past);
    assert_eq!(destroy(&mut client, "w").await, past);
    assert_eq!(init(&mut client, "w").await, past, "the same request");
    let other = wire::InitRequest { manifest: FILE.replace("two", "three"), ..request("w") };
    assert_eq!(client.init(other).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(world.journal.entries(), Vec::<String>::new());
}

#[tokio::test]
async fn what_ran_when_creeld_died_has_ended_by_that() {
    let talking = ScriptedExec::exits(0).writing(Stream::Stdout, "one\n");
    let world = world(ScriptedSetup::Ready, [talking, ScriptedExec::hangs()]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    set_up(&mut client, "w").await.unwrap();
    step(&mut client, "w", 0).await.unwrap();
    let mut stepping = client.clone();
    let stepping = tokio::spawn(async move { step(&mut stepping, "w", 1).await });
    until(&mut client, "w", |workflow| workflow.steps[1].running).await;
    let world = world.restarted(nothing());
    assert!(stepping.await.unwrap().is_err());
    let mut client = super::client(&world).await;
    let past = get(&mut client, "w").await;
    assert_eq!((past.state(), past.has_slot), (State::Ended, false));
    assert_eq!(outcome(&past), Some(Outcome::internal("creeld ended while it ran")));
    assert_eq!((past.steps[0].verdict.is_some(), past.steps[1].verdict.is_some()), (true, false));
    assert!(!past.steps[1].running);
    assert_eq!(step(&mut client, "w", 0).await.unwrap(), Outcome::Exited { code: 0 });
    let refused = step(&mut client, "w", 1).await.unwrap_err();
    assert_eq!((refused.code(), verdict_in(&refused)), (Code::FailedPrecondition, outcome(&past)));
    let log = lines(&mut client, "w", 0, true).await;
    assert!(log.contains(&"0 data one".to_owned()), "{log:?}");
}

#[tokio::test]
async fn a_record_that_was_removed_makes_room_for_its_name() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    let first = init(&mut client, "w").await;
    destroy(&mut client, "w").await;
    let world = world.restarted(nothing());
    let mut client = super::client(&world).await;
    assert_eq!(get(&mut client, "w").await.state(), State::Ended);
    std::fs::remove_dir_all(world.directory.path().join("state/runs").join(&first.machine_id)).unwrap();
    let gone = client.get(wire::GetWorkflowRequest { workflow: key("w") }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_ne!(init(&mut client, "w").await.machine_id, first.machine_id);
}
