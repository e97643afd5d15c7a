//! What upstream makes of a workflow, fact by fact. The table of docs/workflows.md, "Compared with upstream", names for
//! each fact the test that shows it: here, or beside the code.

use super::{input, microvm, parse, remote, secrets};
use crate::engine::{
    Action, ExecPlan, GitRef, Match, Plan, PlanInput, PullRequestAction, StepKind, Trigger, TriggerKind, plan,
};

const TABLE: &str = include_str!("../../../docs/workflows.md");

/// Where the tests are that the table names.
const TESTS: &[&str] = &[
    include_str!("upstream.rs"),
    include_str!("planning.rs"),
    include_str!("malformed.rs"),
    include_str!("files.rs"),
    include_str!("../environment/tests.rs"),
    include_str!("../when/tests.rs"),
    include_str!("../pattern/tests.rs"),
    include_str!("../workflow_id.rs"),
    include_str!("../yaml/tests.rs"),
    include_str!("../../runtime/exec.rs"),
];

fn planned(input: &PlanInput, more: &str) -> Plan {
    plan(&microvm(more), input).expect("a plan")
}

fn exec(plan: &Plan, index: usize) -> &ExecPlan {
    match &plan.steps[index].action {
        Action::Exec(exec) => exec,
        other => panic!("no command: {other:?}"),
    }
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.name.as_str()).collect()
}

#[test]
fn the_table_of_the_docs_names_tests_that_there_are() {
    let (_, table) = TABLE.split_once("## Compared with upstream").expect("the table");
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().expect("a last cell");
        for test in cell.split(", ") {
            let test = test.trim_matches('`');
            let head = format!("fn {test}(");
            assert!(TESTS.iter().any(|source| source.contains(&head)), "there is no test {test}: {row}");
        }
    }
}

#[test]
fn system_steps_have_upstreams_names_and_come_first() {
    assert_eq!(names(&planned(&remote(), "")), ["Clone repository into workspace", "one"]);
    let mut without_url = remote();
    without_url.facts.repository.knot = None;
    assert_eq!(names(&planned(&without_url, "")), ["Clone repository into workspace (error)", "one"]);
    assert_eq!(names(&planned(&remote(), "clone: {skip: true}")), ["one"]);
}

#[test]
fn the_clone_step_runs_like_any_other() {
    let plan = planned(&remote(), "");
    let (clone, user) = (exec(&plan, 0), exec(&plan, 1));
    assert_eq!(plan.steps[0].kind, StepKind::System);
    assert_eq!((&clone.cwd, &clone.user, &clone.environment), (&user.cwd, &user.user, &user.environment));
    assert!(clone.argv[2].ends_with(&plan.steps[0].command));
}

