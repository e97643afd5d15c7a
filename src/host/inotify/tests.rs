use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    /// Each test has its own: what others watch may overflow the kernel's queue, which is told to all as a change.
    static OWN: Arc<Instance> = Instance::begin().expect("an instance");
}

fn watch_path(path: &Path, events: Events) -> Watch {
    let file = File::open(path).expect("it is there");
    OWN.with(Arc::clone).add(file.as_fd(), events).expect("watched")
}

async fn is_changed(watch: &mut Watch) {
    tokio::time::timeout(PATIENCE, watch.changed()).await.expect("a change is told");
}

/// Events come in order, so once the last one of the instance has been told, all before it have.
async fn settle(directory: &Path) {
    let mut last = watch_path(directory, Events::CREATE);
    File::create_new(directory.join("last")).expect("made");
    is_changed(&mut last).await;
    drop(last);
    fs::remove_file(directory.join("last")).expect("removed");
}

fn is_pending(watch: &mut Watch) -> bool {
    let mut changed = std::pin::pin!(watch.changed());
    changed.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
}

#[tokio::test]
async fn a_change_is_told_once_however_late_one_asks() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let aside = tempfile::tempdir().expect("a scratch directory");
    let mut watch = watch_path(scratch.path(), Events::CREATE);
    for name in ["a", "b", "c"] {
        File::create(scratch.path().join(name)).expect("made");
    }
    settle(aside.path()).await;
    is_changed(&mut watch).await;
    assert!(is_pending(&mut watch), "three changes before the question are one answer");

    File::create(scratch.path().join("between")).expect("made");
    is_changed(&mut watch).await;

    fs::remove_file(scratch.path().join("a")).expect("removed");
    settle(aside.path()).await;
    assert!(is_pending(&mut watch), "nobody asked for DELETE");
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_change() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let aside = tempfile::tempdir().expect("a scratch directory");
    let mut watch = watch_path(scratch.path(), Events::CREATE);
    assert!(is_pending(&mut watch));
    {
        // Waits, is woken, and is dropped before it is asked again.
        let mut changed = std::pin::pin!(watch.changed());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(changed.as_mut().poll(&mut context).is_pending());
        File::create(scratch.path().join("a")).expect("made");
        settle(aside.path()).await;
    }
    is_changed(&mut watch).await;
}

#[tokio::test]
async fn two_watches_on_one_inode_have_each_their_own_events_and_life() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let aside = tempfile::tempdir().expect("a scratch directory");
    let mut creations = watch_path(scratch.path(), Events::CREATE);
    let mut removals = watch_path(scratch.path(), Events::DELETE);
    assert_eq!(creations.descriptor, removals.descriptor, "the kernel shares it");

    let file = scratch.path().join("a");
    File::create(&file).expect("made");
    is_changed(&mut creations).await;
    assert!(is_pending(&mut removals));
    fs::remove_file(&file).expect("removed");
    is_changed(&mut removals).await;
    assert!(is_pending(&mut creations));

    drop(removals);
    File::create(&file).expect("made");
    is_changed(&mut creations).await;
    fs::remove_file(&file).expect("removed");
    settle(aside.path()).await;
    assert!(is_pending(&mut creations), "what the other asked for is not told to this one");

    let (instance, descriptor) = (Arc::clone(&creations.instance), creations.descriptor);
    drop(creations);
    assert!(!lock(&instance.watched).contains_key(&descriptor));
    assert_eq!(
        inotify::remove_watch(&instance.fd, descriptor),
        Err(Errno::INVAL),
        "the kernel has it no more"
    );
    let mut again = watch_path(scratch.path(), Events::CREATE);
    File::create(&file).expect("made");
    is_changed(&mut again).await;
}

#[tokio::test]
async fn the_end_of_a_watched_thing_is_its_last_change() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let aside = tempfile::tempdir().expect("a scratch directory");
    let directory = scratch.path().join("d");
    fs::create_dir(&directory).expect("made");
    let mut watch = watch_path(&directory, Events::CREATE);
    fs::remove_dir(&directory).expect("removed");
    is_changed(&mut watch).await;
    settle(aside.path()).await;
    assert!(is_pending(&mut watch));
    assert!(!lock(&watch.instance.watched).contains_key(&watch.descriptor));
}

#[tokio::test]
async fn an_overflow_of_the_kernels_queue_wakes_everyone() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let other = tempfile::tempdir().expect("a scratch directory");
    let mut watches = [watch_path(scratch.path(), Events::CREATE), watch_path(other.path(), Events::MODIFY)];
    assert!(watches.iter_mut().all(is_pending));
    watches[0].instance.dispatch(-1, ReadFlags::QUEUE_OVERFLOW);
    for watch in &mut watches {
        is_changed(watch).await;
    }
}

#[test]
fn hundreds_of_watches_in_several_runtimes_take_one_instance() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut kept = Vec::new();
    for batch in 0..3 {
        let runtime = runtime();
        let mut watches: Vec<_> = (0..100)
            .map(|number| {
                let directory = scratch.path().join(format!("{batch}-{number}"));
                fs::create_dir(&directory).expect("made");
                let file = File::open(&directory).expect("it is there");
                (watch(file.as_fd(), Events::CREATE).expect("watched"), directory)
            })
            .collect();
        runtime.block_on(async {
            for (watch, directory) in &mut watches {
                File::create(directory.join("file")).expect("made");
                is_changed(watch).await;
            }
        });
        kept.push(watches);
    }
    let one = instance().expect("it is there");
    assert!(kept.iter().flatten().all(|(watch, _)| Arc::ptr_eq(&watch.instance, &one)));
}
