//! Where the packages come from: the machine's own apt sources, as far as they have the suite, or a mirror that was named.
//!
//! No mirror is written into creel: a machine that can install packages knows one that it reaches and trusts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::DebianError;
use crate::image::digest::InputHasher;

const ETC_APT: &str = "/etc/apt";

/// What apt is told about reaching mirrors that is no source: proxies, and whether old indexes will do.
const APT_OPTIONS: [&str; 4] =
    ["Acquire::http::", "Acquire::https::", "Acquire::Check-Valid-Until", "Acquire::Check-Date"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources {
    from: From,
    apt_options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Mirror(String),
    /// The lines of `*.list` files and the stanzas of `*.sources` files, sources.list(5).
    Machine {
        lines: String,
        stanzas: String,
    },
}

impl Sources {
    pub(super) fn choose(mirror: Option<&str>, suite: &str) -> Result<Self, DebianError> {
        let from = match mirror {
            Some(url) => From::Mirror(url.to_owned()),
            None => of_machine(Path::new(ETC_APT), suite)?,
        };
        Ok(Self { from, apt_options: apt_options() })
    }

    pub(super) fn apt_options(&self) -> &[String] {
        &self.apt_options
    }

    /// mmdebstrap's arguments for them; what it reads is written into `directory`.
    pub(super) fn write(&self, directory: &Path) -> Result<Vec<String>, DebianError> {
        let (lines, stanzas) = match &self.from {
            From::Mirror(url) => return Ok(vec![url.clone()]),
            From::Machine { lines, stanzas } => (lines, stanzas),
        };
        let mut arguments = Vec::new();
        for (name, text) in [("machine.list", lines), ("machine.sources", stanzas)] {
            if !text.is_empty() {
                let path = directory.join(name);
                fs::write(&path, text).map_err(unreadable(&path))?;
                arguments.push(path.to_string_lossy().into_owned());
            }
        }
        Ok(arguments)
    }

    pub(super) fn hash(&self, hasher: &mut InputHasher) {
        match &self.from {
            From::Mirror(url) => hasher.part(url.as_bytes()),
            From::Machine { lines, stanzas } => {
                hasher.part(lines.as_bytes());
                hasher.part(stanzas.as_bytes());
            }
        }
    }
}

fn of_machine(etc_apt: &Path, suite: &str) -> Result<From, DebianError> {
    let parts = etc_apt.join("sources.list.d");
    let mut files = vec![etc_apt.join("sources.list")];
    match fs::read_dir(&parts) {
        Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(&parts)(error)),
    }
    files[1..].sort();
    let (mut lines, mut stanzas) = (String::new(), String::new());
    for file in &files {
        let read = |path: &PathBuf| match fs::read_to_string(path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(unreadable(path)(error)),
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => lines.push_str(&matching_lines(&read(file)?, suite)),
            Some("sources") => stanzas.push_str(&matching_stanzas(&read(file)?, suite)),
            // apt itself takes no others.
            _ => {}
        }
    }
    if lines.is_empty() && stanzas.is_empty() {
        return Err(DebianError::NoSource {
            suite: suite.to_owned(),
            looked_in: vec![files[0].clone(), parts],
        });
    }
    Ok(From::Machine { lines, stanzas })
}

/// The suite itself, its updates and its security fixes; not its backports, which nobody gets unasked.
fn belongs(candidate: &str, suite: &str) -> bool {
    matches!(
        candidate.strip_prefix(suite).map(|rest| rest.trim_end_matches('/')),
        Some("" | "-updates" | "-security" | "/updates")
    )
}

/// Of the one-line form, `deb [ option=value ... ] uri suite component ...`, the lines with the suite.
fn matching_lines(text: &str, suite: &str) -> String {
    let of_suite = |line: &&str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])) else {
            return false;
        };
        let rest = rest.trim_start();
        let source = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, source)| source),
            None => rest,
        };
        source.split_whitespace().nth(1).is_some_and(|candidate| belongs(candidate, suite))
    };
    text.lines().filter(of_suite).map(|line| format!("{line}\n")).collect()
}

