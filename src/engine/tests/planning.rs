//! What a plan contains, and when there is none.

use super::{SHA, input, microvm, nixos, parse, remote};
use crate::engine::{
    Action, EngineKind, GitRef, PlanError, PlanInput, PullRequestAction, Secret, SourceKind, StepKind,
    Trigger, TriggerKind, check_secrets, plan,
};

fn script(input: &PlanInput, more: &str) -> String {
    let plan = plan(&microvm(more), input).expect("a plan");
    match &plan.steps[0].action {
        Action::Exec(exec) => exec.argv[2].clone(),
        other => panic!("the source is remote: {other:?}"),
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
    assert_eq!((exec.cwd.as_str(), exec.user.as_deref()), ("/workspace/repo", Some("spindle-workflow")));
}

#[test]
fn a_remote_source_is_fetched_by_upstreams_commands() {
    let script = script(&remote(), "clone: {depth: 100, submodules: yes, tags: true}");
    assert!(
        script.ends_with(&format!(
            "; fi; git init\ngit remote add origin https://knot.example.org/did:plc:repo\n\
             git fetch --depth=100 --recurse-submodules=yes --tags origin {SHA}\ngit checkout FETCH_HEAD"
        )),
        "{script}"
    );
}

#[test]
fn a_manual_run_without_a_commit_fetches_the_default_branch() {
    let mut input = PlanInput {
        source: SourceKind::Remote { verify_tls: false },
        trigger: Trigger::manual(),
        ..remote()
    };
    input.facts.sha = None;
    let script = script(&input, "clone: {depth: 0}");
    assert!(script.contains("\ngit -c http.sslVerify=false fetch --depth=1 origin\n"), "{script}");
}

#[test]
fn metadata_that_could_be_shell_never_reaches_a_shell() {
    let mut hostile_sha = remote();
    hostile_sha.facts.sha = Some("main; rm -rf /".to_owned());
    let mut hostile_knot = remote();
    hostile_knot.facts.repository.knot = Some("x $(id)".to_owned());
    let mut option = remote();
    option.facts.repository.url = Some("--upload-pack=id".to_owned());
    let mut unknown = remote();
    unknown.facts.repository.knot = None;
    let mut no_commit = remote();
    no_commit.facts.sha = None;
    let no_commit_of_a_request = PlanInput { trigger: Trigger::pull_request("main"), ..no_commit.clone() };
    for input in [hostile_sha, hostile_knot, option, unknown, no_commit, no_commit_of_a_request] {
        let script = script(&input, "");
        assert!(script.contains("; fi; echo 'Failed to get clone info: "), "{script}");
        assert!(script.ends_with("' && exit 1"), "{script}");
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
    insta::assert_snapshot!(error, @"test.yml:4:1: microVM image `tiny` is not a NixOS image: services, virtualisation, dependencies and registry workflow options require a NixOS image (used here: `services`)");
}

#[test]
fn nixos_options_on_a_nixos_image_are_planned_and_not_yet_runnable() {
    let input = PlanInput { image: Some(nixos()), ..remote() };
    let text = "dependencies: [go]\nvirtualisation: {docker: true}\nservices: {redis: {port: 1, bind: null}}\nregistry: {}";
    let plan = plan(&microvm(text), &input).expect("a plan");
    let names: Vec<_> = plan.steps.iter().map(|step| (step.kind, step.name.as_str())).collect();
    let system = |name| (StepKind::System, name);
    assert_eq!(
        names,
        [
            system("Clone repository into workspace"),
            system("NixOS config activation"),
            (StepKind::User, "one")
        ]
    );
    let activation = &plan.steps[1];
    assert_eq!((activation.index, activation.command.as_str()), (1, "activate nixos config"));
    let Action::ActivateConfig { user_config } = &activation.action else { panic!("{activation:?}") };
    insta::assert_snapshot!(user_config, @r#"{"services":{"redis":{"bind":null,"port":1}},"virtualisation":{"docker":true},"dependencies":["go"]}"#);
    let error = plan.runnable().expect_err("not yet");
    insta::assert_snapshot!(error, @"test.yml:4:1: NixOS configuration is not supported yet: `services`, `virtualisation`, `dependencies`; what the steps need has to be in the image");
}

#[test]
fn without_a_clone_step_the_activation_is_the_first() {
    let input = PlanInput { image: Some(nixos()), ..remote() };
    let plan = plan(&microvm("clone: {skip: true}\ndependencies: [go]"), &input).expect("a plan");
    assert_eq!(plan.steps[0].name, "NixOS config activation");
    assert_eq!(plan.steps.iter().map(|step| step.index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn empty_nixos_options_ask_for_nothing() {
    let manifest = microvm("services: {}\ndependencies: []\nvirtualisation:\nregistry: {}");
    assert!(manifest.nixos_options().is_empty());
    let plan = plan(&manifest, &input()).expect("a plan");
    assert_eq!((plan.steps.len(), plan.runnable()), (2, Ok(())));
}

#[test]
fn other_engines_say_which_runtime_they_lack() {
    let lacking = |engine: &str, more: &str| {
        let text = format!("when: [{{event: manual}}]\nsteps: [{{command: make}}]\n{more}engine: {engine}\n");
        let plan = plan(&parse(&text), &PlanInput { image: None, ..input() }).expect("a plan");
        plan.runnable().expect_err("no runtime").to_string()
    };
    let said = [
        lacking("docker", "image: node:20\n"),
        lacking("kubernetes", "image: node:20\n"),
        lacking("nixery", ""),
    ];
    insta::assert_snapshot!(said.join("\n"), @r"
    test.yml:4:9: engine `docker` needs a container runtime (docker or podman), which creel can't use yet; engine `microvm` runs today
    test.yml:4:9: engine `kubernetes` needs a Kubernetes cluster, which creel can't use yet; engine `microvm` runs today
    test.yml:3:9: engine `nixery` needs a container runtime (docker or podman) and a Nixery server, which creel can't use yet; engine `microvm` runs today
    ");
}

#[test]
fn an_image_is_needed() {
    let error = plan(&microvm(""), &PlanInput { image: None, ..input() }).expect_err("no image");
    assert_eq!(error, PlanError::NoImage { file: "test.yml".to_owned(), engine: EngineKind::Microvm });
}

#[test]
fn secrets_and_inputs_that_no_environment_can_hold_are_refused() {
    let long = "x".repeat(1 << 17);
    for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y"), ("A", long.as_str())] {
        let error = check_secrets(&[(name.to_owned(), Secret::new(value))]).expect_err("a bad secret");
        assert!(matches!(error, PlanError::Secret { .. }), "{error}");
    }
    let kind = TriggerKind::Manual { git_ref: None, inputs: vec![("a=b".to_owned(), "c".to_owned())] };
    let bad = PlanInput { trigger: Trigger { kind, changed_paths: None }, ..input() };
    assert!(matches!(plan(&microvm(""), &bad), Err(PlanError::Input { .. })));
}

#[test]
fn secrets_come_to_a_plan_from_outside() {
    let plan = plan(&microvm(""), &input()).expect("a plan");
    let Action::Exec(exec) = &plan.steps[1].action else { panic!("a command") };
    assert_eq!(exec.environment_with(&super::secrets()).get("TOKEN"), Some("hunter2"));
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
