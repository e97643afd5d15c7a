use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn valid() -> Value {
    json!({
        "arch": "amd64",
        "bootArgs": "console=hvc0",
        "kernel": "vmlinux",
        "initrd": "initrd",
        "storeDisk": "/nix/store/disk",
        "storeDiskType": "erofs",
        "runnerType": "qemu",
        "runnerConfig": {"cpu": "host", "machine": "microvm,acpi=on", "console": "hvc0",
            "extraArgs": ["-device", "i8042"], "virtioTransport": "pci"},
        "memoryMiB": 4096,
        "vcpus": 2,
        "networkInterfaces": [{"type": "slirp4netns", "id": "net0", "mac": "02:00:00:00:10:01"}],
        "volumes": [{"fsType": "ext4", "image": "workspace.img", "imageType": "raw",
            "mountPoint": "/workspace", "readOnly": false, "sizeMiB": 16384}],
        "shell": "/bin/sh",
        "baseConfigHash": "0123456789abcdfghijklmnpqrsvwxyz",
    })
}

fn parse(spec: &Value) -> Result<Checked, SpecError> {
    ImageSpec::parse(
        "x",
        Path::new("/images/x/spec.json"),
        spec.to_string().as_bytes(),
        Path::new("/images/x"),
    )
}

/// `valid()` with the value at a JSON pointer replaced, or removed.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut spec = valid();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = spec.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    spec
}

#[test]
fn an_upstream_spec_is_read_in_full() {
    let checked = parse(&valid()).expect("valid");
    let spec = checked.spec;
    assert_eq!(checked.warnings, Vec::<String>::new());
    assert_eq!(spec.arch, Arch::X86_64);
    assert_eq!(spec.kernel, Path::new("/images/x/vmlinux"), "relative to the spec's directory");
    assert_eq!(spec.store_disk, Path::new("/nix/store/disk"), "absolute paths stay");
    assert_eq!(spec.runner_config.virtio_transport, VirtioTransport::Pci);
    assert_eq!(spec.runner_config.extra_args, ["-device", "i8042"]);
    assert_eq!((spec.memory_mib, spec.vcpus), (4096, 2));
    assert_eq!(spec.network_interfaces[0].mac, "02:00:00:00:10:01");
    assert_eq!((spec.volumes[0].size_mib, spec.volumes[0].mount_point.as_str()), (16384, "/workspace"));
    assert_eq!(spec.base_config_hash.as_deref(), Some("0123456789abcdfghijklmnpqrsvwxyz"));
}

#[test]
fn what_creel_writes_it_reads_back() {
    let spec = parse(&valid()).expect("valid").spec;
    let again = parse(&serde_json::to_value(&spec).expect("serialises")).expect("valid").spec;
    assert_eq!(spec, again);
}

#[test]
fn optional_fields_may_be_absent_or_null() {
    let mut spec = valid();
    for name in ["storeDiskType", "runnerType", "networkInterfaces", "volumes", "baseConfigHash"] {
        spec[name] = Value::Null;
    }
    let spec = parse(&spec).expect("valid").spec;
    assert!(spec.volumes.is_empty() && spec.network_interfaces.is_empty() && spec.base_config_hash.is_none());
    assert_eq!(spec.runner_type, RunnerType::Qemu);
}

