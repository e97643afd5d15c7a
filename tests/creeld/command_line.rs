//! What creeld answers before it starts anything.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Place, TCG};

fn run(place: &Place, argument: &str) -> Output {
    place.creeld().arg(argument).stdout(Stdio::piped()).output().unwrap()
}

#[test]
fn a_good_configuration_is_ok() {
    let place = Place::new();
    let output = run(&place, "--check-config");
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.starts_with(&format!("{}: ok\n", place.path("creel.toml").display())), "{told}");
    assert!(!place.socket().exists(), "checking starts nothing");
}

#[test]
fn every_mistake_is_told_with_its_line_and_remedy() {
    let place = Place::new();
    place.configure("[machine]\nacel = \"kvm\"\nallow_tcg = \"yes\"\n[daemom]\n");
    let output = run(&place, "--check-config");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    let text = text.replace(&place.path("").display().to_string(), "");
    insta::assert_snapshot!(text, @r#"
    creel.toml:17:1: unknown key `acel` in `[machine]`; did you mean `accel`?
       17 | acel = "kvm"
          | ^^^^
    creel.toml:18:13: `machine.allow_tcg`: expected true or false, found the string "yes"
       18 | allow_tcg = "yes"
          |             ^^^^^
    creel.toml:19:2: unknown section `daemom`; did you mean `daemon`?
       19 | [daemom]
          |  ^^^^^^
    "#);
}

#[test]
fn mistakes_can_be_had_as_json() {
    let place = Place::new();
    place.configure("[machine]\nacel = \"kvm\"\n");
    let mut creeld = place.creeld();
    creeld.args(["--check-config", "--json"]).env("CREEL_LOGS__MAX_STEP", "lots").stdout(Stdio::piped());
    let output = creeld.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["ok"], false);
    assert_eq!(told["file"], place.path("creel.toml").display().to_string());
    let problem = &told["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&17.into(), &1.into()), "{told}");
    assert_eq!(problem["text"], "acel = \"kvm\"");
    assert_eq!(told["problems"][1]["variable"], "CREEL_LOGS__MAX_STEP");
}

#[test]
fn without_a_file_defaults_are_in_force_and_a_named_file_must_be_there() {
    let home = tempfile::tempdir().unwrap();
    // Root's own file is the system's, which may be there.
    let check = |arguments: &[&str]| {
        let mut creeld = Command::new(env!("CARGO_BIN_EXE_creeld"));
        creeld.arg("--check-config").args(arguments).env_clear().env("HOME", home.path());
        let output = creeld.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    };
    let (code, told) = check(&[]);
    assert_eq!(code, Some(0), "{told}");
    let own = if rustix::process::geteuid().is_root() {
        Path::new("/etc/creel/creel.toml").to_owned()
    } else {
        home.path().join(".config/creel/creel.toml")
    };
    let expected = match own.exists() {
        true => format!("{}: ok\n", own.display()),
        false => format!("ok: there is no {}, defaults are in force\n", own.display()),
    };
    assert_eq!(told, expected);
    let (code, told) = check(&["--config", "/nonexistent.toml"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("/nonexistent.toml"), "{told}");
}

#[test]
fn creeld_does_not_start_with_a_bad_configuration() {
    let place = Place::new();
    place.configure("[machine]\naccel = \"warp\"\n");
    let (code, text) = place.run(place.creeld());
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("creel.toml:"), "{text}");
    assert!(!text.contains('\x1b'), "colour is for terminals: {text}");
    assert!(!place.socket().exists());
}

#[test]
fn the_printed_configuration_is_one_that_says_the_same() {
    let place = Place::new();
    place.configure(&format!("{TCG}[logs]\nmax_step = \"7MiB\"\n"));
    let printed = run(&place, "--print-config");
    assert!(String::from_utf8_lossy(&printed.stdout).contains("max_step = \"7MiB\""), "{printed:?}");
    std::fs::write(place.path("creel.toml"), &printed.stdout).unwrap();
    assert_eq!(run(&place, "--print-config").stdout, printed.stdout);
}

#[test]
fn help_teaches() {
    let help = Command::new(env!("CARGO_BIN_EXE_creeld")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for taught in ["--check-config", "SIGHUP", "CREEL_LOG", "Exit codes"] {
        assert!(help.contains(taught), "{taught} is not in:\n{help}");
    }
}
