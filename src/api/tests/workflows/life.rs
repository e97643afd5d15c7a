//! A workflow from its file to its end.

use std::time::Duration;

use wire::WorkflowState as State;
use wire::workflow_setup_event::Event;

use super::*;
use crate::runtime::{SetupFailure, Stream};

#[tokio::test]
async fn a_workflow_lives_from_init_to_destroy() {
    let talking = ScriptedExec::exits(0)
        .writing(Stream::Stdout, "the token is hunt")
        .writing(Stream::Stdout, "er2\n")
        .writing(Stream::Stderr, b"\xff\n".to_vec());
    let world = world(ScriptedSetup::Ready, [talking, ScriptedExec::exits(0)]);
    let mut client = client(&world).await;
    let timeout_us = client.timeout(wire::TimeoutRequest {}).await.unwrap().into_inner().timeout_us;
    assert_eq!(timeout_us, 3_600_000_000);

    let planned = init(&mut client, "w").await;
    assert_eq!((planned.state(), planned.has_slot, outcome(&planned)), (State::Pending, false, None));
    assert_eq!(
        (planned.name.as_str(), planned.engine.as_str(), planned.image.as_str()),
        ("test", "microvm", "tiny")
    );
    assert_eq!(planned.creator_uid, rustix::process::geteuid().as_raw());
    assert!(planned.deadline_us.abs_diff(planned.created_at_us + timeout_us) < 1_000_000);
    let steps: Vec<_> = planned
        .steps
        .iter()
        .map(|step| (step.name.as_str(), step.kind.as_str(), step.command.as_str()))
        .collect();
    assert_eq!(steps, [("one", "user", "one"), ("two", "user", "two")]);
    assert_eq!(world.journal.entries(), Vec::<String>::new(), "nothing is started");

    let (said, result) = acquire(&mut client, "w", false).await;
    assert_eq!((said, result.is_ok()), (vec![None], true));
    assert!(get(&mut client, "w").await.has_slot);

    let said = set_up(&mut client, "w").await.unwrap();
    let [Event::PhaseStarted(_), Event::PhaseFinished(finished), Event::Ready(ready)] = &said[..] else {
        panic!("another order: {said:?}")
    };
    assert_eq!((finished.phase(), finished.took_us), (wire::Phase::Prepare, 1000));
    assert_eq!((ready.state(), &ready.machine_id), (State::Running, &planned.machine_id));
    let machines = world.machines.list(false);
    assert_eq!(
        (machines.len(), machines[0].id.as_str()),
        (1, planned.machine_id.as_str()),
        "`creel ps` shows it"
    );

    let secrets = [("TOKEN", "hunter2")];
    assert_eq!(step_with(&mut client, "w", 0, &secrets).await.unwrap(), Outcome::Exited { code: 0 });
    assert_eq!(get(&mut client, "w").await.state(), State::Running);
    assert_eq!(step(&mut client, "w", 1).await.unwrap(), Outcome::Exited { code: 0 });
    let stopped = get(&mut client, "w").await;
    assert_eq!((stopped.state(), stopped.has_slot), (State::Stopped, true));
    assert_eq!(outcome(&stopped), Some(Outcome::Exited { code: 0 }));

    let log = lines(&mut client, "w", 0, false).await;
    insta::assert_snapshot!(log.join("\n"));

    let ended = destroy(&mut client, "w").await;
    assert_eq!((ended.state(), ended.has_slot), (State::Ended, false));
    assert!(ended.ended_at_us >= Some(ended.created_at_us));
    assert_eq!(destroy(&mut client, "w").await, ended, "idempotent");
    assert_eq!(world.machines.list(false), []);
    let counted = world.machines.metrics().render();
    assert!(counted.contains("creel_workflow_verdicts_total{outcome=\"success\"} 1\n"), "{counted}");
    assert_eq!(list(&mut client, false).await, []);
    assert_eq!(list(&mut client, true).await.len(), 1);
    assert_eq!(lines(&mut client, "w", 0, true).await, log, "the log stays, and has an end");
    assert_eq!(world.journal.entries(), ["setup", "exec w-0", "exec w-1", "destroy Graceful"]);
}

