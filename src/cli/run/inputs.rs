//! Reads the flags of `creel run` that carry values.

use std::path::Path;

use super::bounded::read_text;
use crate::cli::args::{EventArg, RunArgs};
use crate::cli::failure::Failure;
use crate::engine::{GitRef, Secret, Trigger, TriggerKind};
use crate::workflow::source::Repository;

/// A secret file larger than this is most likely the wrong file.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// `K=V` pairs of a repeatable flag.
pub(in crate::cli) fn pairs(flag: &str, values: &[String]) -> Result<Vec<(String, String)>, Failure> {
    values
        .iter()
        .map(|value| match value.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!("`{flag} {value}` is not of the form {flag} NAME=VALUE"))),
        })
        .collect()
}

/// `K` (from this process's environment) or `K=@FILE`. Never `K=VALUE`: argv is everybody's to read.
pub(super) fn secrets(values: &[String]) -> Result<Vec<(String, Secret)>, Failure> {
    values
        .iter()
        .map(|value| match value.split_once('=') {
            None => match std::env::var(value) {
                Ok(secret) => Ok((value.clone(), Secret::new(secret))),
                Err(std::env::VarError::NotPresent) => Err(Failure::usage(format!(
                    "secret `{value}` is not in the environment; export it, or give a file with --secret {value}=@FILE"
                ))),
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err(Failure::usage(format!("secret `{value}` is not UTF-8 text")))
                }
            },
            Some((name, file)) => match file.strip_prefix('@') {
                Some(file) => Ok((name.to_owned(), Secret::new(secret_file(name, Path::new(file))?))),
                None => Err(Failure::usage(format!(
                    "`--secret {name}=…` would show the secret to every user of this machine; \
                     export {name} and say --secret {name}, or give a file with --secret {name}=@FILE"
                ))),
            },
        })
        .collect()
}

fn secret_file(name: &str, path: &Path) -> Result<String, Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::usage(format!("failed to read secret `{name}` from `{}`: {what}", path.display()))
    };
    let text = read_text(path, MAX_SECRET_BYTES).map_err(|error| failed(&error))?;
    // As `$(cat FILE)` has it.
    Ok(text.trim_end_matches('\n').to_owned())
}

/// The trigger that the flags describe.
pub(super) fn trigger(arguments: &RunArgs, repository: Option<&Repository>) -> Result<Trigger, Failure> {
    let inputs = pairs("--input", &arguments.input)?;
    if arguments.event != EventArg::Manual && !inputs.is_empty() {
        return Err(Failure::usage("--input belongs to a manual run; leave --event out".to_owned()));
    }
    trigger_of(arguments.event, arguments.branch.clone(), inputs, repository)
}

/// The trigger of an event on `branch`, or else on the one that is checked out.
pub(in crate::cli) fn trigger_of(
    event: EventArg,
    branch: Option<String>,
    inputs: Vec<(String, String)>,
    repository: Option<&Repository>,
) -> Result<Trigger, Failure> {
    let branch = branch.or_else(|| repository.and_then(|found| found.branch.clone()));
    let needed = |event: &str| {
        Failure::usage(format!("--event {event} needs a branch, and none is checked out: give --branch"))
    };
    Ok(match event {
        EventArg::Manual => {
            let git_ref = branch.as_deref().map(GitRef::parse);
            Trigger { kind: TriggerKind::Manual { git_ref, inputs }, changed_paths: None }
        }
        EventArg::Push => Trigger::push(GitRef::parse(&branch.ok_or_else(|| needed("push"))?)),
        EventArg::PullRequest => Trigger::pull_request(branch.ok_or_else(|| needed("pull_request"))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_s_value_is_not_taken_from_argv() {
        let error = secrets(&["TOKEN=hunter2".into()]).unwrap_err();
        assert!(error.to_string().contains("--secret TOKEN=@FILE"));
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_secret_file_loses_its_last_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let found = secrets(&[format!("KEY=@{}", path.display())]).unwrap();
        assert_eq!((found[0].0.as_str(), found[0].1.expose()), ("KEY", "one\ntwo"));
    }

    #[test]
    fn a_pair_without_a_name_is_refused() {
        assert!(pairs("--env", &["=x".into()]).is_err());
        assert!(pairs("--env", &["x".into()]).is_err());
        assert_eq!(pairs("--env", &["a=b=c".into()]).unwrap(), [("a".to_owned(), "b=c".to_owned())]);
    }
}
