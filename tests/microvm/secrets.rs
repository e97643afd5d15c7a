//! Secrets are not shown, however a step writes them.

use crate::harness::{Run, Sandbox, TINY, World, workflow};

const SECRET: &str = "correct-horse-battery-staple";
/// Base64 of the secret with 0, 1 and 2 bytes (`x`) before it.
const ENCODED: [&str; 3] = [
    "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==",
    "eGNvcnJlY3QtaG9yc2UtYmF0dGVyeS1zdGFwbGU=",
    "eHhjb3JyZWN0LWhvcnNlLWJhdHRlcnktc3RhcGxl",
];

const STEP: &str = r#"
echo "plain: $TOKEN."
echo "to stderr: $TOKEN." >&2
printf 'in pieces: correct-ho'; sleep 0.3; printf 'rse-battery'; sleep 0.3; echo '-staple.'
for before in '' x xx; do
    printf 'encoded: '; printf '%s' "$before$TOKEN" | base64
done
[ ${#TOKEN} = 28 ] && echo "the step has the secret itself"
"#;

fn run(json: bool) -> Option<String> {
    let world = World::get()?;
    let sandbox = Sandbox::new(world);
    let mut command = sandbox.workflow(&workflow(TINY, &[("say", STEP.trim())]));
    command.args(["--secret", "TOKEN"]).env("TOKEN", SECRET);
    if json {
        command.arg("--json");
    }
    let ended = Run::start(command).finish();
    ended.expect_code(0);
    let text = ended.text();
    for shown in [&text, &ended.stderr] {
        assert!(!shown.contains(SECRET), "the secret is shown: {}", ended.said());
        for encoded in ENCODED {
            // A few characters at either end depend on the neighbours of the secret and may stay.
            let core = &encoded[4..encoded.len() - 5];
            assert!(!shown.contains(core), "`{core}` is shown: {}", ended.said());
        }
    }
    assert!(text.contains("the step has the secret itself"), "{}", ended.said());
    Some(text)
}

#[test]
fn a_secret_is_masked_across_writes_and_in_base64() {
    let Some(text) = run(false) else { return };
    for said in ["plain: ***.\n", "to stderr: ***.\n", "in pieces: ***.\n"] {
        assert!(text.contains(said), "`{said}` is not in {text}");
    }
}

#[test]
fn a_secret_is_masked_in_json() {
    let Some(text) = run(true) else { return };
    assert!(text.contains("plain: ***."), "{text}");
}

#[test]
fn a_secret_of_a_file_is_masked_line_by_line() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let key = sandbox.work_dir().join("key.pem");
    std::fs::write(&key, "first line of the key\nsecond line of the key\n").expect("a secret file");
    let step = "echo \"$KEY\" | while read -r line; do echo \"[$line]\"; done";
    let mut command = sandbox.workflow(&workflow(TINY, &[("say", step)]));
    command.arg("--secret").arg(format!("KEY=@{}", key.display()));
    let ended = Run::start(command).finish();
    ended.expect_code(0);
    assert_eq!(ended.text(), "[***]\n[***]\n", "{}", ended.said());
}
