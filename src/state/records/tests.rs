use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::directory::RunsDirectory;
use super::retention::{Kept, beyond};
use super::*;
use crate::runtime::{MachineId, Outcome, Tenant, Verdict};
use crate::state::log::{Limits, Mask, Payload, Stream};

const LIMITS: Limits = Limits { max_step_bytes: 256 << 10, max_total_bytes: 2 << 20 };

struct Place {
    directory: tempfile::TempDir,
    records: Records,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::new(&directory.path().join("state"));
    Place { directory, records }
}

impl Place {
    fn runs(&self) -> PathBuf {
        self.directory.path().join("state/runs")
    }

    fn begin(&self, id: &str) -> std::sync::Arc<RecordWriter> {
        self.records.begin(record(id), LIMITS, Mask::new(&["hunter2"]).unwrap()).unwrap()
    }

    /// A run that has ended, so long ago.
    fn ended(&self, id: &str, ago: Duration) {
        let writer = self.begin(id);
        let end = Timestamp::now() - ago;
        writer.update(|record| (record.state, record.ended_at) = (RecordState::Ended, Some(end))).unwrap();
    }

    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> =
            self.records.list().unwrap().iter().map(|record| record.id.to_string()).collect();
        ids.sort();
        ids
    }
}

fn record(id: &str) -> Record {
    Record {
        version: 1,
        id: MachineId::parse(id).unwrap(),
        workflow_id: format!("{id}-test"),
        tenant: Tenant::local(1000),
        name: "test".into(),
        engine: "microvm".into(),
        image: "tiny".into(),
        creator_uid: 1000,
        state: RecordState::Running,
        created_at: Timestamp::now(),
        ended_at: None,
        steps: vec![StepRecord {
            name: "one".into(),
            kind: "user".into(),
            command: "echo hunter2".into(),
            verdict: None,
        }],
        verdict: None,
        setup_error: None,
        machine: None,
        lost: false,
    }
}

fn id(text: &str) -> MachineId {
    MachineId::parse(text).unwrap()
}

#[test]
fn a_run_is_remembered_for_its_user_alone_and_without_secrets() {
    let place = place();
    let writer = place.begin("aaaaaaaaaa");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let run = place.runs().join("aaaaaaaaaa");
    assert_eq!((mode(place.runs()), mode(run.clone())), (0o700, 0o700));
    assert_eq!((mode(run.join("record.json")), mode(run.join("log"))), (0o600, 0o600));
    writer
        .update(|record| {
            let verdict =
                Verdict { detail: Some("said hunter2".into()), ..Verdict::of(Outcome::Exited { code: 1 }) };
            record.steps[0].verdict = Some(verdict);
            record.setup_error = Some("no hunter2".into());
        })
        .unwrap();
    let text = fs::read_to_string(run.join("record.json")).unwrap();
    assert!(!text.contains("hunter2") && text.contains("said ***") && text.contains("echo ***"), "{text}");
    assert!(run.join("record.json.new").exists(), "room for the end");
    drop(writer);
    assert!(!run.join("record.json.new").exists());
}

#[test]
fn a_run_lives_as_long_as_its_writer_and_is_lost_if_that_goes_without_a_word() {
    let place = place();
    let writer = place.begin("aaaaaaaaaa");
    let get = || place.records.get(&id("aaaaaaaaaa")).unwrap();
    assert_eq!((get().state, get().ended_as()), (RecordState::Running, None));
    drop(writer);
    let lost = get();
    assert_eq!((lost.state, lost.lost), (RecordState::Ended, true));
    assert_eq!(lost.ended_as().unwrap(), "lost: its creel ended while it ran");
    assert!(lost.ended_at.is_some());
    assert_eq!(place.records.list().unwrap()[0].ended_as(), lost.ended_as());
}

