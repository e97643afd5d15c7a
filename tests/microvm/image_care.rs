//! Images that are damaged, and images that nobody needs any more.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Ended, Run, Sandbox, TINY, World};

/// `creel` with images of the test's own.
fn creel(sandbox: &Sandbox, images: &Path, arguments: &[&str]) -> Command {
    let mut command = sandbox.creel(arguments);
    command.env("CREEL_IMAGES__DIR", images);
    command
}

fn ended(sandbox: &Sandbox, images: &Path, arguments: &[&str]) -> Ended {
    Run::start(creel(sandbox, images, arguments)).finish()
}

#[test]
fn a_damaged_file_is_found_and_named() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let directory = tempfile::tempdir().expect("a directory for images");
    let images = directory.path();
    ended(&sandbox, images, &["image", "build", "tiny"]).expect_code(0);
    let verified = ended(&sandbox, images, &["image", "verify", TINY]);
    verified.expect_code(0);
    assert!(verified.text().starts_with("tiny: ok, "), "{}", verified.said());

    // One bit of many millions.
    let disk = images.join(TINY).join("store.erofs");
    let mut bytes = fs::read(&disk).expect("the image's root");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&disk, bytes).expect("the image's root");
    let verified = ended(&sandbox, images, &["image", "verify", TINY]);
    verified.expect_code(3).expect_stderr("not as built: tiny");
    assert!(verified.text().contains("store.erofs is damaged"), "{}", verified.said());
    let verified = ended(&sandbox, images, &["image", "verify", TINY, "--json"]);
    verified.expect_code(3);
    assert!(verified.text().contains(r#""ok": false"#), "{}", verified.said());

    // What it says to do helps.
    ended(&sandbox, images, &["image", "rm", TINY]).expect_code(0);
    ended(&sandbox, images, &["image", "build", "tiny"]).expect_code(0);
    ended(&sandbox, images, &["image", "verify"]).expect_code(0);
}

#[test]
fn a_running_machine_keeps_an_image_that_nobody_names_any_more() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let directory = tempfile::tempdir().expect("a directory for images");
    let images = directory.path();
    ended(&sandbox, images, &["image", "build", "tiny"]).expect_code(0);
    let gate = "echo started; while [ ! -e /workspace/repo/never ]; do sleep 1; done";
    let mut run = sandbox.workflow(&crate::harness::workflow(TINY, &[("step", gate)]));
    run.env("CREEL_IMAGES__DIR", images).args(["--timeout", "100s"]);
    let run = Run::start(run);
    run.wait_for_stdout("started");

    ended(&sandbox, images, &["image", "build", "tiny", "--memory-mib", "320"]).expect_code(0);
    let kept = ended(&sandbox, images, &["image", "gc"]);
    kept.expect_code(0).expect_stderr("0.0 MiB freed");
    assert!(kept.text().contains("it is in use, though no image leads to it"), "{}", kept.said());

    run.signal(rustix::process::Signal::INT);
    run.finish().expect_code(130);
    let dry = ended(&sandbox, images, &["image", "gc", "--dry-run"]);
    assert!(dry.text().starts_with("would remove "), "{}", dry.said());
    let real = ended(&sandbox, images, &["image", "gc"]);
    assert_eq!(dry.text().replace("would remove", "removed"), real.text());
    real.expect_code(0).expect_within(Duration::from_secs(10), real.at - real.took);
    let last = ended(&sandbox, images, &["image", "gc"]);
    assert_eq!(last.text(), "", "nothing is left to remove: {}", last.said());
    ended(&sandbox, images, &["image", "verify", TINY]).expect_code(0);
}
