//! File and environment into a [`Config`]. All mistakes are told at once, each with its place and its remedy.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::keys::{KEYS, Key, Kind};
use super::places::{Places, PlacesError};
use super::problem::{Place, Problem};
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
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut syntax: Vec<_> = errors.iter().map(|error| of_the_parser(error, text)).collect();
        let mut others = Vec::new();
        self.apply_table(table.get_ref(), &mut others);

        // What does not parse is told once a line, and nothing of what follows from it: the rest of that line, and the keys
        // below a header that names no section.
        let line = |span: &Range<usize>| text.get(..span.start).unwrap_or(text).matches('\n').count();
        syntax.sort_by_key(|(span, _)| span.start);
        syntax.dedup_by_key(|(span, _)| line(span));
        let broken: Vec<usize> = syntax.iter().map(|(span, _)| line(span)).collect();
        let lines: Vec<&str> = text.lines().collect();
        let header =
            |of: usize| (0..=of).rev().find(|at| lines.get(*at).is_some_and(|line| line.starts_with('[')));
        others.retain(|(span, _)| {
            let line = line(span);
            !broken.contains(&line) && !header(line).is_some_and(|header| broken.contains(&header))
        });

        syntax.append(&mut others);
        syntax.sort_by_key(|(span, _)| span.start);
        let placed = |(span, message)| Problem { place: Place::of(name, text, span), message };
        problems.extend(syntax.into_iter().map(placed));
    }

    fn apply_table(&mut self, table: &DeTable<'_>, problems: &mut Vec<(Range<usize>, String)>) {
        let mut problem = |span: Range<usize>, message: String| problems.push((span, message));
        for (section, value) in in_order(table) {
            let name: &str = section.get_ref();
            let known = KEYS.iter().filter(|key| key.section == name);
            if known.clone().next().is_none() {
                problem(section.span(), unknown_section(name, value.get_ref()));
                continue;
            }
            let DeValue::Table(keys) = value.get_ref() else {
                let found = describe(value.get_ref());
                problem(value.span(), format!("`{name}` is a section: expected `[{name}]`, found {found}"));
                continue;
            };
            for (key, value) in in_order(keys) {
                let Some(known) = known.clone().find(|known| known.name == key.get_ref()) else {
                    problem(key.span(), unknown_key(name, key.get_ref()));
                    continue;
                };
                let set = match value.get_ref() {
                    DeValue::String(text) if known.kind == Kind::Text => self.set(known, text),
                    DeValue::Integer(number) if known.kind == Kind::Integer => {
                        self.set(known, &number.to_string())
                    }
                    DeValue::Boolean(truth) if known.kind == Kind::Boolean => {
                        self.set(known, &truth.to_string())
                    }
                    DeValue::String(text) if (known.set)(&mut self.clone(), text).is_ok() => {
                        let hint = "; leave the quotes out";
                        Err(expected(known, &describe(value.get_ref())) + hint)
                    }
                    other => Err(expected(known, &describe(other))),
                };
                if let Err(message) = set {
                    problem(value.span(), message);
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
            problems.extend(
                set.err().map(|message| Problem { place: Place::Variable(variable.clone()), message }),
            );
        }
    }

    fn set(&mut self, key: &Key, text: &str) -> Result<(), String> {
        (key.set)(self, text).map_err(|message| {
            let choice = choices(key).and_then(|choices| closest(text, choices.into_iter()));
            let hint = choice.map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
            format!("`{}.{}`: {message}{hint}", key.section, key.name)
        })
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

/// A mistake of syntax, with a remedy where the parser has none.
fn of_the_parser(error: &toml::de::Error, text: &str) -> (Range<usize>, String) {
    let span = error.span().unwrap_or(0..0);
    let found = text.get(span.clone()).unwrap_or_default().trim();
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    let message = match message.as_str() {
        "duplicate key" if text.get(..span.start).is_some_and(|before| before.ends_with('[')) => {
            format!("there is a section `[{found}]` above already; move these keys to it")
        }
        "duplicate key" => format!("`{found}` is set above already; keep one of the two"),
        unquoted if unquoted.starts_with("string values must be quoted") => match found {
            "" => "there is no value after `=`; write one, or take the line out".to_owned(),
            _ => format!("`{found}` is no value; a text is quoted, as in `\"{found}\"`"),
        },
        _ if found == ":" => "a key and its value have `=` between them, not `:`".to_owned(),
        _ => message,
    };
    (span, message)
}

fn unknown_section(name: &str, value: &DeValue<'_>) -> String {
    let is_table = matches!(value, DeValue::Table(_));
    if let Some(key) = KEYS.iter().find(|key| key.name == name).filter(|_| !is_table) {
        return format!("`{name}` stands in no section; did you mean `{name}` of `[{}]`?", key.section);
    }
    let mut sections: Vec<_> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    let hint = match closest(name, sections.iter().map(ToString::to_string)) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("known: {}", sections.join(", ")),
    };
    format!("unknown section `{name}`; {hint}")
}

/// The values of a key that has few: `"auto", "kvm" or "tcg"`.
fn choices(key: &Key) -> Option<Vec<String>> {
    let few = key.expects.starts_with('"');
    few.then(|| key.expects.split('"').skip(1).step_by(2).map(str::to_owned).collect())
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
    // What all have in common is no likeness.
    let known = KEYS.iter().map(|key| format!("{}__{}", key.section, key.name));
    let hint = match closest(&format!("{section}__{name}"), known) {
        Some(close) => format!("did you mean `CREEL_{}`?", close.to_uppercase()),
        None => "unset it; `creeld --print-config` has all sections and keys".to_owned(),
    };
    format!("no setting has this variable; {hint}")
}

fn closest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let scored =
        known.map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known));
    let (likeness, best) = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    // Of three letters, a wrong one is a third.
    (likeness > 0.8 || strsim::osa_distance(name, &best) == 1).then_some(best)
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
