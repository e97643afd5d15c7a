//! What makes no sense, and what there is too much of.

use super::*;
use crate::api::REQUEST_ID;
use crate::api::testing::operators;
use crate::workflows::Bounds;

fn file(manifest: &str) -> wire::InitRequest {
    wire::InitRequest { manifest: manifest.into(), ..request("w") }
}

#[tokio::test]
async fn a_bad_file_is_told_by_place() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    let bad = FILE
        .replace("engine: microvm", "engine: microvm\nenviron: {}")
        .replace("    command: two", "    commnd: two");
    let status = client.init(file(&bad)).await.unwrap_err();
    let problems: wire::ManifestProblems = detail_in(&status, "creel.v1.ManifestProblems").unwrap();
    let mut told = vec![format!("{:?}: {}", status.code(), status.message())];
    told.extend(problems.problems.iter().map(|p| format!("{}:{} {}", p.line, p.column, p.message)));
    insta::assert_snapshot!(told.join("\n"));
    let status = client.init(file(&"é: [\n".repeat(10_000))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(list(&mut client, true).await, [], "nothing is remembered of them");
}

#[tokio::test]
async fn each_way_to_have_no_workflow_has_its_code() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    let image = |name: &str| FILE.replace("engine: microvm", &format!("engine: microvm\nimage: {name}"));
    let broken = world.directory.path().join("images/broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("spec.json"), "{").unwrap();
    let requests = [
        file(""),
        file(&image("nothing")),
        file(&image("broken")),
        file(&FILE.replace("engine: microvm", "engine: docker\nimage: alpine")),
        file(&FILE.replace("steps:", "services:\n  postgresql:\n    enable: true\nsteps:")),
        file(&"#".repeat((256 << 10) + 1)),
        wire::InitRequest { workflow: None, ..request("w") },
        wire::InitRequest { file_name: "a/b.yml".into(), ..request("w") },
        wire::InitRequest { trigger: None, ..request("w") },
        wire::InitRequest { timeout_us: Some(0), ..request("w") },
        wire::InitRequest { manifest: "#".repeat(2 << 20), ..request("w") },
    ];
    let mut told = Vec::new();
    let root = world.directory.path().display().to_string();
    for request in requests {
        let status = client.init(request).await.unwrap_err();
        told.push(format!("{:?}: {}", status.code(), status.message().replace(&root, "<root>")));
    }
    world.workflows.drain();
    let status = client.init(request("w")).await.unwrap_err();
    told.push(format!("{:?}: {}", status.code(), status.message()));
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test]
async fn steps_out_of_order_are_refused() {
    let world = world(ScriptedSetup::Ready, vec![ScriptedExec::exits(0); 2]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    let mut told = Vec::new();
    let mut tell = |status: Status| told.push(format!("{:?}: {}", status.code(), status.message()));
    tell(step(&mut client, "nothing", 0).await.unwrap_err());
    tell(step(&mut client, "w", 0).await.unwrap_err());
    set_up(&mut client, "w").await.unwrap();
    tell(step(&mut client, "w", 1).await.unwrap_err());
    tell(step(&mut client, "w", 2).await.unwrap_err());
    tell(step(&mut client, "w", u32::MAX).await.unwrap_err());
    tell(step_with(&mut client, "w", 0, &[("A=B", "x")]).await.unwrap_err());
    let large = "x".repeat(50 << 10);
    let secrets: Vec<_> = ["A", "B", "C"].iter().map(|name| (*name, large.as_str())).collect();
    tell(step_with(&mut client, "w", 0, &secrets).await.unwrap_err());
    insta::assert_snapshot!(told.join("\n"));
    step_with(&mut client, "w", 0, &secrets[..2]).await.unwrap();
    step_with(&mut client, "w", 1, &secrets[..2]).await.unwrap();
}

#[tokio::test]
async fn one_user_has_few_workflows_and_those_that_end_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds { all: 3, per_uid: 2 };
    let world = World::with(FakeRuntime::new(ScriptedSetup::Ready, []), operators(), directory, bounds);
    world.put_image();
    let mut client = client(&world).await;
    init(&mut client, "a").await;
    init_for(&mut client, "b", Duration::from_millis(200)).await;
    let full = client.init(request("c")).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    init(&mut client, "a").await;
    // Nobody asks for `b` any more: its time ends it.
    world.workflows.living().wait_for(|living| *living == 1).await.unwrap();
    init(&mut client, "c").await;
    destroy(&mut client, "a").await;
    init(&mut client, "d").await;
}

#[tokio::test]
async fn a_record_that_can_not_be_written_is_told_and_leaves_nothing() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    std::fs::write(world.directory.path().join("state"), "a file").unwrap();
    for _ in 0..2 {
        let status = client.init(request("w")).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
    assert_eq!(*world.workflows.living().borrow(), 0);
    std::fs::remove_file(world.directory.path().join("state")).unwrap();
    init(&mut client, "w").await;
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let world = world(ScriptedSetup::Ready, []);
    let mut client = client(&world).await;
    let id = |metadata: &tonic::metadata::MetadataMap| {
        metadata.get(REQUEST_ID).unwrap().to_str().unwrap().to_owned()
    };
    let mut asked = tonic::Request::new(wire::TimeoutRequest {});
    asked.metadata_mut().insert(REQUEST_ID, "pipeline-7".parse().unwrap());
    assert_eq!(id(client.timeout(asked).await.unwrap().metadata()), "pipeline-7");
    let mut insane = tonic::Request::new(wire::TimeoutRequest {});
    insane.metadata_mut().insert(REQUEST_ID, "x".repeat(300).parse().unwrap());
    assert!(id(client.timeout(insane).await.unwrap().metadata()).starts_with("r-"));
    let refused = client.get(wire::GetWorkflowRequest { workflow: key("w") }).await.unwrap_err();
    assert!(id(refused.metadata()).starts_with("r-"), "{refused:?}");
}
