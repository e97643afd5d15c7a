//! Which run is meant: by id, by the beginning of one, by a workflow's name, or the last of all.

use crate::cli::failure::{Failure, with_causes};
use crate::runtime::MachineId;
use crate::state::records::{Listed, Record};
use crate::text::printable;

/// How many near misses are named.
const MOST_NEAR: usize = 3;

/// How alike a near miss is, by Jaro and Winkler.
const NEAR: f64 = 0.75;

/// A run that is remembered.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub id: MachineId,
    /// `None`: it can't be read, for the reason in `damage`.
    pub record: Option<&'a Record>,
    pub damage: Option<String>,
}

/// # Errors
/// When none is meant, or several may be.
pub(super) fn find<'a>(listed: &'a Listed, text: Option<&str>) -> Result<Found<'a>, Failure> {
    let found = |record: &'a Record| Found { id: record.id.clone(), record: Some(record), damage: None };
    let Some(text) = text else {
        return listed.records.last().map(found).ok_or_else(|| {
            Failure::usage("no run is remembered here; `creel run` makes one, `creel ps -a` lists them")
        });
    };
    let is_id = |record: &&Record| {
        record.id.as_str() == text || record.machine.as_ref().is_some_and(|machine| machine.as_str() == text)
    };
    if let Some(record) = listed.records.iter().find(is_id) {
        return Ok(found(record));
    }
    if let Some(damaged) = listed.damaged.iter().find(|damaged| damaged.id.as_str() == text) {
        let damage = Some(with_causes(&damaged.error));
        return Ok(Found { id: damaged.id.clone(), record: None, damage });
    }
    // Before beginnings: those can be made longer, a name can't. A file's ending may be typed along.
    let name = text.strip_suffix(".yml").or_else(|| text.strip_suffix(".yaml")).unwrap_or(text);
    if let Some(record) =
        listed.records.iter().rev().find(|record| record.name == text || record.name == name)
    {
        return Ok(found(record));
    }
    let begins = |record: &&Record| !text.is_empty() && record.id.as_str().starts_with(text);
    let mut beginning = listed.records.iter().filter(begins);
    match (beginning.next(), beginning.next()) {
        (Some(record), None) => Ok(found(record)),
        (Some(_), Some(_)) => {
            let all: Vec<String> = listed.records.iter().filter(begins).map(describe).collect();
            let all = all.join("\n  ");
            Err(Failure::usage(format!("`{}` is the beginning of several runs:\n  {all}", printable(text))))
        }
        (None, _) => Err(unknown(listed, text)),
    }
}

fn unknown(listed: &Listed, text: &str) -> Failure {
    let mut near: Vec<(f64, &Record)> = listed
        .records
        .iter()
        .map(|record| {
            let alike = |other: &str| strsim::jaro_winkler(text, other);
            (alike(record.id.as_str()).max(alike(&record.name)), record)
        })
        .filter(|(alike, _)| *alike > NEAR)
        .collect();
    // The newest of those that are alike first.
    near.reverse();
    near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut named: Vec<&str> = Vec::new();
    near.retain(|(_, record)| {
        let first = !named.contains(&record.name.as_str());
        named.push(&record.name);
        first
    });
    let shown = printable(text);
    if near.is_empty() {
        let all = "`creel ps -a` lists the runs that are";
        return Failure::usage(format!(
            "no run `{shown}` is remembered, nor a run of a workflow `{shown}`; {all}"
        ));
    }
    let near: Vec<String> = near.iter().take(MOST_NEAR).map(|(_, record)| describe(record)).collect();
    let near = near.join("\n  ");
    Failure::usage(format!(
        "no run `{shown}` is remembered, nor a run of a workflow `{shown}`; did you mean\n  {near}"
    ))
}

fn describe(record: &Record) -> String {
    let ended = record.ended_as().unwrap_or_else(|| "running".to_owned());
    format!("{} ({}, {})", record.id, printable(&record.name), printable(&ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Outcome, Tenant, Verdict};
    use crate::state::records::RecordState;

    fn record(id: &str, name: &str) -> Record {
        Record {
            version: 1,
            id: MachineId::parse(id).unwrap(),
            workflow_id: format!("{id}-{name}"),
            tenant: Tenant::local(0),
            name: name.into(),
            engine: "microvm".into(),
            image: "tiny".into(),
            creator_uid: 0,
            state: RecordState::Ended,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            ended_at: None,
            steps: Vec::new(),
            verdict: Some(Verdict::of(Outcome::Exited { code: 3 })),
            setup_error: None,
            machine: None,
            lost: false,
        }
    }

    fn listed() -> Listed {
        let mut remote = record("k3zzzzzzzz", "lint");
        remote.machine = MachineId::parse("mmmmmmmmmm");
        let records = vec![
            record("aaaaaaaaaa", "test"),
            record("k3v9w0x2ma", "test"),
            remote,
            record("yyyyyyyyyy", "w"),
        ];
        Listed { records, damaged: Vec::new() }
    }

    #[test]
    fn a_run_is_found_by_whatever_names_it() {
        let listed = listed();
        let found = |text: Option<&str>| find(&listed, text).unwrap().id.to_string();
        assert_eq!(found(None), "yyyyyyyyyy");
        assert_eq!(found(Some("aaaaaaaaaa")), "aaaaaaaaaa");
        assert_eq!(found(Some("k3v")), "k3v9w0x2ma");
        assert_eq!(found(Some("test")), "k3v9w0x2ma", "the name's last run");
        assert_eq!(found(Some("lint.yml")), "k3zzzzzzzz");
        assert_eq!(found(Some("mmmmmmmmmm")), "k3zzzzzzzz", "its machine's id at a creeld");
    }

    #[test]
    fn what_is_not_found_is_told_with_what_is_near() {
        let listed = listed();
        let told = |text: &str| find(&listed, Some(text)).unwrap_err().to_string();
        insta::assert_snapshot!(
            [told("k3"), told("tset"), told("aaaaaaaaab"), told("qqq"), told("")].join("\n\n"),
            @r"
        `k3` is the beginning of several runs:
          k3v9w0x2ma (test, exited with code 3)
          k3zzzzzzzz (lint, exited with code 3)

        no run `tset` is remembered, nor a run of a workflow `tset`; did you mean
          k3v9w0x2ma (test, exited with code 3)

        no run `aaaaaaaaab` is remembered, nor a run of a workflow `aaaaaaaaab`; did you mean
          aaaaaaaaaa (test, exited with code 3)

        no run `qqq` is remembered, nor a run of a workflow `qqq`; `creel ps -a` lists the runs that are

        no run `` is remembered, nor a run of a workflow ``; `creel ps -a` lists the runs that are
        "
        );
        let none = find(&Listed::default(), None).unwrap_err();
        assert_eq!(none.exit.code(), 2);
        assert!(none.to_string().contains("creel run"), "{none}");
    }
}
