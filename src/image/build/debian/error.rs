//! What can go wrong between Debian's packages and an image's root, in a person's words and in mmdebstrap's.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    #[error("no apt source of this machine ({}) has the suite `{suite}`; name a mirror with --mirror, or another suite with --suite",
        looked_in.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoSource { suite: String, looked_in: Vec<PathBuf> },
    #[error("failed to read apt's sources in {}: {source}", path.display())]
    Sources { path: PathBuf, source: io::Error },
    #[error("a Debian root can't be made by this user: {missing}; {remedy}, or build the image as root")]
    NotAllowed { missing: String, remedy: &'static str },
    #[error("failed to run mmdebstrap: {0}")]
    NotRun(#[source] io::Error),
    #[error("mmdebstrap failed ({status}): {}; it said:\n{}", trouble.hint(), indented(said))]
    Failed { status: std::process::ExitStatus, trouble: Trouble, said: String },
    #[error("mmdebstrap was still at work after {} minutes and was ended; its last words:\n{}", limit.as_secs() / 60,
        indented(said))]
    TooLong { limit: Duration, said: String },
    #[error("cancelled; nothing was stored")]
    Cancelled,
}

impl DebianError {
    /// Whether another command line would have helped.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Failed { trouble: Trouble::NoPackage(_), .. })
    }
}

/// What mmdebstrap's words mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The suite has no such package.
    NoPackage(String),
    Unreachable,
    NoSuite,
    Untrusted,
    DiskFull,
    Unknown,
}

impl Trouble {
    pub(super) fn of(said: &str) -> Self {
        let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
        if let Some(name) = missing_package(said) {
            Self::NoPackage(name)
        } else if has(&["No space left on device", "enough free space"]) {
            Self::DiskFull
        } else if has(&["NO_PUBKEY", "is not signed", "GPG error", "couldn't be verified"]) {
            Self::Untrusted
        } else if has(&["does not have a Release file"]) {
            Self::NoSuite
        } else if has(&[
            "Could not resolve",
            "Temporary failure resolving",
            "Could not connect",
            "Unable to connect",
            "Connection failed",
            "Connection timed out",
            "Failed to fetch",
            "404  Not Found",
        ]) {
            Self::Unreachable
        } else {
            Self::Unknown
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NoPackage(name) => {
                format!("the suite has no package `{name}` that can be installed; correct --include")
            }
            Self::Unreachable => {
                "a mirror does not give what it is asked for; see to the network or the proxy, try again, or name another \
                 mirror with --mirror".into()
            }
            Self::NoSuite => "a mirror has not got this suite; correct --suite or --mirror".into(),
            Self::Untrusted => {
                "a mirror's signature can't be checked; install the keyring of the suite (debian-archive-keyring)".into()
            }
            Self::DiskFull => "the disk is full; the build takes 1.5 GiB for a while, where the images are".into(),
            Self::Unknown => "its words say why".into(),
        }
    }
}

fn missing_package(said: &str) -> Option<String> {
    let after = |text: &str| said.split_once(text).map(|(_, rest)| rest);
    let name = after("Unable to locate package ")
        .and_then(|rest| rest.split_whitespace().next())
        .or_else(|| {
            after("Package '").filter(|_| said.contains("has no installation candidate"))?.split('\'').next()
        })
        .or_else(|| after("' for '").filter(|rest| rest.contains("was not found"))?.split('\'').next())?;
    Some(name.to_owned())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
