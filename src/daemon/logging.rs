//! The log: what of it, in which form, and where to.
//!
//! - `record`: one event with the fields of the spans around it, which all forms are written from;
//! - `text`: for people, on stderr; for journald's stream, which has the time itself, each line with its level;
//! - `json`: an object a line, on stderr;
//! - `journal`: journald's own protocol, where every field is one of the entry's.
//!
//! Ids of workflows and tenants, and whatever a guest or peer says, are others' text: in no form can they begin a line, a
//! field or an escape sequence of their own.

mod journal;
mod json;
mod record;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tracing::{Level, warn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use self::journal::Journal;
use self::json::Json;
use self::record::{Output, Recorder};
use self::text::Text;
use crate::config::{Config, ConfigError, LogFilter, LogFormat};

const FILTER_VARIABLE: &str = "CREEL_LOG";

/// Of -v and -vv.
const VERBOSE: [&str; 2] = ["creel=debug,info,h2=off,hyper=off,tonic=error", "trace"];

/// The log of this process.
#[derive(Debug)]
pub(super) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    verbose: u8,
}

/// Starts the log as `config` has it, or with the defaults where that could not be read. What is logged: as the variable
/// `CREEL_LOG` says, else -v, else `daemon.log`.
pub(super) fn init(verbose: u8, config: Option<&Config>) -> Log {
    let (filter, bad) = filter(verbose, config);
    let (filter, handle) = reload::Layer::new(filter);
    let format = config.map(|config| config.daemon.log_format).unwrap_or_default();
    let (output, missing) = output(format);
    tracing_subscriber::registry().with(filter).with(Recorder::new(output)).init();
    for problem in [bad, missing].into_iter().flatten() {
        warn!("{problem}");
    }
    Log { filter: handle, verbose }
}

impl Log {
    /// Takes the filter of a new configuration. The form stays until creeld starts again.
    pub(super) fn reload(&self, config: &Config) {
        let (filter, bad) = filter(self.verbose, Some(config));
        if let Err(error) = self.filter.reload(filter) {
            warn!(%error, "the log's filter stays as it is");
        }
        if let Some(problem) = bad {
            warn!("{problem}");
        }
    }
}

/// What is logged, and what was wrong with what was asked for.
fn filter(verbose: u8, config: Option<&Config>) -> (EnvFilter, Option<String>) {
    let configured = config.map(|config| config.daemon.log.clone()).unwrap_or_default();
    let default = match verbose {
        0 => configured.as_str(),
        1 => VERBOSE[0],
        _ => VERBOSE[1],
    };
    let Ok(wanted) = std::env::var(FILTER_VARIABLE) else { return (EnvFilter::new(default), None) };
    match wanted.parse::<LogFilter>() {
        Ok(wanted) => (EnvFilter::new(wanted.as_str()), None),
        Err(why) => (EnvFilter::new(default), Some(format!("{FILTER_VARIABLE} {why}; using `{default}`"))),
    }
}

/// The form asked for, or text and why.
fn output(format: LogFormat) -> (Box<dyn Output>, Option<String>) {
    let streams_to_journal = stderr_is_journal();
    let text = if streams_to_journal {
        Text::for_journal()
    } else {
        Text::for_people(
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        )
    };
    match format {
        LogFormat::Journal => match Journal::open(Path::new(journal::SOCKET), text) {
            Ok(journal) => (Box::new(journal), None),
            Err(error) => {
                let why = format!(
                    "`daemon.log_format` is `journal`, but `{}`: {error}; logging text",
                    journal::SOCKET
                );
                (Box::new(text), Some(why))
            }
        },
        LogFormat::Auto if streams_to_journal => match Journal::open(Path::new(journal::SOCKET), text) {
            Ok(journal) => (Box::new(journal), None),
            Err(_) => (Box::new(text), None),
        },
        LogFormat::Auto | LogFormat::Text => (Box::new(text), None),
        LogFormat::Json => (Box::new(Json::new(streams_to_journal)), None),
    }
}

/// One line each: that is how an operator finds them.
pub(super) fn each_problem(error: &ConfigError, mut tell: impl FnMut(&str)) {
    match error {
        ConfigError::Invalid(problems) => problems.iter().for_each(|problem| tell(&problem.to_string())),
        other => tell(&crate::error::with_causes(other)),
    }
}

/// `JOURNAL_STREAM` names the device and inode of the socket that systemd connected, and is inherited by processes whose
/// stderr has gone elsewhere since (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    named == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// syslog(3)'s numbers.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// All of it in one write, so that lines of several threads stay whole. There is nowhere to say that it failed.
fn write_to_stderr(lines: &[u8]) {
    let _ = io::Write::write_all(&mut io::stderr().lock(), lines);
}
