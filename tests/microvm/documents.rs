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
        .filter(|name| name.ends_with(".yml"))
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

/// Commands of the README that need a machine of their own, and what runs them.
const RUN_ELSEWHERE: [(&str, &str); 7] = [
    ("apt-get install --no-install-recommends make", "scripts/setup, which installs the same by apt-get"),
    ("curl --proto", "nothing: rustup's site is not a package registry"),
    (". \"$HOME/.cargo/env\"", "nothing: it belongs to rustup"),
    ("export PATH=", "this test, which has the program on its PATH"),
    ("creel run -f FILE", "this test, with files"),
    ("make deb && apt-get install", "tests/kvm-host: install"),
    ("creel image build tiny && creel create", "tests/kvm-host: install, life"),
];

/// The lines of the README that a reader is to type.
fn commands_of_the_readme() -> Vec<String> {
    let readme = page("README.md");
    let mut commands = Vec::new();
    let mut block = None;
    for line in readme.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(kind)) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (Some("console"), None) => commands.extend(line.strip_prefix("$ ").map(str::to_owned)),
            (Some("sh"), None) if !line.is_empty() => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = Repository::create(sandbox.work_dir().join("project"));
    let workflow = |command: &str| {
        format!(
            "engine: microvm\nimage: tiny\nwhen: [{{event: manual}}]\nsteps: [{{name: test, command: '{command}'}}]\n"
        )
    };
    repository.write("ci.yml", workflow("uname"));
    repository.write("broken.yml", workflow("cat no-such-file"));
    repository.commit();
    let (mut kept, mut id, mut seen) = (None, String::new(), Vec::new());
    for command in commands_of_the_readme() {
        seen.push(command.clone());
        if RUN_ELSEWHERE.iter().any(|(begin, _)| command.starts_with(begin)) {
            continue;
        }
        let words: Vec<String> = command
            .split_whitespace()
            .map(|word| match word.strip_prefix("ID") {
                Some(rest) if rest.is_empty() || rest.starts_with(':') => format!("{id}{rest}"),
                _ => word.to_owned(),
            })
            .collect();
        assert_eq!(words[0], "creel", "who runs `{command}`?");
        let mut creel = sandbox.creel(&words[1..]);
        creel.current_dir(&repository.path);
        if words.contains(&"--keep".to_owned()) {
            let run = Run::start(creel);
            run.wait_for_stderr("creel shell ");
            let said = run.stderr_so_far();
            let after = said.split("creel shell ").nth(1).expect("it names the machine");
            id = after.split_whitespace().next().expect("an id").to_owned();
            kept = Some(run);
            continue;
        }
        // A reader would type something; here the shell's input is at its end at once.
        let output = creel.stdin(std::process::Stdio::null()).output().expect("creel runs");
        let (code, stdout) = (output.status.code(), String::from_utf8_lossy(&output.stdout));
        let stderr = String::from_utf8_lossy(&output.stderr);
        let expected = if words.contains(&"broken.yml".to_owned()) { 1 } else { 0 };
        assert_eq!(code, Some(expected), "{command}: {stdout}\n{stderr}");
        let shown = match words[1].as_str() {
            "logs" => stderr.contains("no-such-file"),
            "ps" => stdout.contains("broken"),
            "exec" => stdout.contains("broken.yml"),
            "cp" => repository.path.join("repo/broken.yml").is_file(),
            _ => true,
        };
        assert!(shown, "{command}: {stdout}\n{stderr}");
    }
    let kept = kept.expect("the README keeps a machine");
    kept.signal(rustix::process::Signal::INT);
    kept.finish().expect_code(1);
    for (begin, _) in RUN_ELSEWHERE {
        assert!(
            seen.iter().any(|command| command.starts_with(begin)),
            "the README has no `{begin}` any more"
        );
    }
}
