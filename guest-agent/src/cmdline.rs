//! The kernel command line, as far as the agent reads it.
//!
//! Words are split as the kernel splits them (`next_arg` in lib/cmdline.c): at spaces, except within
//! double quotes. Of a name given twice the last one counts. Values are checked when they are asked for,
//! so a service in somebody's image never trips over words that only concern PID 1.

use std::path::{Component, Path, PathBuf};

/// The file system of the store disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreType {
    Erofs,
    Squashfs,
    Ext4,
}

impl StoreType {
    /// As in mount(2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Squashfs => "squashfs",
            Self::Ext4 => "ext4",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    #[error("kernel command line says `shuttle.vsock_port={0}`; a port is a number below 2^32 - 1")]
    Port(String),
    #[error("kernel command line says `creel.root={0}`; known are erofs, squashfs and ext4")]
    Root(String),
    #[error("kernel command line names `{path}` in `{key}`; an absolute path without `..` is needed")]
    Path { key: &'static str, path: String },
    #[error("kernel command line says `creel.hostname={0}`; a host name has 1 to 64 bytes")]
    Hostname(String),
}

/// A parsed /proc/cmdline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cmdline {
    words: Vec<(String, String)>,
}

impl Cmdline {
    pub fn parse(line: &str) -> Self {
        Self { words: split_words(line).into_iter().filter_map(|word| name_and_value(&word)).collect() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.words.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `shuttle.vsock_port=`: where the host listens.
    pub fn vsock_port(&self) -> Result<Option<u32>, CmdlineError> {
        let Some(value) = self.get("shuttle.vsock_port") else { return Ok(None) };
        match value.parse() {
            Ok(port) if port != u32::MAX => Ok(Some(port)),
            _ => Err(CmdlineError::Port(value.to_owned())),
        }
    }

    /// `creel.root=`: the store disk's file system. Absent: the initramfs is the root.
    pub fn root(&self) -> Result<Option<StoreType>, CmdlineError> {
        match self.get("creel.root") {
            None => Ok(None),
            Some("erofs") => Ok(Some(StoreType::Erofs)),
            Some("squashfs") => Ok(Some(StoreType::Squashfs)),
            Some("ext4") => Ok(Some(StoreType::Ext4)),
            Some(other) => Err(CmdlineError::Root(other.to_owned())),
        }
    }

    /// `creel.volumes=/a,/b`: the mount points of volume 0, 1, ...
    pub fn volumes(&self) -> Result<Vec<PathBuf>, CmdlineError> {
        self.get("creel.volumes")
            .unwrap_or_default()
            .split(',')
            .filter(|path| !path.is_empty())
            .map(|path| plain_path("creel.volumes", path))
            .collect()
    }

    /// `creel.init=`: the image's own init, which is to become PID 1.
    pub fn init(&self) -> Result<Option<PathBuf>, CmdlineError> {
        self.get("creel.init").map(|path| plain_path("creel.init", path)).transpose()
    }

    /// `creel.hostname=`.
    pub fn hostname(&self) -> Result<Option<&str>, CmdlineError> {
        match self.get("creel.hostname") {
            Some(name) if name.is_empty() || name.len() > 64 => Err(CmdlineError::Hostname(name.to_owned())),
            name => Ok(name),
        }
    }
}

fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in line.chars() {
        if character == '"' {
            quoted = !quoted;
        }
        if character.is_ascii_whitespace() && !quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(character);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The kernel drops quotes around a value and around a whole word, and no others.
fn name_and_value(word: &str) -> Option<(String, String)> {
    let unquoted = |text: &str| match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').unwrap_or(rest).to_owned(),
        None => text.to_owned(),
    };
    let (name, value) = match word.strip_prefix('"') {
        Some(_) => unquoted(word).split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))?,
        None => word.split_once('=').map(|(name, value)| (name.to_owned(), unquoted(value)))?,
    };
    Some((name, value))
}

fn plain_path(key: &'static str, text: &str) -> Result<PathBuf, CmdlineError> {
    let path = Path::new(text);
    let below_root = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if path.is_absolute() && below_root && path != Path::new("/") {
        Ok(path.to_owned())
    } else {
        Err(CmdlineError::Path { key, path: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_line() {
        let line = Cmdline::parse(
            "console=ttyS0 quiet reboot=t shuttle.vsock_port=824 creel.root=erofs \
             creel.volumes=/workspace,/var/lib creel.hostname=knot creel.init=/sbin/init\n",
        );
        assert_eq!(line.vsock_port(), Ok(Some(824)));
        assert_eq!(line.root(), Ok(Some(StoreType::Erofs)));
        assert_eq!(line.volumes(), Ok(vec!["/workspace".into(), "/var/lib".into()]));
        assert_eq!(line.hostname(), Ok(Some("knot")));
        assert_eq!(line.init(), Ok(Some("/sbin/init".into())));
    }

    #[test]
    fn absent_words_have_no_value() {
        let line = Cmdline::parse("quiet");
        assert_eq!(line, Cmdline::default());
        assert_eq!(line.vsock_port(), Ok(None));
        assert_eq!(line.root(), Ok(None));
        assert_eq!(line.volumes(), Ok(vec![]));
        assert_eq!(line.hostname(), Ok(None));
        assert_eq!(line.init(), Ok(None));
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let line = Cmdline::parse("shuttle.vsock_port=1 shuttle.vsock_port=2");
        assert_eq!(line.vsock_port(), Ok(Some(2)));
    }

    #[test]
    fn quotes_keep_spaces_together() {
        let line =
            Cmdline::parse(r#"dyndbg="file a.c +p" "creel.hostname=two words" a="shuttle.vsock_port=7""#);
        assert_eq!(line.hostname(), Ok(Some("two words")));
        assert_eq!(line.vsock_port(), Ok(None));
    }

    #[test]
    fn wrong_values_are_errors_that_name_them() {
        let error = |line: &str| Cmdline::parse(line);
        assert_eq!(error("creel.root=xfs").root(), Err(CmdlineError::Root("xfs".into())));
        for port in ["", "x", "-1", "4294967295", "4294967296"] {
            let line = format!("shuttle.vsock_port={port}");
            assert_eq!(error(&line).vsock_port(), Err(CmdlineError::Port(port.into())));
        }
        for path in ["workspace", "/", "/a/../b", "//"] {
            let line = format!("creel.volumes={path}");
            assert!(error(&line).volumes().is_err_and(|error| error.to_string().contains(path)), "{path}");
        }
        assert!(error("creel.hostname=").hostname().is_err());
    }

    proptest! {
        #[test]
        fn any_line_parses(line in any::<String>()) {
            let parsed = Cmdline::parse(&line);
            let _ = (parsed.vsock_port(), parsed.root(), parsed.volumes(), parsed.init(), parsed.hostname());
        }

        #[test]
        fn words_are_found_among_others(
            before in proptest::collection::vec("[a-z.]{1,8}(=[a-z0-9,/]{0,8})?", 0..6),
            after in proptest::collection::vec("[a-z.]{1,8}(=[a-z0-9,/]{0,8})?", 0..6),
            space in "[ \t\n]{1,3}",
            port in 0..u32::MAX,
        ) {
            let word = format!("shuttle.vsock_port={port}");
            let words: Vec<_> = before.into_iter().chain([word]).chain(after).collect();
            prop_assert_eq!(Cmdline::parse(&words.join(&space)).vsock_port(), Ok(Some(port)));
        }
    }
}
