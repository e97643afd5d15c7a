use proptest::prelude::*;

use super::*;
use crate::engine::{Action, GitRef, ImageFacts, Manifest, PlanInput, SourceKind, plan};

/// The environment of the one user step of a file, where each argument sets variables in one of the sources.
fn of_step(workflow: &str, secrets: &[(&str, &str)], step: &str) -> Environment {
    let text = format!(
        "engine: microvm\nwhen: [{{event: manual}}]\nclone: {{skip: true}}\nenvironment: {{{workflow}}}\n\
         steps: [{{command: x, environment: {{{step}}}}}]\n"
    );
    let manifest = Manifest::parse("test.yml", &text).unwrap_or_else(|errors| panic!("{}", errors.render()));
    let inputs = vec![("greeting".to_owned(), "hello".to_owned())];
    let input = PlanInput {
        workflow_name: "test".to_owned(),
        trigger: Trigger {
            kind: TriggerKind::Manual { git_ref: Some(GitRef::Branch("main".to_owned())), inputs },
            changed_paths: None,
        },
        facts: RunFacts::default(),
        image: Some(ImageFacts { name: "i".to_owned(), shell: "/bin/sh".to_owned(), base_config_hash: None }),
        source: SourceKind::Disk { commit: None, dirty: true },
    };
    let secrets: Vec<_> =
        secrets.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
    let mut plan = plan(&manifest, &input).expect("a plan");
    match plan.steps.remove(0).action {
        Action::Exec(exec) => exec.environment_with(&secrets),
        other => panic!("clone is skipped: {other:?}"),
    }
}

#[test]
fn later_sources_win() {
    let env =
        of_step("A: file, B: file, C: file, PATH: /file", &[("B", "secret"), ("C", "secret")], "C: step");
    assert_eq!(env.get("A"), Some("file"));
    assert_eq!(env.get("B"), Some("secret"));
    assert_eq!(env.get("C"), Some("step"));
    assert_eq!(env.get("PATH"), Some("/file"));
    assert_eq!(env.get("HOME"), Some("/workspace"));
    assert_eq!(env.get("USER"), Some("spindle-workflow"));
    assert_eq!(env.get("LOGNAME"), Some("spindle-workflow"));
}

#[test]
fn a_file_cannot_lie_about_where_it_runs_but_a_step_can() {
    let env = of_step("CI: no, TANGLED_REF_NAME: lie", &[], "");
    assert_eq!((env.get("CI"), env.get("TANGLED_REF_NAME")), (Some("true"), Some("main")));
    let env = of_step("", &[], "CI: no");
    assert_eq!(env.get("CI"), Some("no"));
}

#[test]
fn inputs_of_a_manual_run_are_variables() {
    let env = of_step("", &[], "");
    assert_eq!(env.get("TANGLED_INPUT_GREETING"), Some("hello"));
    assert_eq!(env.get("TANGLED_PIPELINE_KIND"), Some("manual"));
    assert_eq!(env.get("TANGLED_SHA"), None);
}

#[test]
fn values_keep_their_source_text() {
    let written =
        "A: 1, B: true, C: 1.10, D: 0x10, E: 1e3, F: ~, G: '', H: null, I: yes, J: 2024-01-01, K: 007";
    let env = of_step(written, &[], "");
    let seen: Vec<_> =
        "ABCDEFGHIJK".chars().map(|name| env.get(&name.to_string()).expect("a value")).collect();
    assert_eq!(seen, ["1", "true", "1.10", "0x10", "1e3", "", "", "", "yes", "2024-01-01", "007"]);
}

proptest! {
    #[test]
    fn each_name_is_there_once_with_its_last_value(sets in prop::collection::vec(("[A-D]", "[a-z]{0,3}"), 0..30)) {
        let mut env = Environment::default();
        let mut last = HashMap::new();
        for (name, value) in &sets {
            env.set(name, value);
            last.insert(name.clone(), value.clone());
        }
        prop_assert_eq!(env.variables().len(), last.len());
        for (name, value) in env.variables() {
            prop_assert_eq!(Some(value), last.get(name));
            prop_assert_eq!(env.get(name), Some(value.as_str()));
        }
    }
}
