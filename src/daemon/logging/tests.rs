//! The forms of the log, and what others' text can't do in them.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tracing::{debug, error, info, warn};
use tracing_subscriber::layer::SubscriberExt as _;

use super::journal::Journal;
use super::record::{Output, Record, Recorder};
use super::*;
use crate::runtime::{MachineId, SetupRequest, Tenant};
use crate::spans;

/// What an event comes to in each form.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    people: String,
    stream: String,
    json: String,
    entry: Vec<u8>,
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Written>>>);

impl Output for Capture {
    fn write(&self, record: &Record<'_>) {
        self.0.lock().unwrap().push(Written {
            people: Text::for_people(false).lines(record),
            stream: Text::for_journal().lines(record),
            json: String::from_utf8(Json::new(false).line(record)).unwrap(),
            entry: journal::entry(record),
        });
    }
}

fn written(act: impl FnOnce()) -> Vec<Written> {
    let capture = Capture::default();
    tracing::subscriber::with_default(
        tracing_subscriber::registry().with(Recorder::new(capture.clone())),
        act,
    );
    capture.0.lock().unwrap().clone()
}

/// Reads an entry as journald does.
fn fields_of(mut entry: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let name = String::from_utf8(entry[..end].to_vec()).unwrap();
        let valid = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(valid) && !name.starts_with('_') && name.len() <= 64, "{name}");
        let (length, rest) = entry[end + 1..].split_first_chunk::<8>().unwrap();
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        fields.push((name, String::from_utf8(rest[..length].to_vec()).unwrap()));
        assert_eq!(rest[length], b'\n');
        entry = &rest[length + 1..];
    }
    fields
}

fn request(workflow_id: &str, owner: &str) -> SetupRequest {
    SetupRequest {
        id: MachineId::parse("0123456789").unwrap(),
        tenant: Tenant { owner: owner.to_owned(), repo_did: "did:plc:repo".to_owned() },
        workflow_id: workflow_id.to_owned(),
        image: "tiny".into(),
        work_dir: "/workspace".into(),
        source: None,
        labels: BTreeMap::new(),
        architecture: None,
        memory_mib: None,
        vcpus: None,
        memory_limit_mib: None,
        batch: Vec::new(),
        deadline: None,
        ledger: None,
    }
}

#[test]
fn every_form_has_the_ids_of_machine_workflow_tenant_and_user() {
    let all = written(|| {
        let _inside = spans::owned_machine(&request("ci/test", "did:plc:owner"), 1000).entered();
        info!(verdict = "timed out", took_ms = 12, "the machine has ended");
    });
    let [one] = &all[..] else { panic!("{all:?}") };
    let ids = "machine=0123456789 workflow=ci/test tenant=did:plc:owner/did:plc:repo uid=1000";
    let text = format!("machine{{{ids}}}: the machine has ended verdict=\"timed out\" took_ms=12");
    assert_eq!(one.stream, format!("<6>{text}\n"));
    assert!(one.people.ends_with(&format!("Z  INFO {text}\n")), "{}", one.people);

    let json: serde_json::Value = serde_json::from_str(&one.json).unwrap();
    for (name, value) in [
        ("level", "info"),
        ("message", "the machine has ended"),
        ("machine", "0123456789"),
        ("workflow", "ci/test"),
        ("tenant", "did:plc:owner/did:plc:repo"),
        ("verdict", "timed out"),
    ] {
        assert_eq!(json[name], value, "{name}");
    }
    assert_eq!((&json["uid"], &json["took_ms"]), (&1000.into(), &12.into()));
    json["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();

    let fields = fields_of(&one.entry);
    for (name, value) in [
        ("MESSAGE", text.as_str()),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "creeld"),
        ("CODE_FILE", file!()),
        ("CREEL_MACHINE", "0123456789"),
        ("CREEL_WORKFLOW", "ci/test"),
        ("CREEL_TENANT", "did:plc:owner/did:plc:repo"),
        ("CREEL_UID", "1000"),
        ("CREEL_VERDICT", "timed out"),
    ] {
        assert!(fields.contains(&(name.to_owned(), value.to_owned())), "{name}: {fields:?}");
    }
}

#[test]
fn the_fields_of_spans_are_documented() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(page).unwrap();
    for name in [spans::MACHINE, spans::WORKFLOW, spans::TENANT, spans::UID, spans::STEP] {
        let row = format!("| `{}` | `{name}` |", journal::field_name(name));
        assert!(text.contains(&row), "docs/operations.md lacks the row {row}");
    }
}

#[test]
fn levels_are_journald_s() {
    let all = written(|| {
        error!("e");
        warn!("w");
        info!("i");
        debug!("d");
    });
    let lines: Vec<_> = all.iter().map(|one| one.stream.as_str()).collect();
    assert_eq!(lines, ["<3>e\n", "<4>w\n", "<6>i\n", "<7>d\n"]);
}

