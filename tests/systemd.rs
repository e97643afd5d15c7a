//! The units and what they must agree with: the contract's ports, each other, the files that are installed, the configuration.
//! Whether systemd takes them and how hardened they are is `systemd/check`'s to say.

#![expect(clippy::unwrap_used, reason = "a test that can't read its own repository has failed")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use creel::config::{Config, Environment, KEYS};
use creel_proto::names::ports;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A unit's settings in order; comments and sections left out.
struct Unit {
    name: String,
    settings: Vec<(String, String)>,
}

impl Unit {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
        let settings = lines.filter_map(|line| line.split_once('='));
        Self {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }

    fn named(name: &str) -> Self {
        Self::read(&repository().join("systemd").join(name))
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.settings.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    }

    fn one(&self, key: &str) -> &str {
        let [value] = self.all(key)[..] else {
            panic!("{} has {key}= {} times", self.name, self.all(key).len());
        };
        value
    }
}

fn units() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("systemd")).unwrap().map(|entry| entry.unwrap().path());
    let kinds = ["service", "socket", "slice"];
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ending| kinds.iter().any(|kind| ending == *kind)))
        .collect();
    found.sort();
    found
}

#[test]
fn the_vsock_unit_holds_the_contracts_ports() {
    let socket = Unit::named("creeld-vsock.socket");
    let expected = [ports::AGENT, ports::NIX_READ, ports::NIX_UPLOAD, ports::DNS];
    assert_eq!(socket.all("ListenStream"), expected.map(|port| format!("vsock::{port}")));
    assert_eq!(socket.one("Service"), "creeld.service");
}

#[test]
fn creeld_gets_the_sockets_of_both_units_and_is_never_given_up() {
    let service = Unit::named("creeld.service");
    assert_eq!(service.one("Sockets"), "creeld.socket creeld-vsock.socket");
    for name in ["creeld.service", "creel-machines.service"] {
        assert_eq!(Unit::named(name).one("StartLimitIntervalSec"), "0", "{name}");
        assert_eq!(Unit::named(name).one("Restart"), "always", "{name}");
        assert_eq!(Unit::named(name).one("Type"), "notify", "{name}");
        assert_eq!(Unit::named(name).one("OOMPolicy"), "continue", "{name}");
    }
    for name in ["creeld.socket", "creeld-vsock.socket"] {
        assert_eq!(Unit::named(name).one("TriggerLimitIntervalSec"), "0", "{name}");
    }
    assert_eq!(service.one("WatchdogSec"), "30");
}

#[test]
fn the_daemons_memory_is_protected_by_the_slice_as_well() {
    let (slice, service) = (Unit::named("creel.slice"), Unit::named("creeld.service"));
    assert_eq!(slice.one("MemoryMin"), service.one("MemoryMin"));
    for name in ["creeld.service", "creel-machines.service"] {
        assert_eq!(Unit::named(name).one("Slice"), "creel.slice", "{name}");
    }
}

/// What would tie the life of machines to the daemon's, or make launching one impossible (creeld.service says why).
#[test]
fn machines_do_not_depend_on_the_daemons_unit() {
    let daemon = Unit::named("creeld.service");
    for key in ["Requires", "Requisite", "BindsTo", "PartOf", "PropagatesStopTo", "StopPropagatedFrom"] {
        assert!(daemon.all(key).iter().all(|value| !value.contains("creel-machines")), "{key}");
        assert!(Unit::named("creel-machines.service").all(key).is_empty(), "{key}");
    }
    let ties = ["RuntimeDirectory", "StateDirectory", "Delegate"];
    let walls = ["RestrictNamespaces", "ProtectControlGroups", "PrivateDevices", "PrivateUsers"];
    for key in ties.iter().chain(&walls).chain(&["MemoryDenyWriteExecute"]) {
        assert!(daemon.all(key).is_empty(), "{key}");
    }
}

