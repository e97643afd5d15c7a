//! Projects of the kind that people have, built and tested on the Debian image; and the image itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    DEBIAN, DEBIAN_MINIMAL, Ended, Repository, Run, Sandbox, World, debian, debian_minimal, wait_until,
};

/// A mirror may be slow, and so may a busy host.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

const MAKEFILE: &str = "\
CFLAGS = -std=c11 -Wall -Werror -O1

test: check
\t./check

check: check.o roman.o
\t$(CC) $(LDFLAGS) -o $@ $^

check.o roman.o: roman.h

.PHONY: test
";

const ROMAN_H: &str = "const char *roman(unsigned number, char *text);\n";

const ROMAN_C: &str = r#"#include "roman.h"
#include <string.h>

const char *roman(unsigned number, char *text) {
    static const struct { unsigned value; const char *digits; } parts[] = {
        {10, "X"}, {9, "IX"}, {5, "V"}, {4, "IV"}, {1, "I"},
    };
    text[0] = 0;
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
        for (; number >= parts[i].value; number -= parts[i].value)
            strcat(text, parts[i].digits);
    return text;
}
"#;

const CHECK_C: &str = r#"#include "roman.h"
#include <stdio.h>
#include <string.h>

static int failures;

static void expect(unsigned number, const char *wanted) {
    char text[64];
    if (strcmp(roman(number, text), wanted) != 0) {
        printf("FAILED: %u is %s, not %s\n", number, wanted, text);
        failures++;
    }
}

int main(void) {
    expect(4, "IV");
    expect(9, "IX");
    expect(38, "XXXVIII");
    printf("3 checks, %d failed\n", failures);
    return failures != 0;
}
"#;

const WORDS_PY: &str = r#"import collections


def count(text):
    return collections.Counter(word.lower().strip(".,") for word in text.split())
"#;

const TEST_WORDS_PY: &str = r#"import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import words


class Words(unittest.TestCase):
    def test_case_makes_no_difference(self):
        self.assertEqual(words.count("To be, or not to be.")["to"], 2)

    def test_a_child_process_sees_the_same(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "counts.json")
            script = "import json, sys, words; json.dump(words.count('grün Grün'), open(sys.argv[1], 'w'))"
            subprocess.run([sys.executable, "-c", script, path], check=True)
            self.assertEqual(json.loads(path.read_text()), {"grün": 2})
"#;

/// A workflow of that name with these steps, for the Debian image.
fn workflow(repository: &Repository, name: &str, steps: &[(&str, &str)]) {
    let mut text = format!("engine: microvm\nimage: {DEBIAN}\nwhen:\n  - event: manual\nsteps:\n");
    for (name, command) in steps {
        text += &format!("  - name: {name}\n    command: {command}\n");
    }
    repository.write(&format!(".tangled/workflows/{name}.yml"), text);
}

fn c_project(sandbox: &Sandbox, roman_c: &str) -> Repository {
    let repository = Repository::create(sandbox.work_dir().join("roman"));
    for (path, content) in
        [("Makefile", MAKEFILE), ("roman.h", ROMAN_H), ("roman.c", roman_c), ("check.c", CHECK_C)]
    {
        repository.write(path, content);
    }
    workflow(&repository, "ci", &[("build", "make check"), ("test", "make test")]);
    repository.commit();
    repository
}

/// Builds the small image into `images`, through the proxies of this host.
fn build_minimal(sandbox: &Sandbox, images: &Path) -> Run {
    let mut command = sandbox.creel(["image", "build", "debian", "--minimal"]);
    command.env("CREEL_IMAGES__DIR", images);
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    Run::start(command)
}

fn run(sandbox: &Sandbox, repository: &Repository) -> Ended {
    let mut command = sandbox.creel(["run", "ci"]);
    command.current_dir(&repository.path);
    Run::start(command).finish()
}

#[test]
fn a_c_project_is_built_and_tested() {
    let Some(world) = World::get().filter(|world| debian(world)) else { return };
    let sandbox = Sandbox::new(world);
    let ended = run(&sandbox, &c_project(&sandbox, ROMAN_C));
    ended.expect_code(0).expect_stderr("workflow ci: ok");
    let text = ended.text();
    assert!(text.contains("-o check check.o roman.o"), "make says what it does: {}", ended.said());
    assert!(text.contains("3 checks, 0 failed\n"), "{}", ended.said());
}