#[test]
fn a_field_of_a_name_that_each_entry_has_takes_nothing_s_place_and_the_inner_one_counts() {
    let all = written(|| {
        let _outer = tracing::info_span!("outer", step = 1, level = "mine").entered();
        let _inner = tracing::info_span!("inner", step = 2).entered();
        info!("said");
    });
    let json: serde_json::Value = serde_json::from_str(&all[0].json).unwrap();
    assert_eq!((&json["level"], &json["level_"], &json["step"]), (&"info".into(), &"mine".into(), &2.into()));
    assert_eq!(all[0].json.matches("\"step\"").count(), 1);
    assert_eq!(fields_of(&all[0].entry).iter().filter(|(name, _)| name == "CREEL_STEP").count(), 1);
}

#[test]
fn several_lines_of_a_message_are_seen_to_be_one_entry() {
    let all = written(|| error!("guest said\n<0>panic\n2026-01-01T00:00:00Z ERROR forged\x1b[2J"));
    assert_eq!(
        all[0].stream,
        "<3>guest said\n<3>  <0>panic\n<3>  2026-01-01T00:00:00Z ERROR forged\\u{1b}[2J\n"
    );
    assert_eq!(all[0].json.lines().count(), 1);
}

#[test]
fn what_is_said_is_bounded() {
    let long = "é".repeat(1 << 20);
    let all = written(|| {
        let _inside = spans::owned_machine(&request(&long, &long), 1).entered();
        info!(a = long, b = long, "{long}");
    });
    for length in [all[0].people.len(), all[0].json.len(), all[0].entry.len()] {
        assert!(length < 100 << 10, "{length}");
    }
}

#[test]
fn the_journal_gets_entries_and_stderr_what_it_does_not_take() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    assert!(Journal::open(&path, Text::for_journal()).is_err(), "nobody listens");
    let journald = UnixDatagram::bind(&path).unwrap();
    let journal = Journal::open(&path, Text::for_journal()).unwrap();
    let layers = tracing_subscriber::registry().with(Recorder::new(journal));
    let mut buffer = vec![0; 1 << 20];
    assert_eq!(journald.recv(&mut buffer).unwrap(), 0);
    tracing::subscriber::with_default(layers, || {
        info!("first");
        let length = journald.recv(&mut buffer).unwrap();
        assert_eq!(fields_of(&buffer[..length])[0], ("MESSAGE".to_owned(), "first".to_owned()));
        // A journald that was started anew, at the same place.
        std::fs::remove_file(&path).unwrap();
        info!("to stderr");
        let journald = UnixDatagram::bind(&path).unwrap();
        info!("second");
        let length = journald.recv(&mut buffer).unwrap();
        assert_eq!(fields_of(&buffer[..length])[0].1, "second");
    });
}

/// Names that try to be more than a name.
fn hostile() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        Just("\n"),
        Just("\r\n"),
        Just("\u{0}"),
        Just("\x1b[2J"),
        Just("\u{202e}"),
        Just("\u{2028}"),
        Just(" uid=0"),
        Just("}: forged"),
        Just("\"}, \"uid\": 0, {\""),
        Just("\nPRIORITY=0\n"),
        Just("\nCREEL_UID\n\u{1}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}0\n"),
        Just("<0>"),
        Just("=\"'\\"),
        Just("ü"),
        Just("w"),
    ];
    prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn nobody_s_name_is_more_than_one_value(workflow in hostile(), owner in hostile(), error in hostile()) {
        let all = written(|| {
            let _inside = spans::owned_machine(&request(&workflow, &owner), 1000).entered();
            warn!(%error, "it failed");
        });
        let one = &all[0];
        let tenant = format!("{owner}/did:plc:repo");

        // One line, in which no character is an order to a terminal, and whose fields are those that were given.
        for text in [&one.people, &one.stream] {
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(line.chars().all(|c| !c.is_control() && !"\u{202e}\u{2028}".contains(c)), "{line:?}");
            let names: Vec<String> = unquoted(line).split([' ', '{']).filter_map(|word| {
                word.split_once('=').map(|(name, _)| name.to_owned())
            }).collect();
            prop_assert_eq!(names, ["machine", "workflow", "tenant", "uid", "error"], "{}", line);
        }

        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&one.json).unwrap();
        prop_assert_eq!(one.json.matches('\n').count(), 1);
        prop_assert_eq!(json.len(), 10, "{:?}", json);
        prop_assert_eq!(&json["workflow"], &serde_json::Value::from(workflow.as_str()));
        prop_assert_eq!(&json["tenant"], &serde_json::Value::from(tenant.as_str()));
        prop_assert_eq!(&json["uid"], &serde_json::Value::from(1000));

        let fields = fields_of(&one.entry);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        prop_assert_eq!(names, [
            "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "CODE_FILE", "CODE_LINE", "CODE_MODULE", "CREEL_MACHINE",
            "CREEL_WORKFLOW", "CREEL_TENANT", "CREEL_UID", "CREEL_ERROR",
        ]);
        prop_assert!(fields.contains(&("CREEL_WORKFLOW".to_owned(), workflow)));
        prop_assert!(fields.contains(&("CREEL_UID".to_owned(), "1000".to_owned())));
        prop_assert!(!fields[0].1.contains('\n'));
    }
}

/// A line without what stands in quotes.
fn unquoted(line: &str) -> String {
    let (mut left, mut quoted, mut escaped) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            _ => left.push(c),
        }
    }
    assert!(!quoted, "{line}");
    left
}