/// Runs `make install-tree` on stand-ins for what is built, and returns where it installed them.
fn install(scratch: &Path, prefix: &str) -> PathBuf {
    let (built, root) = (scratch.join("built"), scratch.join("root"));
    fs::create_dir_all(built.join("release")).unwrap();
    fs::create_dir_all(built.join("kit/bin")).unwrap();
    // It is asked for man pages and completions.
    let creel = concat!("exec ", env!("CARGO_BIN_EXE_creel"), " \"$@\"");
    let programs = [
        ("release/creel", creel),
        ("release/creeld", ""),
        ("kit/bin/creel-agent", ""),
        ("kit/bin/creel-keeper", ""),
    ];
    for (program, script) in programs {
        fs::write(built.join(program), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(built.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let made = Command::new("make")
        .current_dir(repository())
        .env_remove("MAKEFLAGS")
        .args(["--silent", "install-tree", &format!("prefix={prefix}")])
        .arg(format!("target={}", built.display()))
        .arg(format!("DESTDIR={}", root.display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    root
}

#[test]
fn every_path_that_a_unit_names_is_installed_below_any_prefix() {
    for prefix in ["/usr", "/opt/creel"] {
        let scratch = tempfile::tempdir().unwrap();
        let root = install(scratch.path(), prefix);
        let directory = root.join(&prefix[1..]).join("lib/systemd/system");
        for unit in units() {
            let unit = Unit::read(&directory.join(unit.file_name().unwrap()));
            for command in unit.all("ExecStart") {
                let program = command.split_whitespace().next().unwrap();
                assert!(program.starts_with(prefix), "{}: {program}", unit.name);
                let installed = fs::metadata(root.join(&program[1..])).unwrap_or_else(|error| {
                    panic!("{} starts {program}: {error}", unit.name);
                });
                assert_eq!(installed.mode() & 0o111, 0o111, "{program} can be run");
            }
            let page = unit.one("Documentation").strip_prefix("file://").unwrap();
            assert!(root.join(&page[1..]).is_file(), "{} refers to {page}", unit.name);
        }
        let keys = fs::metadata(root.join("etc/creel/keys")).unwrap();
        assert_eq!(keys.mode() & 0o7777, 0o700, "keys are root's alone");
    }
}

#[test]
fn manual_and_completions_are_where_they_are_looked_for() {
    for (prefix, zsh) in [("/usr", "vendor-completions"), ("/usr/local", "site-functions")] {
        let scratch = tempfile::tempdir().unwrap();
        let share = install(scratch.path(), prefix).join(&prefix[1..]).join("share");
        for (file, beginning) in [
            ("man/man1/creel.1.gz", &b"\x1f\x8b\x08\x00\0\0\0\0"[..]),
            ("man/man1/creel-image-build-tiny.1.gz", b"\x1f\x8b"),
            ("man/man8/creeld.8.gz", b"\x1f\x8b"),
            ("bash-completion/completions/creel", b"_creel() {"),
            (&format!("zsh/{zsh}/_creel"), b"#compdef creel"),
            ("fish/vendor_completions.d/creel.fish", b""),
        ] {
            let path = share.join(file);
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
            // Of gzip: without name and time, so that a package has the same bytes each time.
            assert!(bytes.starts_with(beginning), "{file}: {:?}", bytes.get(..16));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644, "{file}");
        }
        let script = "source \"$0\" && complete -p creel";
        let bash = share.join("bash-completion/completions/creel");
        let output = Command::new("bash").args(["-c", script]).arg(bash).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("_creel creel"), "{output:?}");
    }
}

#[test]
fn an_installation_keeps_the_operators_configuration() {
    let scratch = tempfile::tempdir().unwrap();
    let file = install(scratch.path(), "/usr").join("etc/creel/creel.toml");
    fs::write(&file, "[machine]\naccel = \"kvm\"\n").unwrap();
    install(scratch.path(), "/usr");
    assert!(fs::read_to_string(&file).unwrap().contains("kvm"));
}

/// Directories that creeld may write to have to exist, or its unit fails with 226/NAMESPACE.
#[test]
fn writable_directories_come_from_tmpfiles() {
    let tmpfiles = fs::read_to_string(repository().join("systemd/creel.tmpfiles")).unwrap();
    let service = Unit::named("creeld.service");
    let paths = service.all("ReadWritePaths").join(" ");
    let needed: Vec<_> = paths.split_whitespace().filter(|path| !path.starts_with('-')).collect();
    assert_eq!(needed, ["/run/creel", "/var/lib/creel"]);
    for path in needed {
        let made = tmpfiles.lines().any(|line| line.split_whitespace().take(2).eq(["d", path]));
        assert!(made, "{path}");
    }
}

const CONFIGURATION_HEAD: &str = "\
# creel's configuration. All that is commented out is the default; `creel doctor` checks what is set.
# Every key: /usr/share/doc/creel/configuration.md. Keys and certificates: files in /etc/creel/keys.

";

/// Root's defaults, each commented out.
fn default_configuration() -> String {
    let defaults = Config::load(&Environment::of(0, []), Some(Path::new("/dev/null"))).unwrap();
    let lines = defaults.render_toml();
    let commented = lines.lines().map(|line| match line.chars().next() {
        None | Some('#' | '[') => format!("{line}\n"),
        Some(_) => format!("#{line}\n"),
    });
    CONFIGURATION_HEAD.to_owned() + &commented.collect::<String>()
}

#[test]
fn the_packages_configuration_says_the_defaults() {
    let file = repository().join("packaging/creel.toml");
    let expected = default_configuration();
    if std::env::var_os("UPDATE_CREEL_TOML").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        found, expected,
        "packaging/creel.toml is behind the code: UPDATE_CREEL_TOML=1 cargo test --test systemd"
    );
    for key in KEYS {
        assert!(found.contains(key.meaning), "{}.{}", key.section, key.name);
    }
    Config::load(&Environment::of(0, []), Some(&file)).unwrap();
}
