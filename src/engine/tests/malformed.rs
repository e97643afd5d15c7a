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
        (
            "unknown keys at every level",
            format!("{}clone: {{dept: 3}}\nimgae: tiny\n", broken("event", "evnt")),
        ),
        ("no engine", broken("engine: microvm\n", "")),
        ("no when", broken("when:\n  - event: push\n    branch: main\n", "")),
        ("no key steps", broken("steps:\n  - name: build\n    command: make\n", "")),
        ("step without a command", broken("    command: make\n", "")),
        ("step with an empty command", broken("command: make", "command: ' '")),
        ("when is a map", broken("  - event: push\n    branch: main", "  event: push\n  branch: main")),
        ("no conditions", broken("\n  - event: push\n    branch: main", " []")),
        ("no events", broken("event: push", "event: []")),
        ("branch and paths on a manual run", broken("push\n", "manual\n    paths: [src/**]\n")),
        (
            "tag on a pull request",
            broken("push\n    branch: main", "pull_request\n    branch: main\n    tag: v*"),
        ),
        ("types on a push", broken("branch: main", "branch: main\n    types: opened")),
        ("unknown type", broken("push\n", "pull_request\n    types: [open, draft]\n")),
        ("unknown engine", broken("microvm", "mircovm")),
        ("unknown event", broken("push", "pull-request")),
        ("unknown event, nothing like it", broken("push", "cron")),
        ("push without branch or tag", broken("    branch: main\n", "")),
        ("tag without push", broken("event: push\n    branch: main", "event: manual\n    tag: v*")),
        ("bad glob", broken("branch: main", "branch: ['main', 'rel[']")),
        ("bad globs", broken("branch: main", "branch: ['a{b', '[z-a]', '']\n    paths: 'src\\'")),
        ("pattern too long", broken("main", &"a".repeat(600))),
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
        ("caches", format!("{GOOD}caches:\n  ftp://cache: k\n  cache.example.org: k\n  https://: k\n")),
        ("image is a path", format!("{GOOD}image: ./images/tiny\n")),
        ("docker without an image", broken("microvm", "docker")),
        (
            "keys of another engine",
            format!("{}services: {{redis: true}}\nimage: x\n", broken("microvm", "nixery")),
        ),
        ("map form on microvm", format!("{GOOD}dependencies:\n  nixpkgs:\n    - go\n")),
        ("list form on nixery", format!("{}dependencies: [go]\n", broken("microvm", "nixery"))),
        (
            "wrong types at the top",
            format!("{GOOD}environment: [A]\nservices: 1\nregistry: {{a: [b]}}\nruns_on: {{a: b}}\n"),
        ),
        ("name of an engine in a list", broken("engine: microvm", "engine: [microvm]")),
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
        ("variable too long", format!("{GOOD}environment: {{A: {}}}\n", "x".repeat(140_000))),
        ("file too large", format!("{GOOD}#{}\n", "x".repeat(1 << 20))),
        ("anchors that multiply", anchors_that_multiply()),
        ("nested too deep", format!("{GOOD}services: {}{}\n", "[".repeat(80), "]".repeat(80))),
        ("NUL in the file", broken("make", "ma\0ke")),
        ("NUL in a command", broken("make", "\"ma\\0ke\"")),
        ("closing bracket alone", broken("branch: main", "branch: [main]]")),
    ]
}

/// Ten lists of ten, each of the one before.
fn anchors_that_multiply() -> String {
    let mut text = format!("{GOOD}services:\n  a0: &a0 [x]\n");
    for level in 1..10 {
        let copies = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("  a{level}: &a{level} [{copies}]\n"));
    }
    text
}

/// Files that are no UTF-8 text, besides those that are.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let (head, tail) = GOOD.split_once("make").expect("a command");
    let latin1 = [head.as_bytes(), b"echo caf\xe9", tail.as_bytes()].concat();
    let utf16: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut files: Vec<_> = cases().into_iter().map(|(what, text)| (what, text.into_bytes())).collect();
    files.push(("Latin-1", latin1));
    files.push(("UTF-16", [b"\xff\xfe", utf16.as_slice()].concat()));
    files
}

/// A file as the table shows it: what matters of it, in as many lines as a good file has and a few more.
fn shown(file: &[u8]) -> String {
    let text = String::from_utf8_lossy(file);
    let lines = text.split_inclusive('\n').map(|line| {
        let line =
            line.escape_debug().to_string().replace("\\n", "").replace("\\\"", "\"").replace("\\'", "'");
        match line.char_indices().nth(100) {
            Some((end, _)) => format!("  {}…\n", &line[..end]),
            None => format!("  {line}\n"),
        }
    });
    lines.take(24).collect()
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let mut out = String::new();
    for (what, file) in files() {
        let errors = match Manifest::parse_bytes("file.yml", &file) {
            Ok(_) => panic!("{what} was taken for a good file:\n{}", shown(&file)),
            Err(errors) => errors,
        };
        writeln!(out, "── {what}\n{}{}", shown(&file), errors.render()).expect("a string takes it");
    }
    insta::assert_snapshot!("malformed", out);
}

#[test]
fn every_message_has_a_place_and_a_remedy() {
    for (what, file) in files() {
        let errors = Manifest::parse_bytes("file.yml", &file).expect_err(what);
        let rendered = errors.render();
        for problem in errors.problems() {
            let place = format!("file.yml:{}:{}: ", problem.span.line, problem.span.column);
            let headline = format!("{place}{}", problem.message);
            let mut below = rendered.lines().skip_while(|line| *line != headline).skip(1);
            assert!(rendered.lines().any(|line| line == headline), "{what}: {headline}\n{rendered}");
            let line = String::from_utf8_lossy(&file)
                .lines()
                .nth(problem.span.line - 1)
                .unwrap_or_default()
                .to_owned();
            if !line.trim().is_empty() {
                let (source, caret) = (below.next(), below.next());
                assert!(
                    source.is_some_and(|line| line.contains(" | ")),
                    "{what}: no source line\n{rendered}"
                );
                assert!(
                    caret.is_some_and(|line| line.trim_end().ends_with('^')),
                    "{what}: no caret\n{rendered}"
                );
            }
            // A fault, then what to do about it.
            let (fault, remedy) = problem.message.split_once("; ").unwrap_or((&problem.message, ""));
            assert!(fault.len() > 10 && remedy.len() > 8, "{what}: no remedy in {:?}", problem.message);
        }
    }
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
