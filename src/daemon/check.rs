//! `creeld --check-config`: what is wrong with the configuration and what to do about it, for people or as JSON.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::life::Origin;
use crate::config::{Config, ConfigError, Place, Problem};
use crate::error::with_causes;
use crate::exit::Exit;

/// Tells, and ends with 0 or 2.
pub(super) fn tell(origin: &Origin, loaded: &Result<Config, ConfigError>, as_json: bool) -> ExitCode {
    let (exit, written) = match loaded {
        _ if as_json => {
            let exit = if loaded.is_ok() { Exit::Success } else { Exit::Usage };
            (exit, writeln!(io::stdout(), "{:#}", report(origin, loaded)))
        }
        Ok(_) => (Exit::Success, io::stdout().write_all(good(origin).as_bytes())),
        Err(error) => (Exit::Usage, io::stderr().write_all(bad(error).as_bytes())),
    };
    match written {
        // A reader that has gone knows enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::Broken.into(),
        _ => exit.into(),
    }
}

/// What was read, in the order in which it counts.
fn good(origin: &Origin) -> String {
    let mut text = match (origin.found(), origin.environment.config_file()) {
        (Some(file), _) => format!("{}: ok\n", file.display()),
        (None, Some(file)) => format!("ok: there is no {}, defaults are in force\n", file.display()),
        (None, None) => "ok: HOME is not set, so there is no file, and defaults are in force\n".to_owned(),
    };
    for variable in variables(origin) {
        text += &format!("{variable}: ok\n");
    }
    text
}

fn bad(error: &ConfigError) -> String {
    match error {
        ConfigError::Invalid(problems) => problems.iter().map(Problem::with_line).collect(),
        other => format!("{}\n", with_causes(other)),
    }
}

/// `file` is null where there is none; a problem has `file`, `line`, `column` and `text`, or `variable`, or neither.
fn report(origin: &Origin, loaded: &Result<Config, ConfigError>) -> Value {
    let problems: Vec<Value> = match loaded {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid(problems)) => problems.iter().map(problem).collect(),
        Err(other) => vec![json!({ "message": with_causes(other) })],
    };
    json!({
        "ok": loaded.is_ok(),
        "file": origin.found().map(|file| file.display().to_string()),
        "variables": variables(origin),
        "problems": problems,
    })
}

fn problem(problem: &Problem) -> Value {
    let message = &problem.message;
    match &problem.place {
        Place::Line { file, line, column, text, .. } => {
            json!({ "file": file, "line": line, "column": column, "text": text, "message": message })
        }
        Place::Variable(name) => json!({ "variable": name, "message": message }),
    }
}

/// Those that set a key. Others of ours have no section.
fn variables(origin: &Origin) -> Vec<&str> {
    let names = origin.environment.creel.keys().map(String::as_str);
    names.filter(|name| name.contains("__")).collect()
}
