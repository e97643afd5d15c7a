use std::collections::BTreeMap;
use std::io::Read as _;

use super::error::Trouble;
use super::*;
use crate::image::testing::kit_in;

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_packages_of_a_simulation_are_listed_once_with_their_versions() {
    let said = lines(
        "\
I: simulate installing remaining packages inside the chroot...
Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64]) []
Conf libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
Inst adduser (3.134 Debian:12.15/oldstable [all])
Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
Inst upgraded [1.0-1] (1.0-2 Debian-Security:12/oldstable-security [amd64])
",
    );
    assert_eq!(resolved(&said), ["adduser 3.134 all", "libc6 2.36-9+deb12u14 amd64", "upgraded 1.0-2 amd64"]);
}

#[test]
fn progress_counts_packages_and_never_beyond_their_number() {
    let mut progress = Progress::new(1);
    let mut shown = Vec::new();
    for line in [
        "I: automatically chosen mode: root",
        "I: downloading packages with apt...",
        "Get:1 http://mirror.example.org/debian bookworm/main amd64 make amd64 4.3-4.1 [396 kB]",
        "I: installing remaining packages inside the chroot...",
        "Setting up libc6:amd64 (2.36-9+deb12u14) ...",
        "Setting up make (4.3-4.1) ...",
        "Setting up make (4.3-4.1) ...",
    ] {
        shown.extend(progress.line(line).map(|event| event.to_string()));
    }
    assert_eq!(
        shown,
        ["fetching packages", "installing the packages", "1/1 libc6:amd64", "2/2 make", "2/2 make"]
    );
}

#[test]
fn what_mmdebstrap_says_is_told_in_a_persons_words() {
    let trouble = |said: &str| Trouble::of(said);
    assert_eq!(
        trouble("E: Unable to locate package nodejss\nE: mmdebstrap failed to run"),
        Trouble::NoPackage("nodejss".to_owned())
    );
    assert_eq!(
        trouble("E: Package 'telnet' has no installation candidate"),
        Trouble::NoPackage("telnet".to_owned())
    );
    assert_eq!(trouble("E: Version '9.9' for 'make' was not found"), Trouble::NoPackage("make".to_owned()));
    assert_eq!(
        trouble("E: Failed to fetch http://m.example.org/InRelease  Could not resolve 'm.example.org'"),
        Trouble::Unreachable
    );
    assert_eq!(
        trouble("E: The repository 'http://m.example.org nosuch Release' does not have a Release file."),
        Trouble::NoSuite
    );
    assert_eq!(
        trouble("W: GPG error: http://m.example.org bookworm InRelease: NO_PUBKEY 0E98404D386FA1D9"),
        Trouble::Untrusted
    );
    assert_eq!(trouble("dpkg: error: failed to write: No space left on device"), Trouble::DiskFull);
    assert_eq!(trouble("E: something new"), Trouble::Unknown);
}

#[test]
fn only_names_of_packages_are_handed_on() {
    for name in ["g++", "libstdc++6", "python3.11-venv", "libc6:amd64", "make=4.3-4.1", "xz=1:2.0~RC+b1"] {
        assert!(check_package(name), "{name}");
    }
    for name in
        ["", "a", "-o", "--option", "Make", "a b", "a,b", "a$(id)", "a;b", "make=", "./x.deb", "?essential"]
    {
        assert!(!check_package(name), "{name}");
    }
}

#[test]
fn the_order_of_packages_makes_no_difference() {
    let with = |packages: &[&str]| DebianOptions {
        packages: packages.iter().map(|package| (*package).to_owned()).collect(),
        minimal: true,
        ..DebianOptions::default()
    };
    assert_eq!(with(&["zip", "bash", "ant", "zip"]).all_packages(), ["ant", "bash", "zip"]);
}

#[tokio::test]
async fn bad_options_are_named_before_anything_is_made() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(&directory.path().join("kit"));
    let images = directory.path().join("images");
    let store = ImageStore::new(vec![images.clone()]);
    let base = DebianOptions::default;
    let mut errors = Vec::new();
    for options in [
        DebianOptions { memory_mib: 1, ..base() },
        DebianOptions { vcpus: 0, ..base() },
        DebianOptions { volume_size_mib: 0, ..base() },
        DebianOptions { suite: "-bookworm".to_owned(), ..base() },
        DebianOptions { mirror: Some("mirror.example.org".to_owned()), ..base() },
        DebianOptions { packages: vec!["make".to_owned(), "--simulate".to_owned()], ..base() },
        DebianOptions { name: "a/b".to_owned(), ..base() },
    ] {
        let built = build_debian(&kit, &store, &options, &CancellationToken::new(), &mut drop).await;
        errors.push(built.expect_err("refused").to_string());
    }
    insta::assert_snapshot!(errors.join("\n"), @"
    no image can be built: option `memory_mib` is `1`; give it at least 64
    no image can be built: option `vcpus` is `0`; give it at least 1
    no image can be built: option `volume_size_mib` is `0`; give it 8 to 16777216
    no image can be built: option `suite` is `-bookworm`; write a release's code name such as `bookworm`
    no image can be built: option `mirror` is `mirror.example.org`; write a URL
    no image can be built: option `include` is `--simulate`; write a package's name
    `a/b` is not an image name: it contains a slash; use a plain name such as `tiny`
    ");
    assert!(!images.exists());
}

#[test]
fn the_files_of_our_own_are_the_same_bytes_each_time_and_belong_to_root() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let kit = kit_in(directory.path());
    let archive = root::overlay(&kit.agent).expect("packed");
    assert_eq!(archive, root::overlay(&kit.agent).expect("packed"));
    let mut found = BTreeMap::new();
    let mut reader = tar::Archive::new(archive.as_slice());
    for entry in reader.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let header = entry.header();
        let owner =
            (header.uid().expect("an id"), header.mode().expect("a mode"), header.mtime().expect("a time"));
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("text");
        found.insert(path, (owner, content));
    }
    assert_eq!(found["workspace/"].0, (970, 0o755, 0));
    assert_eq!(found["usr/lib/creel/creel-agent"], ((0, 0o755, 0), "agent".to_owned()));
    assert!(found["etc/profile"].1.contains("${PATH:-"), "a step's PATH is kept");
    assert_eq!(found["etc/machine-id"].1, "", "each machine is another");
}