#[test]
fn the_environment_comes_in_upstreams_order() {
    let plan = planned(&remote(), "environment: {LEVEL: 1.10, USER: me}\n");
    let entries = exec(&plan, 1).environment_with(&secrets()).to_entries();
    insta::assert_snapshot!(entries.join("\n"), @"
    HOME=/workspace
    LOGNAME=spindle-workflow
    PATH=/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    USER=me
    LEVEL=1.10
    CI=true
    TANGLED_PIPELINE_ID=at://did:web:knot.example.org/sh.tangled.pipeline/3kx5
    TANGLED_PIPELINE_KIND=push
    TANGLED_REPO_KNOT=knot.example.org
    TANGLED_REPO_DID=did:plc:owner
    TANGLED_REPO_REPO_DID=did:plc:repo
    TANGLED_REPO_NAME=core
    TANGLED_REPO_DEFAULT_BRANCH=main
    TANGLED_REPO_URL=https://knot.example.org/did:plc:repo
    TANGLED_REF=refs/heads/main
    TANGLED_REF_NAME=main
    TANGLED_REF_TYPE=branch
    TANGLED_SHA=0123456789abcdef0123456789abcdef01234567
    TANGLED_COMMIT_SHA=0123456789abcdef0123456789abcdef01234567
    TOKEN=hunter2
    ");
}

/// What differs from a push.
fn predefined(kind: TriggerKind) -> String {
    let input = PlanInput { trigger: Trigger { kind, changed_paths: None }, ..remote() };
    let pushed = planned(&remote(), "").environment.to_entries();
    let plan = planned(&input, "");
    let entries = plan.environment.to_entries();
    entries.into_iter().filter(|entry| !pushed.contains(entry)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_pull_request_has_upstreams_variables() {
    let kind = TriggerKind::PullRequest {
        source_branch: Some("fix".to_owned()),
        target_branch: "main".to_owned(),
        action: Some(PullRequestAction::Reopened),
    };
    insta::assert_snapshot!(predefined(kind), @"
    TANGLED_PIPELINE_KIND=pull_request
    TANGLED_REF=refs/heads/fix
    TANGLED_REF_NAME=fix
    TANGLED_PR_SOURCE_BRANCH=fix
    TANGLED_PR_TARGET_BRANCH=main
    TANGLED_PR_SOURCE_SHA=0123456789abcdef0123456789abcdef01234567
    TANGLED_PR_ACTION=reopened
    ");
}

#[test]
fn a_manual_run_has_upstreams_variables() {
    let kind = TriggerKind::Manual {
        git_ref: Some(GitRef::Tag("v1".to_owned())),
        inputs: vec![("level".to_owned(), "high".to_owned())],
    };
    insta::assert_snapshot!(predefined(kind), @"
    TANGLED_PIPELINE_KIND=manual
    TANGLED_REF=refs/tags/v1
    TANGLED_REF_NAME=v1
    TANGLED_REF_TYPE=tag
    TANGLED_INPUT_LEVEL=high
    ");
}

#[test]
fn a_fact_that_is_not_known_leaves_its_variable_unset() {
    let mut unknown = remote();
    unknown.facts = crate::engine::RunFacts::default();
    let plan = planned(&unknown, "");
    for name in ["TANGLED_PIPELINE_ID", "TANGLED_REPO_URL", "TANGLED_REPO_DEFAULT_BRANCH", "TANGLED_SHA"] {
        assert_eq!(plan.environment.get(name), None, "{name}");
    }
}

#[test]
fn a_knot_is_reached_by_the_scheme_it_says() {
    for (knot, url) in [
        ("Knot.Example.org", "https://knot.example.org/did:plc:repo"),
        ("localhost:5555", "http://localhost:5555/did:plc:repo"),
        ("http://knot.example.org", "http://knot.example.org/did:plc:repo"),
        ("ws://localhost:5555/", "http://localhost:5555/did:plc:repo"),
        ("wss://knot.example.org", "https://knot.example.org/did:plc:repo"),
    ] {
        let mut input = remote();
        input.facts.repository.knot = Some(knot.to_owned());
        let plan = planned(&input, "");
        assert!(plan.steps[0].command.contains(&format!("\ngit remote add origin {url}\n")), "{knot}");
        assert_eq!(plan.environment.get("TANGLED_REPO_URL"), Some(url));
        assert_eq!(plan.environment.get("TANGLED_REPO_KNOT"), Some(knot));
    }
    let mut input = remote();
    input.facts.repository.knot = Some("ftp://knot.example.org".to_owned());
    assert!(planned(&input, "").steps[0].name.ends_with("(error)"));
}

#[test]
fn clone_options_have_the_documented_defaults() {
    let fetch = |more: &str| planned(&remote(), more).steps[0].command.clone();
    for same in [
        "",
        "clone: {}",
        "clone: {depth: 0}",
        "clone: {skip: false, depth: 1, submodules: false, tags: false}",
    ] {
        assert!(fetch(same).contains("\ngit fetch --depth=1 origin 0123"), "{same}");
    }
    assert!(fetch("clone: {submodules: true}").contains("--depth=1 --recurse-submodules=yes origin"));
    assert!(fetch("clone: {tags: true}").contains("--depth=1 --tags origin"));
}

#[test]
fn caches_are_sorted_and_may_have_no_key() {
    let plan =
        planned(&input(), "caches:\n  https://z.example.org: ''\n  http://a.example.org: ' a-1:key '\n");
    let caches: Vec<_> =
        plan.caches.iter().map(|cache| (cache.url.as_str(), cache.public_key.as_deref())).collect();
    assert_eq!(caches, [("http://a.example.org", Some("a-1:key")), ("https://z.example.org", None)]);
}

#[test]
fn a_name_at_the_top_is_harmless() {
    let plan = planned(&input(), "name: something else");
    assert_eq!(plan.name, "test");
}

#[test]
fn containers_get_the_proposals_folders_and_shell() {
    let text = "engine: kubernetes\nimage: golang:1.22\narchitecture: arm64\nwhen: [{event: manual}]\nenvironment: {HOME: \
                /root}\nsteps: [{name: build, command: go build, environment: {PATH: /x}}]\n";
    let plan = plan(&parse(text), &PlanInput { image: None, ..remote() }).expect("a plan");
    assert_eq!(plan.image.as_deref(), Some("golang:1.22"));
    let container = plan.container.clone().expect("a container");
    assert_eq!(container.work_dir, "/tangled/workspace");
    assert_eq!(container.directories, ["/tangled/workspace", "/tangled/home"]);
    assert_eq!((container.architecture.as_deref(), container.batch), (Some("arm64"), true));
    assert_eq!(names(&plan), ["Clone repository into workspace", "build"]);
    let build = exec(&plan, 1);
    assert_eq!(build.argv, ["bash", "-c", "go build"]);
    assert_eq!((build.cwd.as_str(), &build.user), ("/tangled/workspace", &None));
    let environment = build.environment_with(&secrets());
    assert_eq!(environment.get("HOME"), Some("/tangled/home"));
    assert_eq!(environment.get("PATH"), Some("/x"), "an image's PATH is its own and the file's affair");
    assert_eq!(environment.get("USER"), None);
}

#[test]
fn nixery_makes_its_image_and_its_steps_of_the_dependencies() {
    let text = "engine: nixery\narchitecture: aarch64\nwhen: [{event: manual}]\ndependencies:\n  nixpkgs: [go, a/../b]\n  \
                nixpkgs/nixpkgs-unstable: [bun]\n  \"github:x/it's\": []\nsteps: [{name: build, command: make}]\n";
    let plan = plan(&parse(text), &PlanInput { image: None, ..remote() }).expect("a plan");
    assert_eq!(plan.image.as_deref(), Some("nixery.tangled.sh/arm64/go/a/b/bash/git/coreutils/nix"));
    assert_eq!(
        names(&plan),
        ["Configure Nix", "Clone repository into workspace", "Install custom dependencies", "build"]
    );
    assert_eq!(
        exec(&plan, 2).argv[2],
        "nix --extra-experimental-features 'nix-command flakes' profile add 'nixpkgs/nixpkgs-unstable#bun' \
         'github:x/it'\\''s'"
    );
    let environment = exec(&plan, 2).environment_with(&secrets());
    assert_eq!(environment.get("NIX_NO_COLOR"), Some("1"));
    assert!(environment.get("PATH").is_some_and(|path| path.starts_with("/tangled/home/.nix-profile/bin:")));
}

#[test]
fn nixery_without_dependencies_has_an_image_all_the_same() {
    let text = "engine: nixery\nwhen: [{event: manual}]\nclone: {skip: true}\nsteps: [{name: build, command: make}]\n";
    let plan = plan(&parse(text), &PlanInput { image: None, ..remote() }).expect("a plan");
    assert_eq!(plan.image.as_deref(), Some("nixery.tangled.sh/bash/git/coreutils/nix"));
    assert_eq!(names(&plan), ["Configure Nix", "build"]);
}

#[test]
fn whether_a_file_matches_is_no_part_of_its_plan() {
    let manifest = microvm("");
    let Match::No { .. } = manifest.matches(&remote().trigger) else { panic!("it asks for manual runs") };
    assert!(plan(&manifest, &remote()).is_ok());
}
