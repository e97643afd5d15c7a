//! Slots: two of them, and who waits.

use wire::WorkflowState as State;

use super::*;

/// A call that waits; what it is told comes one by one.
async fn waiting(client: &mut Client, id: &str) -> tonic::Streaming<wire::SlotEvent> {
    let request = wire::AcquireSlotRequest { workflow: key(id), no_wait: false };
    client.acquire_slot(request).await.unwrap().into_inner()
}

async fn next(events: &mut tonic::Streaming<wire::SlotEvent>) -> Option<u32> {
    let event = timeout(SOON, events.message()).await.unwrap().unwrap().unwrap();
    match event.event.unwrap() {
        wire::slot_event::Event::Ahead(ahead) => Some(ahead),
        wire::slot_event::Event::Acquired(_) => None,
    }
}

#[tokio::test]
async fn slots_go_round_in_the_order_of_the_queue() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    for id in ["a", "b", "c", "d", "e"] {
        init(&mut client, id).await;
    }
    for id in ["a", "b"] {
        assert_eq!(next(&mut waiting(&mut client, id).await).await, None);
    }
    let (mut c, mut d, mut e) =
        (waiting(&mut client, "c").await, waiting(&mut client, "d").await, waiting(&mut client, "e").await);
    assert_eq!((next(&mut c).await, next(&mut d).await, next(&mut e).await), (Some(0), Some(1), Some(2)));
    assert_eq!(get(&mut client, "d").await.state(), State::Waiting);
    let refused = acquire(&mut client, "d", true).await.1.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let refused = set_up(&mut client, "d").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // One that gives up lets those behind it move up.
    drop(d);
    assert_eq!(next(&mut e).await, Some(1));
    until(&mut client, "d", |workflow| workflow.state() == State::Pending).await;
    destroy(&mut client, "a").await;
    assert_eq!((next(&mut c).await, next(&mut e).await), (None, Some(0)));
    cancel(&mut client, "b").await;
    assert!(get(&mut client, "b").await.has_slot, "until it has ended");
    destroy(&mut client, "b").await;
    assert_eq!(next(&mut e).await, None);
    let counts = world.workflows.slots();
    assert_eq!((counts.held, counts.waiting), (2, 0));
}

#[tokio::test]
async fn two_calls_that_wait_share_a_place() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    for id in ["a", "b", "c"] {
        init(&mut client, id).await;
    }
    set_up(&mut client, "a").await.unwrap();
    set_up(&mut client, "b").await.unwrap();
    let (mut one, mut other) = (waiting(&mut client, "c").await, waiting(&mut client, "c").await);
    assert_eq!((next(&mut one).await, next(&mut other).await), (Some(0), Some(0)));
    drop(one);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(get(&mut client, "c").await.state(), State::Waiting, "somebody waits still");
    drop(other);
    until(&mut client, "c", |workflow| workflow.state() == State::Pending).await;
}

#[tokio::test]
async fn more_slots_let_more_in_and_fewer_take_none_away() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    for id in ["a", "b", "c"] {
        init(&mut client, id).await;
    }
    for id in ["a", "b"] {
        acquire(&mut client, id, true).await.1.unwrap();
    }
    let mut c = waiting(&mut client, "c").await;
    assert_eq!(next(&mut c).await, Some(0));
    world.workflows.reload(crate::api::testing::settings(3));
    assert_eq!(next(&mut c).await, None);
    world.workflows.reload(crate::api::testing::settings(1));
    assert_eq!(world.workflows.slots().held, 3);
}