#[tokio::test]
async fn a_step_that_fails_is_an_answer_and_none_follows_it() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::exits(3)]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    set_up(&mut client, "w").await.unwrap();
    assert_eq!(step(&mut client, "w", 0).await.unwrap(), Outcome::Exited { code: 3 });
    let refused = step(&mut client, "w", 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(verdict_in(&refused), Some(Outcome::Exited { code: 3 }));
    assert_eq!(step(&mut client, "w", 0).await.unwrap(), Outcome::Exited { code: 3 }, "told again");
    let stopped = get(&mut client, "w").await;
    assert_eq!((stopped.state(), outcome(&stopped)), (State::Stopped, Some(Outcome::Exited { code: 3 })));
    let ended = destroy(&mut client, "w").await;
    assert_eq!(outcome(&ended), Some(Outcome::Exited { code: 3 }));
    assert_eq!(step(&mut client, "w", 0).await.unwrap(), Outcome::Exited { code: 3 }, "and after its end");
}

#[tokio::test]
async fn a_setup_that_fails_ends_the_workflow_and_says_why() {
    let crashed = Outcome::AgentLost { detail: "never connected".into() };
    let table = [
        (SetupFailure::BadInput("the image is no more".into()), Code::InvalidArgument),
        (SetupFailure::HostCannot("no QEMU".into()), Code::FailedPrecondition),
        (SetupFailure::Ended(crashed), Code::Aborted),
    ];
    for (failure, code) in table {
        let world = world(ScriptedSetup::Fails(failure.clone()), []);
        let mut client = client(&world).await;
        init(&mut client, "w").await;
        for _ in 0..2 {
            let status = set_up(&mut client, "w").await.unwrap_err();
            assert_eq!((status.code(), status.message()), (code, failure.to_string().as_str()));
            let detail: wire::SetupFailure = detail_in(&status, "creel.v1.SetupFailure").unwrap();
            assert_eq!(crate::runtime::SetupError::try_from(detail).unwrap().failure, failure);
        }
        let ended = until(&mut client, "w", |workflow| workflow.state() == State::Ended).await;
        assert!(!ended.has_slot && !outcome(&ended).unwrap().is_success());
        let refused = step(&mut client, "w", 0).await.unwrap_err();
        assert_eq!((refused.code(), verdict_in(&refused)), (Code::FailedPrecondition, outcome(&ended)));
        assert_eq!(destroy(&mut client, "w").await, ended);
        let log = lines(&mut client, "w", 0, true).await;
        assert!(log.iter().any(|line| line.contains(&failure.to_string())), "{log:?}");
    }
}

#[tokio::test]
async fn a_machine_that_dies_between_steps_is_the_next_ones_verdict() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::exits(0), ScriptedExec::hangs()]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    set_up(&mut client, "w").await.unwrap();
    step(&mut client, "w", 0).await.unwrap();
    let panicked = Outcome::MachineCrashed { cause: crate::runtime::CrashCause::GuestResetOrPanic };
    world.death.strike(panicked.clone());
    assert_eq!(step(&mut client, "w", 1).await.unwrap(), panicked);
    assert_eq!(outcome(&destroy(&mut client, "w").await), Some(panicked));
}

#[tokio::test]
async fn a_call_that_goes_away_ends_nothing() {
    let slow = ScriptedExec { takes: Duration::from_millis(300), ..ScriptedExec::exits(0) };
    let world = world(ScriptedSetup::Ready, [slow]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    {
        // A connection of its own, which closes in the midst of the setup.
        let mut leaving = super::client(&world).await;
        drop(leaving.setup(wire::WorkflowSetupRequest { workflow: key("w") }).await.unwrap());
    }
    until(&mut client, "w", |workflow| workflow.state() == State::Running).await;
    {
        let mut leaving = super::client(&world).await;
        let left = timeout(Duration::from_millis(50), step(&mut leaving, "w", 0)).await;
        assert!(left.is_err(), "it runs");
    }
    assert!(get(&mut client, "w").await.steps[0].running);
    assert_eq!(step(&mut client, "w", 0).await.unwrap(), Outcome::Exited { code: 0 }, "attached");
    assert_eq!(world.journal.entries().len(), 2, "one setup, one exec");
}
