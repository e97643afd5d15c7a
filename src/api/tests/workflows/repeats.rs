//! Every call may be repeated, also at once.

use futures_util::future::join_all;
use wire::WorkflowState as State;

use super::*;

const AT_ONCE: usize = 8;

async fn all<T, F: Future<Output = T>>(client: &Client, call: impl Fn(Client) -> F) -> Vec<T> {
    timeout(SOON, join_all((0..AT_ONCE).map(|_| call(client.clone())))).await.unwrap()
}

#[tokio::test]
async fn one_workflow_comes_of_calls_that_are_made_at_once() {
    let slow = ScriptedExec { takes: Duration::from_millis(100), ..ScriptedExec::exits(0) };
    let world = world(ScriptedSetup::Ready, [slow.clone(), slow]);
    let client = client(&world).await;
    let planned = all(&client, async |mut client: Client| init(&mut client, "w").await).await;
    assert!(planned.iter().all(|other| *other == planned[0]), "{planned:?}");
    let acquired = all(&client, async |mut client: Client| acquire(&mut client, "w", false).await).await;
    assert!(acquired.iter().all(|(said, result)| said == &[None] && result.is_ok()), "{acquired:?}");
    let ready = all(&client, async |mut client: Client| set_up(&mut client, "w").await.unwrap()).await;
    assert!(ready.iter().all(|said| said.len() == 3 && said[..2] == ready[0][..2]), "{ready:?}");
    for index in 0..2 {
        let verdicts =
            all(&client, async |mut client: Client| step(&mut client, "w", index).await.unwrap()).await;
        assert_eq!(verdicts, vec![Outcome::Exited { code: 0 }; AT_ONCE]);
    }
    let cancelled = all(&client, async |mut client: Client| cancel(&mut client, "w").await).await;
    assert!(cancelled.iter().all(|workflow| outcome(workflow) == Some(Outcome::Exited { code: 0 })));
    let ended = all(&client, async |mut client: Client| destroy(&mut client, "w").await).await;
    assert!(ended.iter().all(|other| *other == ended[0] && other.state() == State::Ended), "{ended:?}");
    let journal = world.journal.entries();
    assert_eq!(journal.len(), 4, "{journal:?}");
    let mut client = client;
    let again = init(&mut client, "w").await;
    assert_eq!(again, ended[0], "the same request is the same workflow, also after its end");
}

#[tokio::test]
async fn another_request_of_the_same_name_is_refused() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    let first = init(&mut client, "w").await;
    let changed = [
        wire::InitRequest { manifest: FILE.replace("two", "three"), ..request("w") },
        wire::InitRequest { timeout_us: Some(1_000_000), ..request("w") },
        wire::InitRequest { pipeline_id: String::new(), ..request("w") },
    ];
    for request in changed {
        assert_eq!(client.init(request).await.unwrap_err().code(), Code::AlreadyExists);
    }
    let other_tenant = wire::WorkflowTenant { repo_did: String::new(), ..tenant() };
    let other = wire::WorkflowKey { tenant: Some(other_tenant), workflow_id: "w".into() };
    let other = wire::InitRequest { workflow: Some(other), ..request("w") };
    let other = client.init(other).await.unwrap().into_inner().workflow.unwrap();
    assert_ne!(other.machine_id, first.machine_id);
}

#[tokio::test]
async fn one_that_stops_and_one_that_begins_at_once_agree() {
    for _ in 0..20 {
        let world = world(ScriptedSetup::Ready, vec![ScriptedExec::exits(0); 2]);
        let client = client(&world).await;
        let (mut one, mut two, mut three) = (client.clone(), client.clone(), client.clone());
        init(&mut one, "w").await;
        set_up(&mut one, "w").await.unwrap();
        let (stepped, cancelled, ended) =
            tokio::join!(step(&mut one, "w", 0), cancel(&mut two, "w"), destroy(&mut three, "w"));
        assert_eq!(ended.state(), State::Ended);
        assert_ne!(cancelled.state(), State::Running);
        let recorded =
            ended.steps[0].verdict.clone().map(|verdict| Verdict::try_from(verdict).unwrap().outcome);
        match stepped {
            Ok(outcome) => assert_eq!(Some(outcome), recorded),
            Err(status) => assert_eq!((status.code(), recorded), (Code::FailedPrecondition, None)),
        }
    }
}
