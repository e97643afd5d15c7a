//! Wrong files, and exactly what is said about them.

use std::fmt::Write;

use crate::engine::Manifest;

/// A good file, to be broken in one place.
const GOOD: &str = "\
engine: microvm
when:
  - event: push
    branch: main
steps:
  - name: build
    command: make
";

fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is in the good file");
    GOOD.replacen(from, to, 1)
}

fn cases() -> Vec<(&'static str, String)> {
    vec![
        ("empty file", String::new()),
        ("comments only", "# nothing here\n".to_owned()),
        ("a list at the top", "- engine: microvm\n".to_owned()),
        ("nothing required is there", "image: tiny\n".to_owned()),
        ("unknown key", broken("command:", "comand:")),
        ("habit of another CI", broken("    command:", "    run:")),
        ("unknown key, nothing like it", format!("{GOOD}retries: 3\n")),
        ("unknown engine", broken("microvm", "mircovm")),
        ("unknown event", broken("push", "pull-request")),
        ("unknown event, nothing like it", broken("push", "cron")),
        ("push without branch or tag", broken("    branch: main\n", "")),
        ("tag without push", broken("event: push\n    branch: main", "event: manual\n    tag: v*")),
        ("bad glob", broken("branch: main", "branch: ['main', 'rel[']")),
        (
            "wrong types",
            broken("command: make", "command: [make, test]\n    environment: [A, B]\n  - echo hi"),
        ),
        ("no steps", broken("steps:\n  - name: build\n    command: make\n", "steps: []\n")),
        (
            "keys without values",
            broken("    command: make", "    command:").replace("engine: microvm", "engine:"),
        ),
        ("environment", format!("{GOOD}environment:\n  A: [1]\n  '': x\n  B=C: y\n  D: \"a\\0b\"\n")),
        (
            "clone",
            format!("{GOOD}clone:\n  depth: -1\n  skip: maybe\n  submodules: 'true'\n  shallow: true\n"),
        ),
        ("clone depth", format!("{GOOD}clone: {{depth: 1.5}}\n")),
        ("caches", format!("{GOOD}caches:\n  ssh://cache: k\n  cache.example.org: k\n  https://: k\n")),
        ("image is a path", format!("{GOOD}image: ./images/tiny\n")),
        ("docker without an image", broken("microvm", "docker")),
        (
            "keys of another engine",
            format!("{}services: {{redis: true}}\nimage: x\n", broken("microvm", "nixery")),
        ),
        ("map form on microvm", format!("{GOOD}dependencies:\n  nixpkgs:\n    - go\n")),
        ("list form on nixery", format!("{}dependencies: [go]\n", broken("microvm", "nixery"))),
        ("infinity", format!("{GOOD}services:\n  redis:\n    limit: .inf\n")),
        (
            "duplicate keys",
            broken("    command: make", "    command: make\n    command: make test\n    nmae: x"),
        ),
        ("merge key", broken("    command: make", "    command: make\n    <<: {name: x}")),
        ("tag of a language", broken("command: make", "command: !ruby/object make")),
        ("two documents", format!("{GOOD}---\n{GOOD}")),
        ("tab", broken("  - name", "\t- name")),
        ("missing colon", broken("engine: microvm", "engine microvm")),
        ("colon in a value", broken("command: make", "command: echo done: yes")),
        ("open quote", broken("command: make", "command: \"make")),
        ("open bracket", broken("branch: main", "branch: [main, next")),
        ("text after a quote", broken("command: make", "command: \"make\" test")),
        ("backquote", broken("command: make", "command: `make`")),
        ("wrong indentation", broken("    command: make", "  command: make")),
        ("deeper indentation", broken("    command: make", "      command: make")),
        ("template braces", broken("command: make", "{{ x }}: make")),
        ("unknown alias", broken("command: make", "command: *make")),
        ("alias in itself", broken("command: make", "command: make\n    environment: &e {A: *e}")),
        ("escape sequences", broken("command: make", "\"co\\u001b[2Jmmand\": make")),
        (
            "long line",
            broken(
                "command: make",
                &format!("command: make\n    environment: {{A: {}, =: b}}", "x".repeat(300)),
            ),
        ),
        ("wide characters", broken("name: build", "name: \"häuser\", 建物: x")),
        ("windows line ends", broken("command:", "comand:").replace('\n', "\r\n")),
        ("too many patterns", broken("branch: main", &format!("branch: [{}]", vec!["a*"; 501].join(", ")))),
        ("labels", broken("command: make", "command: make\nruns_on: [[x]]\narchitecture: {}")),
        ("command too long", broken("make", &"x".repeat(140_000))),
    ]
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let mut out = String::new();
    for (what, text) in cases() {
        let errors = match Manifest::parse("file.yml", &text) {
            Ok(_) => panic!("{what} was taken for a good file:\n{text}"),
            Err(errors) => errors,
        };
        writeln!(out, "── {what}\n{}", errors.render()).expect("a string takes it");
    }
    insta::assert_snapshot!("malformed", out);
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_order() {
    let text = "engine: dokcer\nwhen:\n  - event: pus\n  - events: push\nsteps:\n  - run: make\n  - command: 7\n    env: {A: 1}\n";
    let errors = Manifest::parse("file.yml", text).expect_err("mistakes");
    let lines: Vec<_> = errors.problems().iter().map(|problem| problem.span.line).collect();
    assert_eq!(lines, [1, 3, 4, 6, 8], "{errors}");
}

#[test]
fn a_flood_of_mistakes_is_counted_not_shown() {
    let text: String = (0..500).map(|n| format!("key{n}: 1\n")).collect();
    let errors = Manifest::parse("file.yml", &text).expect_err("mistakes");
    assert!(errors.problems().len() >= 500);
    assert!(errors.to_string().lines().count() <= 31);
    assert!(errors.render().ends_with("more problems\n"));
}

#[test]
fn a_message_never_carries_an_escape_sequence() {
    for (what, text) in cases() {
        let errors = Manifest::parse("fi\u{1b}[2Jle.yml", &text).expect_err(what);
        let shown = format!("{errors}\n{}", errors.render());
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{what}: {shown:?}");
    }
}
