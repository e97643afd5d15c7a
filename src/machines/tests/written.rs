//! What is written down of machines, over a runtime that follows a script.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::state::machines::{MachineRecord, MachineRecords, MachineStage};

/// Records of its machines are below the directory.
fn written(setup: ScriptedSetup) -> (World, MachineRecords, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let records = MachineRecords::make(directory.path()).unwrap();
    let runtime = FakeRuntime::new(setup, []);
    let (journal, death) = (runtime.journal(), runtime.death());
    let machines = Machines::recorded(Arc::new(runtime), 3, records.clone());
    (World { machines, journal, death }, records, directory)
}

fn all(records: &MachineRecords) -> Vec<MachineRecord> {
    records.list().unwrap().into_iter().map(|(_, record)| record.unwrap()).collect()
}

#[tokio::test]
async fn a_machine_is_written_down_from_before_its_setup_until_it_is_gone() {
    let (world, records, _directory) = written(ScriptedSetup::Hangs);
    let (id, creating) = world.creating().await;
    while world.journal.entries().is_empty() {
        tokio::task::yield_now().await;
    }
    let [record] = all(&records).try_into().unwrap();
    let MachineRecord { id: recorded, stage, creator_uid, image, keeper, attached, .. } = record;
    assert_eq!((recorded, stage, creator_uid), (id.clone(), MachineStage::Preparing, 1000));
    assert_eq!((image.as_str(), keeper, attached), ("tiny", None, false));
    world.destroy(&id).await;
    creating.await.unwrap().unwrap_err();
    assert_eq!(all(&records), []);

    let (world, records, _directory) = written(ScriptedSetup::Ready);
    let id = world.created().await;
    assert_eq!(all(&records)[0].stage, MachineStage::Ready);
    world.destroy(&id).await;
    assert_eq!(all(&records), []);
    let id = world.created().await;
    world.death.strike(crashed());
    world.machines.ended(&id).await.unwrap();
    assert_eq!(all(&records), [], "it ended by itself");
}

#[tokio::test]
async fn what_can_t_be_written_down_is_not_made() {
    let (world, records, directory) = written(ScriptedSetup::Ready);
    let id = id();
    // In the way of its record.
    fs::create_dir(directory.path().join(format!("machines/{id}.new"))).unwrap();
    let refused = world.create(&id, DETACHED, CancellationToken::new()).await.unwrap_err();
    let CreateError::Setup(SetupError { failure: SetupFailure::HostCannot(why), .. }) = refused else {
        panic!("{refused}")
    };
    assert!(why.contains(&format!("{id}.new")), "{why}");
    assert_eq!((world.journal.entries(), all(&records)), (Vec::<String>::new(), Vec::new()));
    assert!(world.machines.list(true).is_empty());
    world.created().await;
}