/// Of the form with stanzas, those with the suite, with no other suite in them.
fn matching_stanzas(text: &str, suite: &str) -> String {
    let mut kept = String::new();
    for stanza in text.split("\n\n") {
        let lines: Vec<&str> = stanza.lines().filter(|line| !line.starts_with('#')).collect();
        let field = |name: &str| {
            lines.iter().find_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.trim_end().eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let suites: Vec<&str> = field("Suites")
            .unwrap_or_default()
            .split_whitespace()
            .filter(|candidate| belongs(candidate, suite))
            .collect();
        let has_binaries =
            field("Types").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"));
        let enabled = !field("Enabled")
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "no" | "false" | "0"));
        if suites.is_empty() || !has_binaries || !enabled {
            continue;
        }
        for line in lines.iter().filter(|line| !line.trim().is_empty()) {
            let name = line.split(':').next().unwrap_or_default().trim_end().to_ascii_lowercase();
            match name.as_str() {
                "suites" => kept.push_str(&format!("Suites: {}\n", suites.join(" "))),
                "types" => kept.push_str("Types: deb\n"),
                _ => kept.push_str(&format!("{line}\n")),
            }
        }
        kept.push('\n');
    }
    kept
}

/// Those of the machine's own settings, as `name "value";`. A machine without apt has none.
fn apt_options() -> Vec<String> {
    let output = Command::new("apt-config").arg("dump").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let wanted =
        |line: &&str| APT_OPTIONS.iter().any(|name| line.starts_with(name)) && !line.ends_with(" \"\";");
    text.lines().filter(wanted).map(str::to_owned).collect()
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> DebianError {
    move |source| DebianError::Sources { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_one_line_form_only_the_suites_binaries_are_taken() {
        let text = "\
# deb http://commented.example.org/debian bookworm main
deb http://mirror.example.org/debian bookworm main contrib # with a remark
deb-src http://mirror.example.org/debian bookworm main
deb [ arch=amd64 signed-by=/usr/share/keyrings/k.gpg ] http://mirror.example.org/debian bookworm-updates main
deb [arch=amd64] http://security.example.org/debian-security bookworm-security main
deb http://mirror.example.org/debian bookworm-backports main
deb http://mirror.example.org/debian trixie main
";
        insta::assert_snapshot!(matching_lines(text, "bookworm"), @r"
        deb http://mirror.example.org/debian bookworm main contrib # with a remark
        deb [ arch=amd64 signed-by=/usr/share/keyrings/k.gpg ] http://mirror.example.org/debian bookworm-updates main
        deb [arch=amd64] http://security.example.org/debian-security bookworm-security main
        ");
        assert_eq!(matching_lines(text, "book"), "", "a part of a name is another name");
    }

    #[test]
    fn of_a_stanza_other_suites_and_sources_are_left_out() {
        let text = "\
Types: deb deb-src
# a remark
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://other.example.org/debian
Suites: trixie
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example.org/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://sources.example.org/debian
Suites: bookworm
Components: main
";
        insta::assert_snapshot!(matching_stanzas(text, "bookworm"), @"
        Types: deb
        URIs: http://mirror.example.org/debian
        Suites: bookworm bookworm-updates
        Components: main
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
        ");
    }

    #[test]
    fn a_machine_without_the_suite_is_told_what_to_do() {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::write(
            directory.path().join("sources.list"),
            "deb http://mirror.example.org/debian trixie main\n",
        )
        .expect("room");
        let error = of_machine(directory.path(), "bookworm").expect_err("no such suite").to_string();
        assert!(error.contains("`bookworm`") && error.contains("--mirror"), "{error}");
        let found = of_machine(directory.path(), "trixie").expect("there");
        let From::Machine { lines, stanzas } = found else { panic!("a machine's sources: {found:?}") };
        assert_eq!((lines.lines().count(), stanzas.as_str()), (1, ""));
    }
}
