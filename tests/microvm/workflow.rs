//! The main path: a workflow of a real git repository.

use std::process::Command;

use crate::harness::{Repository, Run, Sandbox, TINY, World, workflow};

/// Five steps after the clone; the last but one ends with the code that the file `verdict` has.
const FIVE_STEPS: &str = r#"
engine: microvm
image: tiny
when:
  - event: manual
environment:
  WHO: workflow
  LEVEL: workflow
  TOKEN: workflow
steps:
  - name: environment
    environment:
      WHO: step
    command: |
      echo "who=$WHO level=$LEVEL ci=$CI kind=$TANGLED_PIPELINE_KIND ref=$TANGLED_REF_NAME sha=$TANGLED_COMMIT_SHA"
      [ "$TOKEN" = "from the secret" ] && echo "the secret is above the file"
      echo "user=$(id -u):$(id -g) in $(pwd)"
  - name: both streams
    command: |
      echo "to stdout"
      echo "to stderr" >&2
  - name: Grüße, 世界
    command: |
      cat docs/greeting.txt
      echo "привет 🦀 $(wc -c < docs/greeting.txt)"
  - name: the verdict
    command: |
      set -e
      echo "before"
      code=$(cat verdict)
      (exit "$code")
      echo "after"
  - name: the last one
    command: echo "the last step ran"
"#;

fn repository(sandbox: &Sandbox, verdict: &str) -> Repository {
    let repository = Repository::create(sandbox.work_dir().join("project"));
    repository.write(".tangled/workflows/five.yml", FIVE_STEPS);
    repository.write("docs/greeting.txt", "Grüße aus dem Repository\n");
    repository.write("verdict", verdict);
    repository.commit();
    repository
}

fn five(sandbox: &Sandbox, repository: &Repository) -> Command {
    let mut command = sandbox.creel(["run", "five", "--env", "LEVEL=command line", "--secret", "TOKEN"]);
    command.env("TOKEN", "from the secret").current_dir(&repository.path);
    command
}

#[test]
fn a_workflow_whose_steps_pass_exits_with_0_and_shows_what_they_said() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = repository(&sandbox, "0\n");
    let sha = repository.git(&["rev-parse", "HEAD"]);

    let ended = Run::start(five(&sandbox, &repository)).finish();
    ended.expect_code(0);
    let text = ended.text();
    for said in [
        // The step's own environment is above all, --env above the file's.
        &format!("who=step level=command line ci=true kind=manual ref=main sha={sha}\n"),
        "the secret is above the file\n",
        "user=970:970 in /workspace/repo\n",
        "to stdout\n",
        "to stderr\n",
        "Grüße aus dem Repository\n",
        "привет 🦀 27\n",
        "before\nafter\n",
        "the last step ran\n",
    ] {
        assert!(text.contains(said), "`{said}` is not on stdout: {}", ended.said());
    }
    // Steps' output is on stdout, all of it; what is about the run is on stderr.
    assert!(!ended.stderr.contains("to stderr"), "{}", ended.said());
    ended.expect_stderr("==> Grüße, 世界").expect_stderr("workflow five: ok");
}

#[test]
fn a_failing_step_exits_with_1_and_is_named_and_later_steps_do_not_run() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = repository(&sandbox, "7\n");

    let ended = Run::start(five(&sandbox, &repository)).finish();
    ended.expect_code(1).expect_stderr("step `the verdict`: exited with code 7");
    // Steps stop at the first command that fails.
    assert!(ended.text().contains("before\n"), "{}", ended.said());
    assert!(!ended.text().contains("after\n"), "{}", ended.said());
    assert!(!ended.text().contains("the last step ran"), "{}", ended.said());
    assert!(!ended.stderr.contains("==> the last one"), "{}", ended.said());
    ended.expect_stderr("1 of 6 steps not run");
}

#[test]
fn steps_see_the_commit_and_with_dirty_the_work_tree() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = Repository::create(sandbox.work_dir().join("project"));
    repository.write(".gitignore", "ignored\n");
    repository.write("committed", "as committed\n");
    let steps = "engine: microvm\nimage: tiny\nwhen:\n  - event: manual\nsteps:\n  - command: |\n      cat committed\n      ls\n";
    repository.write("ci.yml", steps);
    repository.commit();
    repository.write("committed", "as changed\n");
    repository.write("untracked", "");
    repository.write("ignored", "");
    let run = |arguments: &[&str]| {
        let mut command = sandbox.creel(["run", "-f", "ci.yml"]);
        command.args(arguments).current_dir(&repository.path);
        let ended = Run::start(command).finish();
        ended.expect_code(0);
        ended.text()
    };

    assert_eq!(run(&[]), "as committed\nci.yml\ncommitted\n");
    assert_eq!(run(&["--dirty"]), "as changed\nci.yml\ncommitted\nuntracked\n");
    // The run has not touched the work tree.
    assert_eq!(repository.git(&["status", "--short"]), " M committed\n?? untracked");
}

#[test]
fn inputs_of_a_manual_run_are_in_the_environment_of_its_steps() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let steps = [
        ("one", r#"echo "at level $TANGLED_INPUT_LEVEL""#),
        ("other", r#"echo "into $TANGLED_INPUT_TARGET_DIR, ${TANGLED_INPUT_NONE-and no more}""#),
    ];
    let mut command = sandbox.workflow(&workflow(TINY, &steps));
    command.args(["--input", "level=high", "--input", "target_dir=a b=c"]);
    let ended = Run::start(command).finish();
    ended.expect_code(0);
    assert_eq!(ended.text(), "at level high\ninto a b=c, and no more\n", "{}", ended.said());
}

#[test]
fn a_workflow_without_a_clone_needs_no_repository() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let ended = sandbox.start_step(TINY, "echo \"here is $(pwd), with $(ls | wc -l) files\"").finish();
    ended.expect_code(0);
    assert_eq!(ended.text(), "here is /workspace/repo, with 0 files\n");
}
