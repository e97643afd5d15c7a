//! What a plan contains, and when there is none.

use super::{SHA, input, microvm, parse};
use crate::engine::{
    Action, EngineKind, GitRef, ImageFacts, PlanError, PlanInput, PullRequestAction, Secret, SourceKind,
    StepKind, Trigger, TriggerKind, plan,
};

fn nixos() -> Option<ImageFacts> {
    Some(ImageFacts {
        name: "nixos".to_owned(),
        shell: "/bin/bash".to_owned(),
        base_config_hash: Some("x".to_owned()),
    })
}

fn script(input: &PlanInput, more: &str) -> String {
    let plan = plan(&microvm(more), input).expect("a plan");
    match &plan.steps[0].action {
        Action::Exec(exec) => exec.argv[2].clone(),
        Action::UnpackSource { .. } => panic!("the source is remote"),
    }
}

#[test]
fn a_disk_is_unpacked_before_the_first_step() {
    let plan = plan(&microvm(""), &input()).expect("a plan");
    let clone = &plan.steps[0];
    assert_eq!((clone.name.as_str(), clone.kind), ("clone", StepKind::System));
    assert_eq!(clone.action, Action::UnpackSource { destination: "/workspace/repo".to_owned() });
    assert_eq!(clone.command, format!("unpack commit {SHA}"));
    assert_eq!(plan.steps[1].kind, StepKind::User);
}

#[test]
fn a_skipped_clone_leaves_the_users_steps_alone() {
    let plan = plan(&microvm("clone: {skip: true}"), &input()).expect("a plan");
    assert_eq!(plan.steps.len(), 1);
    assert_eq!((plan.steps[0].index, plan.steps[0].kind), (0, StepKind::User));
}

#[test]
fn argv_is_upstreams() {
    let plan = plan(&microvm(""), &input()).expect("a plan");
    let Action::Exec(exec) = &plan.steps[1].action else { panic!("a command") };
    let path = "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:\
                /sbin:/bin";
    let expected = format!(
        "if [ -f /run/spindle/devshell-env.sh ]; then . /run/spindle/devshell-env.sh; export PATH=\"$PATH:{path}\"; fi; make"
    );
    assert_eq!(exec.argv, ["/bin/sh", "-lc", expected.as_str()]);
    assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/workspace/repo", "spindle-workflow"));
}

#[test]
fn a_remote_source_is_fetched_by_upstreams_commands() {
    let remote = PlanInput { source: SourceKind::Remote { verify_tls: true }, ..input() };
    let with_sha =
        PlanInput { facts: crate::engine::RunFacts { sha: Some(SHA.to_owned()), ..input().facts }, ..remote };
    let script = script(&with_sha, "clone: {depth: 100, submodules: yes, tags: true}");
    assert!(
        script.ends_with(&format!(
            "; fi; git init &&\ngit remote add origin https://knot.example.org/did:plc:repo &&\n\
             git fetch --depth=100 --recurse-submodules=yes --tags origin {SHA} &&\ngit checkout FETCH_HEAD"
        )),
        "{script}"
    );
}

#[test]
fn a_manual_run_without_a_commit_fetches_the_default_branch() {
    let input =
        PlanInput { source: SourceKind::Remote { verify_tls: false }, trigger: Trigger::manual(), ..input() };
    let script = script(&input, "clone: {depth: 0}");
    assert!(script.contains("\ngit -c http.sslVerify=false fetch --depth=1 origin &&\n"), "{script}");
}

#[test]
fn metadata_that_could_be_shell_never_reaches_a_shell() {
    let remote = || PlanInput { source: SourceKind::Remote { verify_tls: true }, ..input() };
    let mut hostile_sha = remote();
    hostile_sha.facts.sha = Some("main; rm -rf /".to_owned());
    let mut hostile_knot = remote();
    hostile_knot.facts.repository.knot = Some("x $(id)".to_owned());
    let mut option = remote();
    option.facts.repository.url = Some("--upload-pack=id".to_owned());
    let mut unknown = remote();
    unknown.facts.repository.knot = None;
    for input in [hostile_sha, hostile_knot, option, unknown] {
        let script = script(&input, "");
        assert!(script.contains("; fi; echo 'failed to get clone info: "), "{script}");
        assert!(script.ends_with("; exit 1"), "{script}");
        assert!(
            !script.contains("rm -rf") && !script.contains("$(id)") && !script.contains("upload-pack"),
            "{script}"
        );
    }
}

#[test]
fn nixos_options_on_another_image_are_upstreams_error() {
    let error =
        plan(&microvm("services: {redis: true}\nregistry: {}\nimage: tiny"), &input()).expect_err("no NixOS");
    assert!(!error.is_not_yet());
    insta::assert_snapshot!(error, @"test.yml:4:1: microVM image `tiny` is not a NixOS image: services, virtualisation, dependencies and registry workflow options require a NixOS image (used here: `services`)");
}

