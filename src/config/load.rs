//! File and environment into a [`Config`]. All mistakes are told at once, each with its place and its remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::keys::{KEYS, Key};
use super::places::{Places, PlacesError};
use super::settings::Config;

/// Longer files are refused, whoever names them: `--config /dev/zero` must end.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("failed to read the configuration `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// One line each.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
    #[error(transparent)]
    Places(#[from] PlacesError),
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `<file>:<line>:<column>`, both from 1 and the column in characters, or the name of a variable.
    pub place: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl Config {
    /// Reads `file`, which must exist, or else the user's own file if there is one; then the variables
    /// `CREEL_SECTION__KEY`, which win.
    pub fn load(environment: &Environment, file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Self::defaults();
        let mut problems = Vec::new();
        let own = environment.config_file();
        if let Some(path) = file.or(own.as_deref()) {
            match read(path) {
                Ok(text) => config.apply_file(&path.display().to_string(), &text, &mut problems),
                Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
            }
        }
        config.apply_variables(environment, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        config.places = Places::new(environment, &config.directories)?;
        Ok(config)
    }

    fn apply_file(&mut self, name: &str, text: &str, problems: &mut Vec<Problem>) {
        let mut problem = |offset: usize, message: String| {
            let (line, column) = line_and_column(text, offset);
            problems.push(Problem { place: format!("{name}:{line}:{column}"), message });
        };
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let message = error.message().lines().collect::<Vec<_>>().join("; ");
                return problem(error.span().map_or(0, |span| span.start), message);
            }
        };
        for (section, value) in in_order(&table) {
            let name: &str = section.get_ref();
            let known = KEYS.iter().filter(|key| key.section == name);
            if known.clone().next().is_none() {
                problem(section.span().start, unknown_section(name));
                continue;
            }
            let DeValue::Table(keys) = value.get_ref() else {
                let found = describe(value.get_ref());
                problem(
                    value.span().start,
                    format!("`{name}` is a section: expected `[{name}]`, found {found}"),
                );
                continue;
            };
            for (key, value) in in_order(keys) {
                let Some(known) = known.clone().find(|known| known.name == key.get_ref()) else {
                    problem(key.span().start, unknown_key(name, key.get_ref()));
                    continue;
                };
                let set = match value.get_ref() {
                    DeValue::String(text) => self.set(known, text),
                    other => Err(expected(known, &describe(other))),
                };
                if let Err(message) = set {
                    problem(value.span().start, message);
                }
            }
        }
    }

    fn apply_variables(&mut self, environment: &Environment, problems: &mut Vec<Problem>) {
        for (variable, value) in &environment.creel {
            // Other variables of ours have no section, and other readers.
            let Some((section, name)) =
                variable.strip_prefix("CREEL_").and_then(|name| name.split_once("__"))
            else {
                continue;
            };
            let known = KEYS.iter().find(|key| key.variable() == *variable);
            let set = match (known, value.to_str()) {
                (Some(key), Some(value)) => self.set(key, value),
                (Some(key), None) => Err(expected(key, "bytes that are not UTF-8")),
                (None, _) => Err(unknown_variable(section, name)),
            };
            problems.extend(set.err().map(|message| Problem { place: variable.clone(), message }));
        }
    }

    fn set(&mut self, key: &Key, text: &str) -> Result<(), String> {
        (key.set)(self, text).map_err(|message| format!("`{}.{}`: {message}", key.section, key.name))
    }
}

fn read(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(text)
}

/// The entries as they stand in the file, which is how a reader wants to hear of them.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t toml::Spanned<toml::de::DeString<'i>>, &'t toml::Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn expected(key: &Key, found: &str) -> String {
    format!("`{}.{}`: expected {}, found {found}", key.section, key.name, key.expects)
}

fn unknown_section(name: &str) -> String {
    let hint = suggest(name, KEYS.iter().map(|key| key.section.to_owned()));
    format!("unknown section `{name}`{hint}")
}

fn unknown_key(section: &str, name: &str) -> String {
    let here = KEYS.iter().filter(|key| key.section == section);
    let hint = match closest(name, here.clone().map(|key| key.name.to_owned())) {
        Some(close) => format!("; did you mean `{close}`?"),
        None => {
            // Perhaps it stands in the wrong section.
            match KEYS.iter().find(|key| key.name == name) {
                Some(other) => format!("; did you mean `{name}` of `[{}]`?", other.section),
                None => format!("; known: {}", here.map(|key| key.name).collect::<Vec<_>>().join(", ")),
            }
        }
    };
    format!("unknown key `{name}` in `[{section}]`{hint}")
}

fn unknown_variable(section: &str, name: &str) -> String {
    let hint = suggest(&format!("CREEL_{section}__{name}"), KEYS.iter().map(Key::variable));
    format!("no setting has this variable{hint}")
}

fn suggest(name: &str, known: impl Iterator<Item = String>) -> String {
    closest(name, known).map(|close| format!("; did you mean `{close}`?")).unwrap_or_default()
}

fn closest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let scored =
        known.map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 > 0.8).then_some(best.1)
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => format!("the boolean {truth}"),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
