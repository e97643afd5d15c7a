//! Values for what watches creeld: its log and its metrics.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// What is logged, in the syntax of tracing's `EnvFilter`. It has been parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// HTTP/2's own library warns of whatever a peer does wrong, and any local user is a peer: a full journal otherwise.
    const DEFAULT: &str = "creel=info,warn,h2=off,hyper=off,tonic=error";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match EnvFilter::try_new(text) {
            Ok(_) if text.trim().is_empty() => Err("it is empty; `off` logs nothing".to_owned()),
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("`{text}` is no filter: {error}")),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `Journal` where stderr leads to the journal, else `Text`.
    #[default]
    Auto,
    /// Lines for people, on stderr.
    Text,
    /// An object a line, on stderr.
    Json,
    /// Entries with fields, in journald's own protocol.
    Journal,
}

impl LogFormat {
    const NAMES: [(Self, &str); 4] =
        [(Self::Auto, "auto"), (Self::Text, "text"), (Self::Json, "json"), (Self::Journal, "journal")];
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found
            .map(|(format, _)| *format)
            .ok_or_else(|| format!("`{text}` is none of `auto`, `text`, `json`, `journal`"))
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(format, _)| format == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MetricsAddress {
    #[default]
    Off,
    /// An address of this host's loopback, with a port.
    Loopback(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

const UNIX: &str = "unix:";

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix(UNIX) {
            return match PathBuf::from(path) {
                path if path.is_absolute() => Ok(Self::Unix(path)),
                _ => Err(format!("`{path}` is not an absolute path")),
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("`{text}` is neither `unix:/PATH` nor an address with a port, such as `127.0.0.1:9824`")
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "`{}` is not a loopback address: metrics have no password and are not encrypted, so creeld shows them to \
                 this host alone; take 127.0.0.1 or [::1], and a proxy for other hosts",
                address.ip()
            ));
        }
        if address.port() == 0 {
            return Err("a scraper has to know the port: it can't be 0".to_owned());
        }
        Ok(Self::Loopback(address))
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => Ok(()),
            Self::Loopback(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_for_this_host_alone() {
        for text in ["", "127.0.0.1:9824", "127.1.2.3:1", "[::1]:9824", "unix:/run/creel/metrics.sock"] {
            assert_eq!(text.parse::<MetricsAddress>().unwrap().to_string(), text);
        }
        let table = [
            ("0.0.0.0:9824", "not a loopback address"),
            ("[::]:9824", "not a loopback address"),
            ("192.0.2.1:9824", "a proxy for other hosts"),
            // An IPv4 address in IPv6's clothes is another host's, too.
            ("[::ffff:192.0.2.1]:1", "not a loopback address"),
            ("127.0.0.1:0", "can't be 0"),
            ("127.0.0.1", "an address with a port"),
            ("localhost:9824", "an address with a port"),
            ("unix:metrics.sock", "not an absolute path"),
            ("/run/creel/metrics.sock", "neither `unix:/PATH`"),
        ];
        for (text, expected) in table {
            let error = text.parse::<MetricsAddress>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_filter_that_tracing_does_not_take_is_refused() {
        for text in ["info", "creel=debug,warn", "off", LogFilter::DEFAULT] {
            assert_eq!(text.parse::<LogFilter>().unwrap().as_str(), text);
        }
        for text in ["creel=loud", "", " "] {
            assert!(text.parse::<LogFilter>().is_err(), "{text:?}");
        }
    }
}
