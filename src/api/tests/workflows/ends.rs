//! Cancel, deadline and shutdown, each in each state.

use tokio::time::Instant;
use wire::WorkflowState as State;

use super::*;

/// The states that a workflow can be brought into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Pending,
    Waiting,
    SettingUp,
    Idle,
    InStep,
    Failed,
}

const ALL: [At; 6] = [At::Pending, At::Waiting, At::SettingUp, At::Idle, At::InStep, At::Failed];

/// A workflow `w` that has come so far, and the calls that wait for it.
struct Brought {
    world: World,
    client: Client,
    waiting: Option<tokio::task::JoinHandle<Result<(), Status>>>,
}

async fn brought(at: At, time: Duration) -> Brought {
    let setup = if at == At::SettingUp { ScriptedSetup::Hangs } else { ScriptedSetup::Ready };
    let exec = if at == At::Failed { ScriptedExec::exits(1) } else { ScriptedExec::hangs() };
    let world = world(setup, [exec]);
    let mut client = client(&world).await;
    if at == At::Waiting {
        for id in ["a", "b"] {
            init(&mut client, id).await;
            acquire(&mut client, id, true).await.1.unwrap();
        }
    }
    init_for(&mut client, "w", time).await;
    if matches!(at, At::Idle | At::InStep | At::Failed) {
        set_up(&mut client, "w").await.unwrap();
    }
    let mut calling = client.clone();
    let waiting = match at {
        At::Pending | At::Idle => None,
        At::Failed => {
            step(&mut client, "w", 0).await.unwrap();
            None
        }
        At::Waiting => Some(tokio::spawn(async move { acquire(&mut calling, "w", false).await.1 })),
        At::SettingUp => Some(tokio::spawn(async move { set_up(&mut calling, "w").await.map(drop) })),
        At::InStep => Some(tokio::spawn(async move {
            let outcome = step(&mut calling, "w", 0).await?;
            Err(Status::ok(format!("{outcome}")))
        })),
    };
    until(&mut client, "w", |workflow| match at {
        At::Pending => workflow.state() == State::Pending,
        At::Waiting => workflow.state() == State::Waiting,
        At::SettingUp => workflow.state() == State::SettingUp,
        At::Idle => workflow.state() == State::Running,
        At::InStep => workflow.steps[0].running,
        At::Failed => workflow.state() == State::Stopped,
    })
    .await;
    Brought { world, client, waiting }
}

impl Brought {
    /// What the call that waited was told.
    async fn told(&mut self) -> Option<String> {
        let told = timeout(SOON, self.waiting.take()?).await.expect("the call ends").unwrap();
        let status = told.unwrap_err();
        Some(match status.code() {
            // A step's verdict.
            Code::Ok => status.message().to_owned(),
            code => format!("{code:?}"),
        })
    }

    /// Nothing is held by `w`.
    async fn assert_free(&mut self) {
        let workflow = get(&mut self.client, "w").await;
        assert_eq!((workflow.state(), workflow.has_slot), (State::Ended, false));
        assert_eq!(self.world.machines.list(false), []);
    }
}

#[tokio::test]
async fn cancel_stops_whatever_goes_on_and_destroy_frees_it() {
    let cancelled = Outcome::Cancelled;
    for at in ALL {
        let mut brought = brought(at, SOON).await;
        let stopped = cancel(&mut brought.client, "w").await;
        assert_eq!(stopped.state(), State::Stopped, "{at:?}");
        let told = brought.told().await;
        let (expected, verdict) = match at {
            At::Pending | At::Idle => (None, &cancelled),
            At::Waiting | At::SettingUp => (Some("Cancelled"), &cancelled),
            At::InStep => (Some("cancelled"), &cancelled),
            At::Failed => (None, &Outcome::Exited { code: 1 }),
        };
        assert_eq!((told.as_deref(), outcome(&stopped).as_ref()), (expected, Some(verdict)), "{at:?}");
        let client = &mut brought.client;
        assert_eq!(cancel(client, "w").await, stopped, "repeated");
        let refused = step(client, "w", 1).await.unwrap_err();
        assert_eq!(
            (refused.code(), verdict_in(&refused).as_ref()),
            (Code::FailedPrecondition, Some(verdict))
        );
        let ended = destroy(client, "w").await;
        assert_eq!(outcome(&ended).as_ref(), Some(verdict));
        assert_eq!(cancel(client, "w").await, ended, "does nothing");
        brought.assert_free().await;
    }
}

