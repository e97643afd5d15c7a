//! Looking at machines and at the host.

use std::time::{Duration, SystemTime};

use creel_proto::v1 as wire;
use creel_proto::v1::machines_client::MachinesClient;
use tokio::time::timeout;

use super::{DETACHED, PLAIN, heard, named, program, raw};
use crate::api::testing::{World, new_machine};
use crate::api::{ApiError, EventStream, Progress, StatsStream};
use crate::machines::{ConsoleChunk, EVENTS_KEPT, Followed, Happening, Lifetime, State};
use crate::runtime::fake::{ScriptedExec, ScriptedSetup};
use crate::runtime::{DestroyMode, MachineId, Outcome, Phase, SetupFailure, Verdict};

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(5);

/// What happened, as words.
fn word(followed: &Followed) -> String {
    let outcome = |verdict: &Verdict| verdict.outcome.to_string();
    match followed {
        Followed::Missed(count) => format!("missed {count}"),
        Followed::Event(event) => match &event.what {
            Happening::Created { image } => format!("created of {image}"),
            Happening::Ready => "ready".into(),
            Happening::ExecStarted { exec_id } => format!("exec {exec_id}"),
            Happening::ExecEnded { exec_id, verdict } => format!("exec {exec_id}: {}", outcome(verdict)),
            Happening::Ending => "ending".into(),
            Happening::Ended { verdict } => format!("ended: {}", outcome(verdict)),
            Happening::SetupFailed { why } => format!("setup failed: {why}"),
        },
    }
}

async fn words(mut events: EventStream) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(event) = timeout(SOON, events.next()).await.unwrap().unwrap() {
        words.push(word(&event));
    }
    words
}

#[tokio::test]
async fn a_machine_is_inspected_while_it_lives_and_after_its_end() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let ready = world.machine(&client).await;
    world.console.write(b"one\ntwo\n");
    let inspection = client.inspect(&ready.id, Some(4)).await.unwrap();
    assert_eq!(inspection.summary, ready);
    assert_eq!(inspection.lifetime, DETACHED);
    let [phase] = &inspection.setup[..] else { panic!("{:?}", inspection.setup) };
    assert_eq!((phase.phase, phase.took), (Phase::Prepare, Some(Duration::from_millis(1))));
    assert!(phase.started_at >= ready.created_at && phase.started_at <= SystemTime::now());
    assert_eq!(inspection.details.processes[0].name, "fake");
    assert_eq!(inspection.console_tail.as_deref(), Some(&b"two\n"[..]));
    assert_eq!(client.inspect(&ready.id, None).await.unwrap().console_tail, None, "not asked for");
    let too_much = client.inspect(&ready.id, Some(70_000)).await;
    assert!(
        matches!(&too_much, Err(ApiError::BadInput(text)) if text.contains("`console_bytes`")),
        "{too_much:?}"
    );
    let ended = client.destroy(&ready.id, DestroyMode::Kill).await.unwrap();
    let inspection = client.inspect(&ready.id, Some(4)).await.unwrap();
    assert_eq!((inspection.summary, inspection.setup.len()), (ended, 1));
    assert!(inspection.details.processes.is_empty());
}

#[tokio::test]
async fn a_machine_that_is_being_set_up_shows_how_far_it_is() {
    let world = World::new(ScriptedSetup::Hangs, []);
    let client = world.client().await;
    let mut lifetime = new_machine(Lifetime::Detached { max_age: Some(Duration::from_secs(60)) });
    lifetime.memory_mib = Some(99);
    let mut creating = client.create(lifetime, None).await.unwrap();
    let Ok(Some(Progress::Accepted(id))) = creating.next().await else { panic!("not accepted") };
    while creating.next().await.unwrap()
        != Some(Progress::Setup(crate::runtime::SetupEvent::Finished(
            Phase::Prepare,
            Duration::from_millis(1),
        )))
    {}
    let inspection = client.inspect(&id, Some(100)).await.unwrap();
    assert_eq!((inspection.summary.state, inspection.summary.facts.memory_mib), (State::SettingUp, 99));
    assert_eq!(inspection.lifetime, Lifetime::Detached { max_age: Some(Duration::from_secs(60)) });
    assert_eq!((inspection.setup.len(), inspection.console_tail), (1, None));
    assert!(matches!(client.console(&id, false).await, Err(ApiError::NotNow(_))));
    let stats = first(client.stats(&[id], None).await.unwrap()).await;
    assert_eq!((stats[0].state, &stats[0].load), (State::SettingUp, &None));
}

