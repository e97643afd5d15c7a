//! What is told a person whose input or host is wrong: one error, that names the thing and the remedy.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::harness::{OrdinaryUser, Repository, Run, Sandbox, TINY, World, workflow};

/// Rows of the table, with the text of each workflow file.
fn files() -> Vec<(&'static str, String)> {
    let tiny = |rest: &str| format!("engine: microvm\nimage: tiny\nwhen:\n  - event: manual\n{rest}");
    let step = "clone:\n  skip: true\nsteps:\n  - command: 'true'\n";
    vec![
        ("broken YAML", tiny("steps:\n  - command: [unclosed\n")),
        ("unknown key", tiny("stepz:\n  - command: 'true'\n")),
        ("unknown key of a step", tiny("steps:\n  - name: x\n    comand: 'true'\n")),
        ("no when", format!("engine: microvm\nimage: tiny\n{step}")),
        ("no steps", tiny("steps: []\n")),
        ("unknown image", workflow("tinny", &[("x", "true")])),
        ("image without its kernel", workflow("no-kernel", &[("x", "true")])),
        (
            "docker engine",
            "engine: docker\nimage: alpine\nwhen:\n  - event: manual\nsteps:\n  - command: 'true'\n"
                .to_owned(),
        ),
        ("unknown engine", format!("engine: vax\nimage: tiny\nwhen:\n  - event: manual\n{step}")),
        ("NixOS keys", tiny(&format!("services:\n  nginx:\n    enable: true\n{step}"))),
        ("no git repository", tiny("steps:\n  - command: 'true'\n")),
    ]
}

/// Rows whose command line is what is wrong.
const ARGUMENTS: [(&str, &[&str]); 8] = [
    ("a secret on the command line", &["--secret", "TOKEN=hunter2"]),
    ("a secret that is not in the environment", &["--secret", "TOKEN"]),
    ("a secret file that is not there", &["--secret", "TOKEN=@missing.txt"]),
    ("unknown runtime", &["--runtime", "vmware"]),
    ("a runtime that is not yet there", &["--runtime", "docker"]),
    ("an image that is not there", &["--image", "tinny"]),
    ("a variable without a value", &["--env", "NAME"]),
    ("a timeout that is none", &["--timeout", "soon"]),
];

struct Table<'a> {
    sandbox: &'a Sandbox,
    text: String,
}

impl Table<'_> {
    /// Runs the command and adds what it said.
    fn row(&mut self, what: &str, command: Command) {
        let ended = Run::start(command).finish();
        assert!(ended.stdout.is_empty(), "{what}: {}", ended.said());
        let code = ended.code.expect("creel was not killed");
        writeln!(self.text, "{what}: exit {code}").expect("a String takes it");
        for line in self.redact(&ended.stderr).lines() {
            writeln!(self.text, "    {line}").expect("a String takes it");
        }
    }

    /// Leaves out what differs from host to host and from run to run.
    fn redact(&self, text: &str) -> String {
        let text = text
            .replace(&*self.sandbox.root().to_string_lossy(), "<test>")
            .replace(std::env::consts::ARCH, "<arch>");
        let text = between(&text, "(there are ", " in ", "<images>");
        between(&text, "has mode 0000, ", ")", "<owner, and who we are>")
    }
}

/// Replaces what stands between the first `start` and the next `end`.
fn between(text: &str, start: &str, end: &str, replacement: &str) -> String {
    let Some((before, rest)) = text.split_once(start) else { return text.to_owned() };
    let Some((_, after)) = rest.split_once(end) else { return text.to_owned() };
    format!("{before}{start}{replacement}{end}{after}")
}

#[test]
fn each_mistake_gets_one_clear_error_and_its_exit_code() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    // An image of this test's own, beside the shared ones of the state directory.
    let images = sandbox.root().join("images");
    let no_kernel = images.join("no-kernel");
    fs::create_dir_all(&no_kernel).expect("an image's directory");
    for file in ["spec.json", "initrd", "store.erofs"] {
        fs::copy(world.images.join(TINY).join(file), no_kernel.join(file)).expect("a file of tiny");
    }
    std::os::unix::fs::symlink(world.images.join(TINY), images.join(TINY)).expect("a link to tiny");

    let mut table = Table { sandbox: &sandbox, text: String::new() };
    let with_images = |mut command: Command| {
        command.env("CREEL_IMAGES__DIR", &images);
        command
    };
    for (what, text) in files() {
        table.row(what, with_images(sandbox.workflow(&text)));
    }
    let good = workflow(TINY, &[("x", "true")]);
    for (what, arguments) in ARGUMENTS {
        let mut command = with_images(sandbox.workflow(&good));
        command.args(arguments);
        table.row(what, command);
    }

    table.row("a file that is not there", sandbox.creel(["run", "-f", "missing.yml"]));
    table.row("no workflows, no repository", sandbox.creel(["run"]));
    let repository = Repository::create(sandbox.work_dir().join("project"));
    repository.write(".tangled/workflows/test.yml", &good);
    for (what, name) in [("an unknown name", "deploy"), ("a mistyped name", "tset")] {
        let mut command = sandbox.creel(["run", name]);
        command.current_dir(&repository.path);
        table.row(what, command);
    }

    let mut command = sandbox.workflow(&good);
    command.env("PATH", sandbox.root().join("empty"));
    table.row("no QEMU on PATH", command);
    let mut command = sandbox.workflow(&good);
    command.env("CREEL_QEMU__PATH", "/nonexistent/qemu");
    table.row("no QEMU where it is configured", command);
    let mut command = sandbox.workflow(&good);
    command.env("CREEL_KIT__DIR", sandbox.root().join("empty")).env("CREEL_MACHINE__ACCELL", "tcg");
    table.row("an unknown setting", command);

    unreadable_images(&mut table, &good);
    insta::assert_snapshot!(table.text);
}

/// As a user who may not look into the directory: root could.
fn unreadable_images(table: &mut Table<'_>, good: &str) {
    let sandbox = table.sandbox;
    let closed = sandbox.root().join("closed");
    fs::create_dir(&closed).expect("a directory");
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).expect("a closed directory");
    let as_invoked = sandbox.workflow(good);
    let user = OrdinaryUser::create(sandbox);
    let mut command = if let Some(user) = &user {
        let file = sandbox.work_dir().join("ci.yml");
        user.creel(&sandbox.work_dir(), ["run".as_ref(), "-f".as_ref(), file.as_os_str()])
    } else {
        as_invoked
    };
    command.env("CREEL_IMAGES__DIR", &closed);
    table.row("an image directory that may not be read", command);
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("an open directory again");
}
