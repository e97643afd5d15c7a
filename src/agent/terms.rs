//! What both sides agreed on, and the times that a connection is held to.

use std::time::Duration;

use creel_proto::agent::Hello;
use creel_proto::names::extensions;

/// The extensions that this side can use, each with those that it stands on.
const OURS: [(&str, &[&str]); 7] = [
    (extensions::OUTPUT_1, &[]),
    (extensions::SOURCE_1, &[]),
    (extensions::SIGNAL_1, &[]),
    (extensions::EXEC_2, &[extensions::OUTPUT_1]),
    (extensions::RESUME_1, &[extensions::OUTPUT_1, extensions::EXEC_2]),
    (extensions::HEARTBEAT_1, &[]),
    (extensions::FILES_1, &[extensions::OUTPUT_1, extensions::EXEC_2]),
];

/// A hostile Hello may name thousands; nobody needs more.
const MAX_EXTENSIONS: usize = 64;

/// What of creel's own is in use between a host and its agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// `creel.output.1`.
    pub extended: bool,
    /// `creel.source.1`.
    pub source_disk: bool,
    /// `creel.signal.1`.
    pub signals: bool,
    /// `creel.exec.2`.
    pub credit: bool,
    /// `creel.resume.1`.
    pub resume: bool,
    /// `creel.heartbeat.1`.
    pub heartbeat: bool,
    /// `creel.files.1`.
    pub files: bool,
}

impl Terms {
    /// What to agree on with whoever says this, and how Init names it.
    pub fn agree(hello: &Hello) -> (Self, Vec<String>) {
        let named = |name: &str| hello.extensions.iter().take(MAX_EXTENSIONS).any(|theirs| theirs == name);
        let agreed =
            |(name, stands_on): &(&str, &[&str])| named(name) && stands_on.iter().all(|one| named(one));
        let names: Vec<String> =
            OURS.iter().filter(|ours| agreed(ours)).map(|(name, _)| (*name).to_owned()).collect();
        (Self::of(&names), names)
    }

    /// Those of an Init that names these extensions.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Self {
        let has = |name: &str| names.iter().any(|extension| extension.as_ref() == name);
        Self {
            extended: has(extensions::OUTPUT_1),
            source_disk: has(extensions::SOURCE_1),
            signals: has(extensions::SIGNAL_1),
            credit: has(extensions::EXEC_2),
            resume: has(extensions::RESUME_1),
            heartbeat: has(extensions::HEARTBEAT_1),
            files: has(extensions::FILES_1),
        }
    }
}

/// How long a connection may be silent, or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The agent is pinged when nothing was heard of it for this long.
    pub ping_after: Duration,
    /// And is gone when nothing is heard for this long after that.
    pub pong_within: Duration,
    /// How long an agent may be away before it is lost.
    pub resume_within: Duration,
    /// What Hello may take of whoever dials later, and then the proof.
    pub newcomer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            ping_after: Duration::from_secs(10),
            pong_within: Duration::from_secs(20),
            resume_within: Duration::from_secs(5),
            newcomer: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(extensions: &[&str]) -> Hello {
        Hello { extensions: extensions.iter().map(ToString::to_string).collect(), ..Hello::default() }
    }

    #[test]
    fn an_extension_is_used_with_those_that_it_stands_on_or_not_at_all() {
        let (terms, names) = Terms::agree(&hello(&["creel.resume.1", "creel.exec.2", "creel.signal.1", "x"]));
        assert_eq!(names, ["creel.signal.1"]);
        assert_eq!(terms, Terms { signals: true, ..Terms::default() });
        let all: Vec<&str> = OURS.iter().map(|(name, _)| *name).collect();
        let (terms, names) = Terms::agree(&hello(&all));
        assert_eq!(names, all);
        assert!(terms.resume && terms.credit && terms.files && terms.heartbeat);
        assert_eq!(Terms::agree(&hello(&[])), (Terms::default(), Vec::new()));
    }
}