#[tokio::test]
async fn a_workflow_whose_time_is_over_ends_by_itself() {
    for at in ALL {
        let time = Duration::from_millis(400);
        let mut brought = brought(at, time).await;
        let ended = until(&mut brought.client, "w", |workflow| workflow.state() == State::Ended).await;
        let expected = match at {
            At::Pending | At::Idle | At::Failed => None,
            At::Waiting | At::SettingUp => Some("DeadlineExceeded"),
            At::InStep => Some("timed out"),
        };
        assert_eq!(brought.told().await.as_deref(), expected, "{at:?}");
        let verdict = if at == At::Failed { Outcome::Exited { code: 1 } } else { Outcome::TimedOut };
        assert_eq!(outcome(&ended), Some(verdict), "{at:?}");
        let took = Duration::from_micros(ended.ended_at_us.unwrap() - ended.created_at_us);
        assert!(took >= time, "{at:?}: {took:?}");
        let (said, late) = acquire(&mut brought.client, "w", false).await;
        let code = if at == At::Failed { Code::FailedPrecondition } else { Code::DeadlineExceeded };
        assert_eq!((said, late.unwrap_err().code()), (vec![], code));
        brought.assert_free().await;
    }
}

#[tokio::test]
async fn destroy_ends_whatever_goes_on() {
    for at in ALL {
        let mut brought = brought(at, SOON).await;
        let ended = destroy(&mut brought.client, "w").await;
        let told = brought.told().await;
        let expected = match at {
            At::Pending | At::Idle | At::Failed => None,
            At::Waiting | At::SettingUp => Some("Cancelled"),
            At::InStep => Some("cancelled"),
        };
        let verdict = if at == At::Failed { Outcome::Exited { code: 1 } } else { Outcome::Cancelled };
        assert_eq!((told.as_deref(), outcome(&ended)), (expected, Some(verdict)), "{at:?}");
        brought.assert_free().await;
    }
}

#[tokio::test]
async fn a_shutdown_ends_all_and_tells_those_who_wait() {
    for at in ALL {
        let mut brought = brought(at, SOON).await;
        let started = Instant::now();
        let (machines, workflows) = (brought.world.machines.clone(), brought.world.workflows.clone());
        workflows.drain();
        let (stuck, left) = tokio::join!(machines.end_all(SOON), workflows.end_all(SOON));
        assert_eq!((stuck, left), (vec![], 0), "{at:?}");
        assert!(started.elapsed() < SOON / 2, "{at:?}");
        let expected = match at {
            At::Pending | At::Idle | At::Failed => None,
            At::Waiting | At::SettingUp => Some("Unavailable"),
            At::InStep => Some("cancelled"),
        };
        assert_eq!(brought.told().await.as_deref(), expected, "{at:?}");
        let late = brought.client.init(request("late")).await.unwrap_err();
        assert_eq!(late.code(), Code::Unavailable);
        brought.assert_free().await;
    }
}

#[tokio::test]
async fn steps_may_take_no_longer_than_what_is_left() {
    let slow = ScriptedExec { takes: Duration::from_millis(300), ..ScriptedExec::exits(0) };
    let world = world(ScriptedSetup::Ready, [slow, ScriptedExec::hangs()]);
    let mut client = client(&world).await;
    init_for(&mut client, "w", Duration::from_millis(600)).await;
    set_up(&mut client, "w").await.unwrap();
    assert_eq!(step(&mut client, "w", 0).await.unwrap(), Outcome::Exited { code: 0 });
    let started = Instant::now();
    assert_eq!(step(&mut client, "w", 1).await.unwrap(), Outcome::TimedOut);
    assert!(started.elapsed() < Duration::from_millis(400), "{:?}", started.elapsed());
}

#[tokio::test]
async fn old_ones_make_room_for_new_ones_while_their_daemon_lives() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    let runs = world.directory.path().join("state/runs");
    let count = || std::fs::read_dir(&runs).unwrap().count();
    let most = usize::try_from(crate::api::testing::retention().max_runs).unwrap();
    for id in 0..most + 3 {
        let id = id.to_string();
        init(&mut client, &id).await;
        destroy(&mut client, &id).await;
    }
    // Old ones are removed behind the back of whoever ended the last.
    timeout(SOON, async {
        while count() > most {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("what is beyond the bound goes");
    // Of the oldest the log is gone, and it is nobody's fault.
    let request = wire::LogsRequest { workflow: key("0"), ..Default::default() };
    let gone = client.logs(request).await.map(drop).unwrap_err();
    assert_eq!((gone.code(), gone.message().contains("`logs.max_runs`")), (Code::NotFound, true), "{gone:?}");
    // The newest is still there, log and all.
    let request = wire::LogsRequest { workflow: key(&(most + 2).to_string()), ..Default::default() };
    let mut log = client.logs(request).await.unwrap().into_inner();
    while log.message().await.unwrap().is_some() {}
}