#[test]
fn nixos_options_on_a_nixos_image_are_not_yet() {
    let input = PlanInput { image: nixos(), ..input() };
    let error =
        plan(&microvm("dependencies: [go]\nvirtualisation: {docker: true}"), &input).expect_err("not yet");
    assert!(error.is_not_yet());
    insta::assert_snapshot!(error, @"test.yml:4:1: NixOS configuration is not supported yet: `virtualisation`, `dependencies`");
}

#[test]
fn empty_nixos_options_ask_for_nothing() {
    let manifest = microvm("services: {}\ndependencies: []\nvirtualisation:\nregistry: {}");
    assert!(manifest.nixos_options().is_empty());
    assert!(plan(&manifest, &input()).is_ok());
}

#[test]
fn other_engines_are_not_yet() {
    let text = "when: [{event: manual}]\nsteps: [{command: make}]\nimage: node:20\nengine: docker\n";
    let error = plan(&parse(text), &PlanInput { image: None, ..input() }).expect_err("not yet");
    assert!(
        matches!(error, PlanError::EngineNotYet { engine: EngineKind::Docker, .. }) && error.is_not_yet()
    );
    insta::assert_snapshot!(error, @"test.yml:4:9: engine `docker` is not supported yet; it needs a container runtime");
}

#[test]
fn an_image_is_needed() {
    let error = plan(&microvm(""), &PlanInput { image: None, ..input() }).expect_err("no image");
    assert_eq!(error, PlanError::NoImage { file: "test.yml".to_owned() });
}

#[test]
fn secrets_and_inputs_that_no_environment_can_hold_are_refused() {
    let secret = |name: &str, value: &str| PlanInput {
        secrets: vec![(name.to_owned(), Secret::new(value))],
        ..input()
    };
    for bad in [secret("", "x"), secret("A=B", "x"), secret("A", "x\0y"), secret("A", &"x".repeat(1 << 17))] {
        let error = plan(&microvm(""), &bad).expect_err("a bad secret");
        assert!(matches!(error, PlanError::Secret { .. }), "{error}");
    }
    let kind = TriggerKind::Manual { git_ref: None, inputs: vec![("a=b".to_owned(), "c".to_owned())] };
    let bad = PlanInput { trigger: Trigger { kind, changed_paths: None }, ..input() };
    assert!(matches!(plan(&microvm(""), &bad), Err(PlanError::Input { .. })));
}

#[test]
fn debug_output_of_a_plan_has_no_secret() {
    let input = input();
    let plan = plan(&microvm(""), &input).expect("a plan");
    assert!(!format!("{plan:?} {input:?}").contains("hunter2"));
    let Action::Exec(exec) = &plan.steps[1].action else { panic!("a command") };
    assert_eq!(exec.env.get("TOKEN"), Some("hunter2"));
    assert_eq!(plan.environment.get("TOKEN"), None);
}

#[test]
fn a_pull_request_runs_its_source() {
    let kind = TriggerKind::PullRequest {
        source_branch: Some("fix".to_owned()),
        target_branch: "main".to_owned(),
        action: Some(PullRequestAction::Synchronize),
    };
    let input = PlanInput { trigger: Trigger { kind, changed_paths: None }, ..input() };
    let plan = plan(&microvm(""), &input).expect("a plan");
    for (name, value) in [
        ("TANGLED_PIPELINE_KIND", "pull_request"),
        ("TANGLED_REF", "refs/heads/fix"),
        ("TANGLED_SHA", SHA),
        ("TANGLED_PR_SOURCE_BRANCH", "fix"),
        ("TANGLED_PR_TARGET_BRANCH", "main"),
        ("TANGLED_PR_SOURCE_SHA", SHA),
        ("TANGLED_PR_ACTION", "synchronize"),
    ] {
        assert_eq!(plan.environment.get(name), Some(value), "{name}");
    }
}

#[test]
fn a_tag_says_so() {
    let input = PlanInput { trigger: Trigger::push(GitRef::parse("refs/tags/v1.0")), ..input() };
    let plan = plan(&microvm(""), &input).expect("a plan");
    assert_eq!(plan.environment.get("TANGLED_REF"), Some("refs/tags/v1.0"));
    assert_eq!(plan.environment.get("TANGLED_REF_NAME"), Some("v1.0"));
    assert_eq!(plan.environment.get("TANGLED_REF_TYPE"), Some("tag"));
    assert_eq!(plan.environment.get("TANGLED_PR_TARGET_BRANCH"), None);
}