#[test]
fn a_damaged_record_is_told_with_its_path_and_hides_no_other() {
    let place = place();
    for id in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd", "eeeeeeeeee", "ffffffffff"] {
        place.ended(id, Duration::ZERO);
    }
    let of = |id: &str| place.runs().join(id).join("record.json");
    fs::write(of("bbbbbbbbbb"), "{ half").unwrap();
    fs::remove_file(of("cccccccccc")).unwrap();
    fs::write(of("dddddddddd"), r#"{ "version": 2, "id": { "form": "another" } }"#).unwrap();
    fs::copy(of("aaaaaaaaaa"), of("eeeeeeeeee")).unwrap();
    fs::remove_file(of("ffffffffff")).unwrap();
    symlink(of("aaaaaaaaaa"), of("ffffffffff")).unwrap();
    fs::create_dir(place.runs().join("no run of ours")).unwrap();
    symlink(place.runs().join("aaaaaaaaaa"), place.runs().join("gggggggggg")).unwrap();

    let listed = place.records.list_all().unwrap();
    assert_eq!(place.ids(), ["aaaaaaaaaa"]);
    let told: Vec<String> = listed
        .damaged
        .iter()
        .map(|damaged| {
            assert!(damaged.path.starts_with(place.runs()));
            damaged.error.to_string().replace(&*place.runs().to_string_lossy(), "runs")
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    `runs/bbbbbbbbbb/record.json` is not a record that this version of creel can read
    failed to read `runs/cccccccccc/record.json`
    `runs/dddddddddd/record.json` is a record of version 2, and this creel knows versions up to 1: a newer creel wrote it
    `runs/eeeeeeeeee/record.json` names aaaaaaaaaa, which is another's
    `runs/ffffffffff/record.json` is a symbolic link, or not what it should be: remove it, or choose another `state.dir`
    `runs/gggggggggg` is a symbolic link, or not what it should be: remove it, or choose another `state.dir`
    ");

    // Nobody can tell whether these may go, so they stay.
    let strict = Retention { max_runs: 0, max_total_bytes: 0, keep_for: Duration::ZERO };
    let pruned = place.records.clone().keeping(strict).prune().unwrap();
    assert_eq!(pruned.removed, [id("aaaaaaaaaa")]);
    assert!(pruned.failed.is_empty(), "{:?}", pruned.failed);
    assert_eq!(place.records.list_all().unwrap().damaged.len(), 6);
    assert!(place.runs().join("no run of ours").exists());
}

#[test]
fn what_is_not_ours_or_open_to_others_is_refused() {
    let place = place();
    let state = place.directory.path().join("state");
    fs::create_dir_all(&state).unwrap();
    symlink("/tmp", state.join("runs")).unwrap();
    let refused = || place.records.begin(record("aaaaaaaaaa"), LIMITS, Mask::none()).unwrap_err();
    assert!(matches!(refused(), RecordError::WrongKind { .. }), "{}", refused());
    assert!(matches!(place.records.list().unwrap_err(), RecordError::WrongKind { .. }));
    fs::remove_file(state.join("runs")).unwrap();
    fs::create_dir(state.join("runs")).unwrap();
    fs::set_permissions(state.join("runs"), fs::Permissions::from_mode(0o750)).unwrap();
    assert!(refused().to_string().contains("chmod 700"), "{}", refused());
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(state.join("runs"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(state.join("runs"), Some(4242), None).unwrap();
        assert!(matches!(refused(), RecordError::ForeignOwner { owner: 4242, .. }), "{}", refused());
    }
}

#[test]
fn a_second_run_of_an_id_is_refused_and_the_first_stands() {
    let place = place();
    let _writer = place.begin("aaaaaaaaaa");
    let error = place.records.begin(record("aaaaaaaaaa"), LIMITS, Mask::none()).unwrap_err();
    assert!(matches!(error, RecordError::Exists { .. }), "{error}");
    assert_eq!(place.ids(), ["aaaaaaaaaa"]);
    let names: Vec<_> = fs::read_dir(place.runs()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["aaaaaaaaaa"], "nothing is left of the second");
}

#[test]
fn pruning_takes_the_oldest_ended_runs_and_what_was_left_half_made() {
    let place = place();
    let living = place.begin("aaaaaaaaaa");
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    place.ended("bbbbbbbbbb", hours(3));
    place.ended("cccccccccc", hours(2));
    place.ended("dddddddddd", hours(1));
    drop(place.begin("eeeeeeeeee"));
    fs::create_dir(place.runs().join(".part-zzzzzzzzzz-0")).unwrap();
    fs::write(place.runs().join(".part-zzzzzzzzzz-0/log"), "x").unwrap();
    let making = RunsDirectory::open(&place.directory.path().join("state")).unwrap().unwrap();
    let (part, _locked) = making.begin(&id("yyyyyyyyyy")).unwrap();

    let within = |retention| place.records.clone().keeping(retention).prune().unwrap().removed;
    assert_eq!(within(Retention::default()), []);
    assert!(!place.runs().join(".part-zzzzzzzzzz-0").exists());
    assert!(place.runs().join(part).exists(), "one that is being made is left alone");
    assert_eq!(
        within(Retention { keep_for: hours(2), ..Retention::default() }),
        [id("bbbbbbbbbb"), id("cccccccccc")]
    );
    assert_eq!(within(Retention { max_runs: 2, ..Retention::default() }), [id("dddddddddd")]);
    // The lost one is the last to have ended; the living one is never taken.
    assert_eq!(within(Retention { max_total_bytes: 0, ..Retention::default() }), [id("eeeeeeeeee")]);
    assert_eq!(place.ids(), ["aaaaaaaaaa"]);
    drop(living);
    assert_eq!(within(Retention { max_runs: 0, ..Retention::default() }), [id("aaaaaaaaaa")]);
}

#[test]
fn many_may_prune_at_once_and_each_run_goes_once() {
    let place = place();
    for number in 0..60 {
        place.ended(&format!("a{number:0>9}"), Duration::from_secs(60));
    }
    let records = place.records.clone().keeping(Retention { max_runs: 10, ..Retention::default() });
    let pruned: Vec<Pruned> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| records.prune().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pruned.iter().all(|pruned| pruned.failed.is_empty()), "{pruned:?}");
    assert_eq!(place.ids().len(), 10);
    let removed: usize = pruned.iter().map(|pruned| pruned.removed.len()).sum();
    assert_eq!(removed, 50);
    assert_eq!(fs::read_dir(place.runs()).unwrap().count(), 10);
}

#[tokio::test]
async fn the_log_of_a_run_that_goes_on_is_followed_to_the_end_of_its_writer() {
    let place = place();
    let writer = place.begin("aaaaaaaaaa");
    let id = id("aaaaaaaaaa");
    let mut appender = writer.log().appender(0, Stream::Stdout);
    appender.append(0, b"one ").unwrap();
    let text = |mut follower: crate::state::log::Follower| async move {
        let mut text = Vec::new();
        while let Some(record) = follower.next().await {
            if let Payload::Data { bytes, .. } = record.unwrap().payload {
                text.extend_from_slice(&bytes);
            }
        }
        String::from_utf8(text).unwrap()
    };
    assert_eq!(text(place.records.follow(&id, 0, false).unwrap()).await, "one ");
    let following = tokio::spawn(text(place.records.follow(&id, 0, true).unwrap()));
    appender.append(4, b"two").unwrap();
    appender.finish().unwrap();
    drop((appender, writer));
    assert_eq!(following.await.unwrap(), "one two");
    assert_eq!(text(place.records.follow(&id, 0, true).unwrap()).await, "one two");
}

proptest! {
    #[test]
    fn what_remains_is_within_the_bounds_and_newer_than_what_goes(
        runs in proptest::collection::vec((proptest::option::of(0..10_000_i64), 0..500_u64), 0..40),
        max_total_bytes in 0..5000_u64,
        max_runs in 0..40_u64,
        keep_seconds in 0..10_000_u64,
    ) {
        let now = Timestamp::from_second(10_000).unwrap();
        let runs: Vec<Kept> = runs.into_iter().enumerate().map(|(at, (ended, bytes))| Kept {
            id: MachineId::parse(&format!("{at:0>10}")).unwrap(),
            ended_at: ended.map(|second| Timestamp::from_second(second).unwrap()),
            bytes,
        }).collect();
        let retention = Retention { keep_for: Duration::from_secs(keep_seconds), max_total_bytes, max_runs };
        let gone = beyond(runs.clone(), &retention, now);
        let kept: Vec<_> = runs.iter().filter(|run| !gone.contains(run)).collect();
        prop_assert!(gone.iter().all(|run| run.ended_at.is_some()), "a living run is never taken");
        let kept_ended: Vec<_> = kept.iter().filter_map(|run| run.ended_at).collect();
        if let (Some(oldest), Some(newest)) = (kept_ended.iter().min(), gone.iter().filter_map(|run| run.ended_at).max()) {
            prop_assert!(newest <= *oldest);
            let age = now.duration_since(*oldest);
            prop_assert!(age.as_secs() <= keep_seconds.cast_signed());
            prop_assert!(kept.len() as u64 <= max_runs);
            prop_assert!(kept.iter().map(|run| run.bytes).sum::<u64>() <= max_total_bytes);
        }
        // None goes without need.
        if let Some(last) = gone.last() {
            let with: u64 = kept.iter().map(|run| run.bytes).sum::<u64>() + last.bytes;
            let old = now.duration_since(last.ended_at.unwrap()).as_secs() > keep_seconds.cast_signed();
            prop_assert!(old || with > max_total_bytes || kept.len() as u64 + 1 > max_runs);
        }
    }
}
