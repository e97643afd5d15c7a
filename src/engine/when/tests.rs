use super::*;

fn reasons(when: &str, trigger: &Trigger) -> Vec<String> {
    let text = format!("engine: microvm\nsteps: [{{command: x}}]\nwhen: {when}\n");
    let manifest = Manifest::parse("test.yml", &text).unwrap_or_else(|errors| panic!("{}", errors.render()));
    match manifest.matches(trigger) {
        Match::Yes => Vec::new(),
        Match::No { reasons } => {
            assert!(!reasons.is_empty());
            reasons
        }
    }
}

fn matches(when: &str, trigger: &Trigger) -> bool {
    reasons(when, trigger).is_empty()
}

fn branch(name: &str) -> Trigger {
    Trigger::push(GitRef::Branch(name.to_owned()))
}

fn tag(name: &str) -> Trigger {
    Trigger::push(GitRef::Tag(name.to_owned()))
}

fn changed(mut trigger: Trigger, paths: &[&str]) -> Trigger {
    trigger.changed_paths = Some(paths.iter().map(|path| (*path).to_owned()).collect());
    trigger
}

#[test]
fn any_condition_is_enough() {
    let when = "[{event: push, branch: main}, {event: push, tag: 'v*'}]";
    assert!(matches(when, &branch("main")));
    assert!(matches(when, &tag("v1")));
    assert!(!matches(when, &branch("v1")));
    assert_eq!(reasons(when, &branch("next")).len(), 2);
}

#[test]
fn a_branch_pattern_is_not_about_tags() {
    assert!(!matches("[{event: push, branch: '**'}]", &tag("v1")));
    assert!(!matches("[{event: push, tag: '**'}]", &branch("main")));
    assert!(matches("[{event: push, tag: '**', branch: main}]", &tag("v1")));
}

#[test]
fn a_manual_run_asks_for_the_event_alone() {
    let when = "[{event: [push, manual], branch: main, paths: ['src/**']}]";
    assert!(matches(when, &changed(Trigger::manual(), &["docs/a"])));
    assert_eq!(
        reasons("[{event: push, branch: main}]", &Trigger::manual()),
        ["when[0]: runs on push, not on manual"]
    );
}

#[test]
fn a_pull_request_is_matched_by_its_target() {
    let when = "[{event: pull_request, branch: [main, 'release/*']}]";
    assert!(matches(when, &Trigger::pull_request("release/1")));
    assert!(!matches(when, &Trigger::pull_request("fix")));
    // Upstream needs a branch here, as its documents say; a file without one is told so.
    assert_eq!(
        reasons("[{event: pull_request}]", &Trigger::pull_request("main")),
        ["when[0]: names no `branch`, so branch `main` does not match"]
    );
}

#[test]
fn a_pull_requests_end_is_opt_in() {
    let merged = Trigger {
        kind: TriggerKind::PullRequest {
            source_branch: None,
            target_branch: "main".to_owned(),
            action: Some(PullRequestAction::Merged),
        },
        changed_paths: None,
    };
    assert!(!matches("[{event: pull_request, branch: main}]", &merged));
    assert!(matches("[{event: pull_request, branch: main, types: [closed, merged]}]", &merged));
    assert!(!matches("[{event: pull_request, branch: main, types: closed}]", &Trigger::pull_request("main")));
}

#[test]
fn paths_count_when_they_are_known() {
    let when = "[{event: push, branch: main, paths: ['blog/**', Cargo.toml]}]";
    assert!(matches(when, &branch("main")));
    assert!(matches(when, &changed(branch("main"), &["x", "Cargo.toml"])));
    assert!(!matches(when, &changed(branch("main"), &["a/Cargo.toml"])));
    assert!(!matches(when, &changed(branch("main"), &[])));
}

#[test]
fn refs_are_read_and_written_in_full() {
    for (text, git_ref, full) in [
        ("refs/tags/v1/x", GitRef::Tag("v1/x".to_owned()), "refs/tags/v1/x"),
        ("refs/heads/a/b", GitRef::Branch("a/b".to_owned()), "refs/heads/a/b"),
        ("main", GitRef::Branch("main".to_owned()), "refs/heads/main"),
    ] {
        assert_eq!(GitRef::parse(text), git_ref);
        assert_eq!(git_ref.full(), full);
    }
}