#[tokio::test]
async fn what_is_not_known_is_not_found_by_any_of_the_calls() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let known = world.machine(&client).await.id;
    let id = MachineId::random().unwrap();
    let refusals = [
        client.inspect(&id, None).await.map(drop),
        client.stats(&[known, id.clone()], None).await.map(drop),
        client.console(&id, false).await.map(drop),
        client.console(&id, true).await.map(drop),
    ];
    for refusal in refusals {
        assert!(
            matches!(&refusal, Err(ApiError::NotFound(text)) if text.contains(id.as_str())),
            "{refusal:?}"
        );
    }
    let mut client = MachinesClient::new(raw(&world).await);
    let request = wire::StatsRequest { machine_ids: vec!["../x".into()], interval_us: None };
    assert_eq!(client.stats(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

async fn first(mut stats: StatsStream) -> Vec<crate::machines::MachineStats> {
    timeout(SOON, stats.next()).await.unwrap().unwrap().unwrap().1
}

#[tokio::test]
async fn numbers_come_once_or_each_interval_until_the_named_have_ended() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let client = world.client().await;
    let (one, other) = (world.machine(&client).await.id, world.machine(&client).await.id);
    let exec = client.exec(&one, program().into(), PLAIN).await.unwrap();
    while client.list(false).await.unwrap()[0].execs == 0 {}
    let mut once = client.stats(&[], None).await.unwrap();
    let (at, stats) = once.next().await.unwrap().unwrap();
    assert!(at.elapsed().unwrap() < SOON);
    assert_eq!((&stats[0].id, stats[0].execs, &stats[1].id, stats[1].execs), (&one, 1, &other, 0));
    let load = stats[0].load.as_ref().unwrap();
    assert_eq!((load.memory_bytes, load.pids, load.cpu), (Some(64 << 20), Some(3), None));
    assert_eq!(once.next().await, Ok(None));
    drop(exec);
    for wrong in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(3601)] {
        assert!(matches!(client.stats(&[], Some(wrong)).await, Err(ApiError::BadInput(_))), "{wrong:?}");
    }
    let interval = Some(Duration::from_millis(100));
    let mut named = client.stats(std::slice::from_ref(&one), interval).await.unwrap();
    let mut all = client.stats(&[], interval).await.unwrap();
    for _ in 0..3 {
        assert_eq!(timeout(SOON, named.next()).await.unwrap().unwrap().unwrap().1.len(), 1);
        assert_eq!(timeout(SOON, all.next()).await.unwrap().unwrap().unwrap().1.len(), 2);
    }
    client.destroy(&one, DestroyMode::Kill).await.unwrap();
    let mut last = None;
    while let Some((_, stats)) = timeout(SOON, named.next()).await.unwrap().unwrap() {
        last = Some(stats[0].state);
    }
    assert_eq!(last, Some(State::Ended));
    while timeout(SOON, all.next()).await.unwrap().unwrap().unwrap().1.len() == 2 {}
    world.shutdown.cancel();
    while timeout(SOON, all.next()).await.unwrap().unwrap().is_some() {}
}

#[tokio::test]
async fn what_happens_is_told_in_order_and_from_any_number_on() {
    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::exits(3)]);
    let client = world.client().await;
    let mut following = client.events(true, None).await.unwrap();
    let machine = world.machine(&client).await;
    heard(client.exec(&machine.id, named("mine"), PLAIN).await.unwrap()).await;
    client.destroy(&machine.id, DestroyMode::Kill).await.unwrap();
    let expected = [
        "created of tiny",
        "ready",
        "exec mine",
        "exec mine: exited with code 3",
        "ending",
        "ended: cancelled",
    ];
    let mut before = SystemTime::UNIX_EPOCH;
    for (index, expected) in expected.iter().enumerate() {
        let followed = timeout(SOON, following.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(word(&followed), *expected);
        let Followed::Event(event) = followed else { panic!("missed") };
        assert_eq!((event.sequence, &event.machine), (index as u64 + 1, &machine.id));
        assert_eq!((event.workflow_id.as_str(), event.creator_uid), ("w", machine.creator_uid));
        assert!(event.at >= before);
        before = event.at;
    }
    assert_eq!(words(client.events(false, None).await.unwrap()).await, expected);
    assert_eq!(words(client.events(false, Some(4)).await.unwrap()).await, expected[4..]);
    assert_eq!(words(client.events(false, Some(6)).await.unwrap()).await, Vec::<String>::new());
    let unknown = client.events(true, Some(7)).await;
    assert!(
        matches!(&unknown, Err(ApiError::BadInput(text)) if text.contains("the last one is 6")),
        "{unknown:?}"
    );
    world.shutdown.cancel();
    assert_eq!(timeout(SOON, following.next()).await.unwrap(), Ok(None), "it ends with the server");
}

