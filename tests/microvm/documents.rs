//! What the documentation shows, run as a reader would.

use std::fs;
use std::path::Path;

use crate::harness::{Repository, Run, Sandbox, World};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_example_runs() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = Repository::create(sandbox.work_dir().join("project"));
    repository.write("README.md", page("README.md"));
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let names: Vec<_> = fs::read_dir(examples)
        .expect("examples")
        .map(|entry| entry.expect("an example").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.is_empty());
    for name in &names {
        repository.write(name, page(&format!("examples/{name}")));
    }
    repository.commit();
    for name in &names {
        let mut command = sandbox.creel(["run", "-f", name]);
        command.current_dir(&repository.path);
        Run::start(command).finish().expect_code(0);
    }
}

#[test]
fn the_workflow_of_the_readme_does_what_the_readme_shows() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let readme = page("README.md");
    let workflow = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .find(|block| block.starts_with("# workflow"))
        .expect("a workflow in the README");
    let repository = Repository::create(sandbox.work_dir().join("project"));
    repository.write("ci.yml", workflow);
    repository.write("greeting.txt", "a greeting of the repository\n");
    repository.commit();
    let mut command = sandbox.creel(["run", "-f", "ci.yml"]);
    command.current_dir(&repository.path);
    let ended = Run::start(command).finish();
    ended
        .expect_code(0)
        .expect_stderr("==> clone")
        .expect_stderr("==> test")
        .expect_stderr("workflow ci: ok in");
    let text = ended.text();
    for said in
        ["spindle-workflow, in /workspace/repo", "a greeting of the repository", "a thorough test of commit"]
    {
        assert!(text.contains(said), "{said}: {}", ended.said());
    }
}