#[test]
fn a_c_project_that_does_not_compile_fails_with_the_compilers_words() {
    let Some(world) = World::get().filter(|world| debian(world)) else { return };
    let sandbox = Sandbox::new(world);
    let ended = run(&sandbox, &c_project(&sandbox, &ROMAN_C.replace("text[0] = 0;", "txt[0] = 0;")));
    ended.expect_code(1).expect_stderr("step `build`: exited with code 2");
    let text = ended.text();
    assert!(text.contains("roman.c:8:5: error: ") && text.contains("undeclared"), "{}", ended.said());
    assert!(text.contains("make: *** [<builtin>: roman.o] Error 1"), "{}", ended.said());
    assert!(!ended.stderr.contains("==> test"), "nothing is tested: {}", ended.said());
}

#[test]
fn a_c_project_with_a_mistake_fails_with_its_tests_words() {
    let Some(world) = World::get().filter(|world| debian(world)) else { return };
    let sandbox = Sandbox::new(world);
    let ended = run(&sandbox, &c_project(&sandbox, &ROMAN_C.replace(r#"{4, "IV"}, "#, "")));
    ended.expect_code(1).expect_stderr("step `test`: exited with code 2");
    assert!(ended.text().contains("FAILED: 4 is IV, not IIII\n3 checks, 1 failed\n"), "{}", ended.said());
}

#[test]
fn a_python_project_is_tested() {
    let Some(world) = World::get().filter(|world| debian(world)) else { return };
    let sandbox = Sandbox::new(world);
    let repository = Repository::create(sandbox.work_dir().join("words"));
    repository.write("words.py", WORDS_PY);
    repository.write("tests/__init__.py", "");
    repository.write("tests/test_words.py", TEST_WORDS_PY);
    workflow(
        &repository,
        "ci",
        &[
            ("test", "python3 -m unittest discover --verbose"),
            ("tools", "git --version && curl --version && bash --version"),
        ],
    );
    repository.commit();

    let ended = run(&sandbox, &repository);
    ended.expect_code(0);
    let text = ended.text();
    assert!(text.contains("Ran 2 tests in ") && text.contains("\nOK\n"), "{}", ended.said());
    assert!(text.contains("git version 2."), "{}", ended.said());

    repository.write("words.py", WORDS_PY.replace(".lower()", ""));
    repository.commit();
    let ended = run(&sandbox, &repository);
    ended.expect_code(1).expect_stderr("step `test`: exited with code 1");
    assert!(ended.text().contains("AssertionError: 1 != 2"), "{}", ended.said());
}

/// The first build may be from another day.
#[test]
fn the_same_packages_are_the_same_bytes_whenever_and_wherever_they_are_put_together() {
    let Some(world) = World::get().filter(|world| debian_minimal(world)) else { return };
    let sandbox = Sandbox::new(world);
    let elsewhere = tempfile::tempdir().expect("a directory for images");
    let built = build_minimal(&sandbox, elsewhere.path()).finish_within(BUILD_LIMIT);
    built.expect_code(0);
    assert!(!built.stderr.contains("already built"), "{}", built.said());

    let inspected =
        sandbox.creel(["image", "inspect", DEBIAN_MINIMAL, "--json"]).output().expect("creel starts");
    let inspected = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let digest = built.text();
    assert!(inspected.contains(digest.trim()), "{digest} is not the digest of {inspected}");

    let verified = sandbox.creel(["image", "verify", DEBIAN_MINIMAL]).output().expect("creel starts");
    assert_eq!(String::from_utf8_lossy(&verified.stdout), format!("{DEBIAN_MINIMAL}: ok, {digest}"));
}

#[test]
fn a_build_that_is_interrupted_leaves_nothing() {
    let Some(world) = World::get().filter(|world| debian_minimal(world)) else { return };
    let sandbox = Sandbox::new(world);
    // Below the sandbox, which notices what is left of processes and files.
    let images = sandbox.work_dir().join("images");
    let build = build_minimal(&sandbox, &images);
    build.wait_for_stderr("unpacking the base system");
    let told = std::time::Instant::now();
    build.signal_group(Signal::INT);
    let ended = build.finish();
    ended.expect_code(130).expect_stderr("cancelled").expect_within(Duration::from_secs(20), told);
    sandbox.expect_no_process_within(Duration::from_secs(5));
    wait_until(Duration::from_secs(5), "nothing of the build is left", || {
        let left = fs::read_dir(images.join(".store")).expect("the store").flatten();
        left.map(|entry| entry.file_name()).all(|name| name == "by-input" || name == "files")
    });
}
