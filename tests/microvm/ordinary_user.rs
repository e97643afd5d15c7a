//! Neither root nor a group nor a configuration is needed: a user with a home runs workflows.

use std::fs;

use crate::harness::{OrdinaryUser, Repository, Run, Sandbox, World};

const STEPS: &str = r#"
engine: microvm
image: tiny
when:
  - event: manual
environment:
  WHO: workflow
steps:
  - name: say
    environment:
      WHO: step
    command: |
      echo "who=$WHO"
      cat committed
      echo "ünï" >&2
  - name: the verdict
    command: exit "$(cat verdict)"
  - name: the last one
    command: echo "the last step ran"
"#;

#[test]
fn an_ordinary_user_builds_an_image_and_runs_a_workflow_and_leaves_nothing() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let Some(user) = OrdinaryUser::create(&sandbox) else { return };
    let repository = Repository::create(sandbox.home().join("project"));
    repository.write("committed", "as committed\n");
    repository.write(".tangled/workflows/ci.yml", STEPS);
    repository.write("verdict", "0\n");
    repository.commit();
    user.own(&repository.path);

    let built = Run::start(user.creel(&repository.path, ["image", "build", "tiny"])).finish();
    built.expect_code(0);

    let ended = Run::start(user.creel(&repository.path, ["run", "ci"])).finish();
    ended.expect_code(0);
    assert_eq!(
        ended.text().lines().filter(|line| *line != "ünï").collect::<Vec<_>>(),
        ["who=step", "as committed", "the last step ran"],
        "{}",
        ended.said()
    );
    user.expect_nothing_left();

    fs::write(repository.path.join("verdict"), "3\n").expect("a change of the work tree");
    let ended = Run::start(user.creel(&repository.path, ["run", "ci", "--dirty"])).finish();
    ended.expect_code(1).expect_stderr("step `the verdict`: exited with code 3");
    assert!(!ended.text().contains("the last step ran"), "{}", ended.said());
    user.expect_nothing_left();
}
