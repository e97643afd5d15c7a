use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::host::{ProcessIdentity, boot_id};
use crate::runtime::{HeldLeases, Ledger as _, MachineId, Made, Tenant};
use crate::state::records::RecordError;

fn record(id: &MachineId) -> MachineRecord {
    MachineRecord {
        version: MachineRecord::VERSION,
        id: id.clone(),
        stage: MachineStage::Preparing,
        workflow_id: "w".into(),
        tenant: Tenant::local(1000),
        image: "tiny".into(),
        creator_uid: 1000,
        created_at: Timestamp::UNIX_EPOCH,
        max_age_us: Some(60_000_000),
        attached: false,
        boot_id: boot_id().unwrap(),
        leases: HeldLeases::default(),
        keeper: None,
    }
}

fn records() -> (TempDir, MachineRecords) {
    let directory = tempfile::tempdir().unwrap();
    let records = MachineRecords::make(directory.path()).unwrap();
    (directory, records)
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path().join("machines")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_record_says_how_far_its_machine_has_come_and_goes_with_it() {
    let (directory, records) = records();
    let id = MachineId::random().unwrap();
    let ledger = records.begin(record(&id)).unwrap();
    let read = || records.read(&id).unwrap();
    assert_eq!(read(), record(&id));
    let leases = HeldLeases { cid: Some(77), uid: Some(200_001), ..HeldLeases::default() };
    ledger.note(Made::Leases(leases.clone())).unwrap();
    assert_eq!((read().stage, read().leases), (MachineStage::Leased, leases));
    let keeper = ProcessIdentity::of(std::process::id()).unwrap();
    ledger.note(Made::Keeper(keeper)).unwrap();
    assert_eq!((read().stage, read().keeper), (MachineStage::Started, Some(keeper)));
    assert!(read().keeper_lives(&boot_id().unwrap()));
    assert!(!read().keeper_lives("another boot"), "numbers begin anew");
    ledger.reach(MachineStage::Ready).unwrap();
    assert_eq!(read().stage, MachineStage::Ready);
    drop(ledger);
    assert_eq!(records.list().unwrap().len(), 1, "it outlives whoever wrote it");
    assert!(matches!(records.begin(record(&id)), Err(RecordError::Exists { .. })));
    assert_eq!(read().stage, MachineStage::Ready, "it may be the last that is known of that machine");
    records.remove(&id).unwrap();
    let ledger = records.begin(record(&id)).unwrap();
    ledger.remove().unwrap();
    ledger.note(Made::Keeper(keeper)).unwrap();
    ledger.reach(MachineStage::Ending).unwrap();
    ledger.remove().unwrap();
    assert_eq!(names(&directory), [""; 0], "what comes late writes no record of what is gone");
}

#[test]
fn damage_to_one_record_hides_none_of_the_others_and_is_named() {
    let (directory, records) = records();
    let ids: Vec<MachineId> = (0..6).map(|_| MachineId::random().unwrap()).collect();
    let path = |id: &MachineId| directory.path().join(format!("machines/{id}.json"));
    for id in &ids {
        records.begin(record(id)).unwrap();
    }
    fs::write(path(&ids[0]), b"").unwrap();
    fs::write(path(&ids[1]), b"{\"version\": 1, \"id\"").unwrap();
    fs::write(path(&ids[2]), b"{\"version\": 2, \"another\": \"form\"}").unwrap();
    fs::copy(path(&ids[5]), path(&ids[3])).unwrap();
    fs::remove_file(path(&ids[4])).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path(&ids[4])).unwrap();
    fs::write(directory.path().join("machines/note.json"), b"somebody's").unwrap();
    let found: std::collections::HashMap<_, _> = records.list().unwrap().into_iter().collect();
    assert_eq!(found.len(), 6);
    assert!(matches!(found[&ids[0]], Err(RecordError::Unreadable { .. })));
    assert!(matches!(found[&ids[1]], Err(RecordError::Unreadable { .. })));
    assert!(matches!(found[&ids[2]], Err(RecordError::Newer { version: 2, .. })));
    assert!(matches!(found[&ids[3]], Err(RecordError::WrongId { .. })));
    assert!(matches!(found[&ids[4]], Err(RecordError::WrongKind { .. })));
    assert_eq!(*found[&ids[5]].as_ref().unwrap(), record(&ids[5]));
}

#[test]
fn a_record_that_can_t_be_written_leaves_the_one_before() {
    let (directory, records) = records();
    let id = MachineId::random().unwrap();
    let ledger = records.begin(record(&id)).unwrap();
    // In the way of the next one, for root too.
    let in_the_way = directory.path().join(format!("machines/{id}.new"));
    fs::create_dir(&in_the_way).unwrap();
    ledger.reach(MachineStage::Ready).unwrap_err();
    assert_eq!(records.read(&id).unwrap().stage, MachineStage::Preparing);
    fs::remove_dir(&in_the_way).unwrap();
    ledger.reach(MachineStage::Ready).unwrap();
    assert_eq!(names(&directory), [format!("{id}.json")]);
    let other = MachineId::random().unwrap();
    fs::create_dir(directory.path().join(format!("machines/{other}.new"))).unwrap();
    records.begin(record(&other)).unwrap_err();
    assert_eq!(records.list().unwrap().len(), 1);
}

#[test]
fn what_was_left_half_written_is_removed() {
    let (directory, records) = records();
    let id = MachineId::random().unwrap();
    records.begin(record(&id)).unwrap();
    fs::write(directory.path().join(format!("machines/{id}.new")), b"{\"vers").unwrap();
    fs::write(directory.path().join("machines/somebody.new"), b"else's").unwrap();
    assert_eq!(records.remove_half_written().unwrap(), 1);
    assert_eq!(names(&directory), [format!("{id}.json"), "somebody.new".into()]);
}

#[test]
fn a_directory_that_is_open_to_others_or_a_link_is_refused() {
    let (directory, _records) = records();
    let path = directory.path().join("machines");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(MachineRecords::make(directory.path()), Err(RecordError::OpenToOthers { .. })));
    fs::remove_dir_all(&path).unwrap();
    assert!(MachineRecords::open(directory.path()).unwrap().is_none());
    std::os::unix::fs::symlink("/tmp", &path).unwrap();
    assert!(matches!(MachineRecords::make(directory.path()), Err(RecordError::WrongKind { .. })));
}