#[tokio::test]
async fn a_setup_that_fails_and_an_exec_that_is_left_are_told_too() {
    let bad = World::new(ScriptedSetup::Fails(SetupFailure::BadInput("unknown image `x`".into())), []);
    let client = bad.client().await;
    let mut creating = client.create(new_machine(DETACHED), None).await.unwrap();
    while creating.next().await.is_ok() {}
    let told = words(client.events(false, None).await.unwrap()).await;
    assert_eq!(told, ["created of tiny", "setup failed: unknown image `x`"]);

    let world = World::new(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let client = world.client().await;
    let mut following = client.events(true, None).await.unwrap();
    let id = world.machine(&client).await.id;
    let exec = client.exec(&id, named("left"), PLAIN).await.unwrap();
    for expected in ["created of tiny", "ready", "exec left"] {
        assert_eq!(word(&following.next().await.unwrap().unwrap()), expected);
    }
    drop(exec);
    let ended = timeout(SOON, following.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(word(&ended), "exec left: cancelled");
}

#[tokio::test]
async fn a_follower_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let mut slow = client.events(true, Some(0)).await.unwrap();
    let machines = world.machines.clone();
    // Far more than the windows of HTTP/2 hold, and than are kept.
    for _ in 0..2 * EVENTS_KEPT {
        let id = world.machine(&client).await.id;
        machines.destroy(&id, DestroyMode::Kill).await.unwrap();
    }
    let mut expected = 1;
    let mut missed = 0;
    while expected <= 8 * EVENTS_KEPT as u64 {
        match timeout(SOON, slow.next()).await.unwrap().unwrap().unwrap() {
            Followed::Missed(count) => {
                missed += count;
                expected += count;
            }
            Followed::Event(event) => {
                assert_eq!(event.sequence, expected);
                expected += 1;
            }
        }
    }
    assert!(missed > 0);
    let late = words(client.events(false, Some(0)).await.unwrap()).await;
    assert_eq!((late.len(), late[0].as_str()), (EVENTS_KEPT + 1, "missed 7168"));
}

#[tokio::test]
async fn a_console_is_read_as_it_is_and_followed_to_the_machines_end() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    world.console.write(b"boot \xff\0");
    let mut now = client.console(&id, false).await.unwrap();
    let boot = ConsoleChunk { offset: 0, bytes: (&b"boot \xff\0"[..]).into() };
    assert_eq!((now.next().await, now.next().await), (Ok(Some(boot.clone())), Ok(None)));
    let mut following = client.console(&id, true).await.unwrap();
    assert_eq!(following.next().await, Ok(Some(boot)));
    world.console.write(b"more");
    let more = ConsoleChunk { offset: 7, bytes: (&b"more"[..]).into() };
    assert_eq!(timeout(SOON, following.next()).await.unwrap(), Ok(Some(more)));
    world.death.strike(Outcome::TimedOut);
    assert_eq!(timeout(SOON, following.next()).await.unwrap(), Ok(None));
    let mut ended = client.console(&id, true).await.unwrap();
    assert_eq!(ended.next().await, Ok(None), "nothing of this one is remembered");
}

#[tokio::test]
async fn following_a_console_waits_for_the_machine() {
    let world = World::new(ScriptedSetup::Hangs, []);
    let client = world.client().await;
    let mut creating = client.create(new_machine(DETACHED), None).await.unwrap();
    let Ok(Some(Progress::Accepted(id))) = creating.next().await else { panic!("not accepted") };
    let mut following = client.console(&id, true).await.unwrap();
    assert!(timeout(Duration::from_millis(50), following.next()).await.is_err(), "it is still set up");
    client.destroy(&id, DestroyMode::Kill).await.unwrap();
    assert_eq!(timeout(SOON, following.next()).await.unwrap(), Ok(None));
}

#[tokio::test]
async fn a_console_that_floods_is_cut_into_messages() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    let id = world.machine(&client).await.id;
    world.console.write(&vec![b'x'; 150_000]);
    let mut now = client.console(&id, false).await.unwrap();
    let mut sizes = Vec::new();
    while let Some(chunk) = now.next().await.unwrap() {
        sizes.push((chunk.offset, chunk.bytes.len()));
    }
    assert_eq!(sizes, [(0, 65_536), (65_536, 65_536), (131_072, 18_928)]);
}

#[tokio::test]
async fn the_host_says_what_it_is_and_which_images_it_has() {
    let world = World::new(ScriptedSetup::Ready, []);
    let client = world.client().await;
    world.machine(&client).await;
    let host = client.host().await.unwrap();
    assert_eq!(
        (host.version.as_str(), host.machines, host.max_machines),
        (env!("CARGO_PKG_VERSION"), 1, Some(4))
    );
    assert_eq!((host.accel, host.problem, host.slots), (None, None, 2));
    assert!(host.started_at.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!(client.list_images().await, Ok(Vec::new()));
    let broken = world.directory.path().join("images/broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("spec.json"), "{").unwrap();
    let listed = client.list_images().await.unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "broken"));
    assert!(listed[0].problem.as_ref().is_some_and(|problem| problem.contains("spec.json")), "{listed:?}");
}