#[test]
fn fields_creel_does_not_know_are_warned_about() {
    let mut spec = with("/volums", Some(json!([])));
    spec["runnerConfig"]["balloon"] = json!(true);
    insta::assert_snapshot!(parse(&spec).expect("valid").warnings.join("\n"), @"
    unknown field `runnerConfig.balloon` is ignored
    unknown field `volums` is ignored; did you mean `volumes`?
    ");
}

#[test]
fn every_rule_has_its_sentence() {
    let volume = |pointer: &str| format!("/volumes/0/{pointer}");
    let nic = |pointer: &str| format!("/networkInterfaces/0/{pointer}");
    let cases: Vec<(String, Option<Value>)> = vec![
        ("/arch".into(), Some(json!("riscv64"))),
        ("/arch".into(), Some(json!(64))),
        ("/bootArgs".into(), None),
        ("/kernel".into(), Some(json!(""))),
        ("/runnerType".into(), Some(json!("firecracker"))),
        ("/runnerType".into(), Some(json!("bhyve"))),
        ("/runnerConfig".into(), None),
        ("/runnerConfig".into(), Some(json!("microvm"))),
        ("/runnerConfig/machine".into(), None),
        ("/runnerConfig/extraArgs".into(), Some(json!("-device i8042"))),
        ("/runnerConfig/extraArgs".into(), Some(json!(["-device", 1]))),
        ("/runnerConfig/virtioTransport".into(), Some(json!("ccw"))),
        ("/memoryMiB".into(), Some(json!(0))),
        ("/memoryMiB".into(), Some(json!(-5))),
        ("/memoryMiB".into(), Some(json!(1.5))),
        ("/memoryMiB".into(), Some(json!("4096"))),
        ("/vcpus".into(), None),
        ("/vcpus".into(), Some(json!(u64::MAX))),
        (nic("type"), Some(json!("tap"))),
        (nic("mac"), Some(json!("02:00:00:00:10"))),
        (nic("mac"), Some(json!("03:00:00:00:10:01"))),
        (nic("id"), None),
        (volume("fsType"), Some(json!("xfs"))),
        (volume("imageType"), Some(json!("qcow2"))),
        (volume("readOnly"), Some(json!(true))),
        (volume("mountPoint"), Some(json!("workspace"))),
        (volume("mountPoint"), Some(json!("/a/../b"))),
        (volume("sizeMiB"), Some(json!(0))),
        ("/shell".into(), Some(json!("sh"))),
        ("/baseConfigHash".into(), Some(json!("e123456789abcdfghijklmnpqrsvwxyz"))),
    ];
    let mut table = String::new();
    for (pointer, value) in cases {
        let error = parse(&with(&pointer, value)).expect_err(&pointer);
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        table.push_str(&problems.join(" + "));
        table.push('\n');
    }
    insta::assert_snapshot!(table, @"
    `arch` is `riscv64`; use `x86_64` or `aarch64`
    `arch` is a number; make it a string
    `bootArgs` is missing; set it, for example to `console=hvc0 reboot=t panic=-1`
    `kernel` is missing; set it, for example to `vmlinux`
    `runnerType` is `firecracker`, which is not implemented yet; use `qemu`
    `runnerType` is `bhyve`; use `qemu`, or leave it out
    `runnerConfig.machine` is missing; set it, for example to `microvm,acpi=on`
    `runnerConfig` is a string; make it an object
    `runnerConfig.machine` is missing; set it, for example to `microvm,acpi=on`
    `runnerConfig.extraArgs` is a string; make it a list
    `runnerConfig.extraArgs[1]` is a number; make it a string
    `runnerConfig.virtioTransport` is `ccw`; use `mmio` or `pci`
    `memoryMiB` is 0; set it to a whole number from 1 to 4194304
    `memoryMiB` is -5; set it to a whole number from 1 to 4194304
    `memoryMiB` is 1.5; set it to a whole number from 1 to 4194304
    `memoryMiB` is a string; set it to a whole number from 1 to 4194304
    `vcpus` is missing; set it to a whole number from 1 to 1024
    `vcpus` is 18446744073709551615; set it to a whole number from 1 to 1024
    `networkInterfaces[0].type` is `tap`; use `slirp4netns`, the only type there is
    `networkInterfaces[0].mac` is `02:00:00:00:10`, not the address of one interface; write six pairs of hex digits: `02:00:00:00:10:01`
    `networkInterfaces[0].mac` is `03:00:00:00:10:01`, not the address of one interface; write six pairs of hex digits: `02:00:00:00:10:01`
    `networkInterfaces[0].id` is missing; set it, for example to `net0`
    `volumes[0].fsType` is `xfs`; use `ext4`, the only one supported
    `volumes[0].imageType` is `qcow2`; use `raw`, or leave it out
    `volumes[0].readOnly` is true; set it to false: volumes start out empty
    `volumes[0].mountPoint` is `workspace`, not a plain absolute path; write it from the root: `/workspace`
    `volumes[0].mountPoint` is `/a/../b`, not a plain absolute path; write it from the root: `/workspace`
    `volumes[0].sizeMiB` is 0; set it to a whole number from 1 to 16777216
    `shell` is `sh`, not an absolute path; write it from the root: `/bin/sh`
    `baseConfigHash` is `e123456789abcdfghijklmnpqrsvwxyz`, not 32 characters of Nix's base 32; copy the hash part of `system.build.toplevel.outPath`
    ");
}

#[test]
fn two_volumes_at_one_place_are_refused() {
    let mut spec = valid();
    let volume = spec["volumes"][0].clone();
    spec["volumes"].as_array_mut().expect("a list").push(volume);
    let error = parse(&spec).expect_err("twice").to_string();
    assert!(error.contains("`volumes[1].mountPoint` is `/workspace`, as in a volume before it"), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    let mut spec = valid();
    spec["memoryMiB"] = json!(0);
    spec["shell"] = json!("sh");
    spec["volumes"][0]["fsType"] = json!("btrfs");
    insta::assert_snapshot!(parse(&spec).expect_err("three things wrong"), @"
    image `x`: /images/x/spec.json has 3 problems:
      `memoryMiB` is 0; set it to a whole number from 1 to 4194304
      `volumes[0].fsType` is `btrfs`; use `ext4`, the only one supported
      `shell` is `sh`, not an absolute path; write it from the root: `/bin/sh`
    ");
}

#[test]
fn files_that_are_not_there_are_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("spec.json");
    let mut spec = valid();
    spec["storeDisk"] = json!(".");
    fs::write(&file, spec.to_string()).expect("room");
    fs::write(directory.path().join("initrd"), "").expect("room");
    let error = ImageSpec::load("x", &file).expect_err("no kernel").to_string();
    let shown = error.replace(&directory.path().display().to_string(), "DIR");
    insta::assert_snapshot!(shown, @"
    image `x`: DIR/spec.json has 2 problems:
      `kernel` names DIR/vmlinux, which does not exist; build the image again or correct the path
      `storeDisk` names DIR/., which is a directory; name a file
    ");
}

#[test]
fn what_is_no_spec_is_said_to_be_none() {
    let file = Path::new("/images/x/spec.json");
    let parse = |text: &str| {
        ImageSpec::parse("x", file, text.as_bytes(), Path::new("/")).expect_err(text).to_string()
    };
    insta::assert_snapshot!([parse("{\"arch\": }"), parse("[]"), parse("")].join("\n"), @"
    image `x`: /images/x/spec.json: isn't JSON (expected value at line 1 column 10); correct the syntax there
    image `x`: /images/x/spec.json: isn't a JSON object; write the fields in braces
    image `x`: /images/x/spec.json: isn't JSON (EOF while parsing a value at line 1 column 0); correct the syntax there
    ");
    let error = ImageSpec::load("x", Path::new("/nonexistent/spec.json")).expect_err("no file").to_string();
    assert!(error.starts_with("image `x`: /nonexistent/spec.json: can't be read"), "{error}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        "/[a-z/.]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const POINTERS: [&str; 14] = [
    "/arch",
    "/bootArgs",
    "/kernel",
    "/runnerConfig",
    "/runnerConfig/extraArgs",
    "/memoryMiB",
    "/vcpus",
    "/networkInterfaces",
    "/networkInterfaces/0/mac",
    "/volumes",
    "/volumes/0/mountPoint",
    "/volumes/0/sizeMiB",
    "/shell",
    "/baseConfigHash",
];

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<Vec<u8>>()) {
        let _ = ImageSpec::parse("x", Path::new("/f"), &text, Path::new("/"));
    }

    /// Whatever replaces a field, the result is either sound or a complaint.
    #[test]
    fn what_passes_keeps_the_rules(pointer in proptest::sample::select(&POINTERS[..]), value in any_json()) {
        match parse(&with(pointer, Some(value))) {
            Ok(checked) => {
                let spec = checked.spec;
                prop_assert!(spec.memory_mib > 0 && spec.vcpus > 0);
                prop_assert!(spec.shell.starts_with('/') && !spec.boot_args.is_empty());
                prop_assert!(spec.kernel.is_absolute() && !spec.runner_config.machine.is_empty());
                prop_assert!(spec.volumes.iter().all(|v| v.size_mib > 0 && v.mount_point.starts_with('/')));
            }
            Err(error) => prop_assert!(error.problems.iter().all(|p| !p.what.is_empty() && !p.remedy.is_empty())),
        }
    }
}
