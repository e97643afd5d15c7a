//! The packages: what apt would install, and how far it has got.

use std::collections::BTreeSet;

use super::super::error::BuildEvent;

/// Whether it is a package's name (Debian policy 5.6.1), perhaps of one version or architecture.
pub(super) fn check_package(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:=~".contains(c);
    let versioned = |text: &str| text.chars().all(|c| plain(c) || c.is_ascii_uppercase());
    let (package, version) = name.split_once('=').unwrap_or((name, "0"));
    package.len() >= 2
        && package.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && package.chars().all(plain)
        && !version.is_empty()
        && versioned(version)
}

/// The packages of a simulation, sorted, as `name version architecture`. apt says it so:
///
/// ```text
/// Inst libc6 (2.36-9 Debian:12.15/oldstable [amd64]) []
/// ```
pub(super) fn resolved(lines: &[String]) -> Vec<String> {
    let package = |line: &String| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        let inside = rest.split_once('(')?.1.split_once(')')?.0;
        let version = inside.split_whitespace().next()?;
        let architecture = inside.rsplit_once('[')?.1.trim_end_matches(']');
        Some(format!("{name} {version} {architecture}"))
    };
    // Packages appear in more than one of mmdebstrap's steps.
    lines.iter().filter_map(package).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Follows mmdebstrap's words.
#[derive(Debug)]
pub(super) struct Progress {
    total: usize,
    done: BTreeSet<String>,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { total, done: BTreeSet::new() }
    }

    /// What a line means to a person who waits, if anything.
    pub(super) fn line(&mut self, line: &str) -> Option<BuildEvent> {
        if let Some(step) = line.strip_prefix("I: ") {
            return match step.trim_end_matches("...") {
                "downloading packages with apt" => Some(BuildEvent::Fetching),
                "extracting archives" => Some(BuildEvent::Unpacking),
                "installing essential packages" => Some(BuildEvent::Installing { what: "the base system" }),
                "installing remaining packages inside the chroot" => {
                    Some(BuildEvent::Installing { what: "the packages" })
                }
                _ => None,
            };
        }
        let package = line.strip_prefix("Setting up ")?.split_whitespace().next()?;
        self.done.insert(package.to_owned());
        let (done, total) = (self.done.len(), self.total.max(self.done.len()));
        Some(BuildEvent::Package { name: package.to_owned(), done, total })
    }
}
