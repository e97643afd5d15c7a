//! Each prefix of a machine's life is cleaned up: creeld dies at every place of it, or the step there fails.

use std::fs;
use std::time::Duration;

use creel::failpoint::PLACES;

use crate::harness::{Daemon, Sandbox, TINY, World, wait_until};

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// What there is of machines beside processes: directories, and records.
fn left(sandbox: &Sandbox) -> Vec<String> {
    let names = |directory: std::path::PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
    };
    let directories = names(sandbox.run_dir()).filter(|name| name.starts_with("m-"));
    let mut left: Vec<String> = directories.chain(names(sandbox.root().join("state/machines"))).collect();
    left.sort_unstable();
    left
}

/// A creeld looks at what there is when it starts.
fn expect_clean(sandbox: &Sandbox, after: &str) {
    wait_until(TEN_SECONDS, &format!("nothing is left after `{after}`"), || left(sandbox).is_empty());
}

#[test]
fn wherever_creeld_is_killed_the_next_one_leaves_nothing_of_the_machine() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let mut before = "nothing";
    for place in PLACES {
        let daemon = Daemon::start_to_fail(&sandbox, &format!("{place}=kill"));
        expect_clean(&sandbox, before);
        let created = daemon.output(["create", "--image", TINY]);
        if place.starts_with("setup.") {
            assert_ne!(created.code, 0, "{place}: {created:?}");
        } else {
            assert_eq!(created.code, 0, "{place}: {created:?}");
            let removed = daemon.output(["rm", "--force", created.stdout.trim()]);
            assert_ne!(removed.code, 0, "{place}: {removed:?}");
        }
        daemon.has_died();
        sandbox.expect_no_process_within(TEN_SECONDS);
        before = place;
    }
    let daemon = Daemon::start(&sandbox);
    expect_clean(&sandbox, before);
    let id = daemon.create(TINY);
    let mut has = [format!("{id}.json"), format!("m-{id}")];
    has.sort_unstable();
    assert_eq!(left(&sandbox), has, "this is what a machine has");
    assert_eq!(daemon.output(["rm", "--force", &id]).code, 0);
    assert_eq!(daemon.stop(), Some(0));
    sandbox.expect_nothing_left_within(TEN_SECONDS);
}

#[test]
fn whatever_step_of_a_setup_fails_it_is_told_and_nothing_is_left() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    // The first only tells that the record is there.
    for place in PLACES.into_iter().filter(|place| place.starts_with("setup.")).skip(1) {
        let daemon = Daemon::start_to_fail(&sandbox, &format!("{place}=error"));
        let created = daemon.output(["create", "--image", TINY]);
        assert_ne!(created.code, 0, "{place}");
        assert!(created.stderr.contains(&format!("failpoint `{place}`")), "{place}: {created:?}");
        // Not only with the next creeld.
        expect_clean(&sandbox, place);
        assert_eq!(daemon.output(["ps"]).stdout.lines().count(), 1, "{place}: the heading");
        assert_eq!(daemon.stop(), Some(0), "{place}");
        sandbox.expect_no_process_within(TEN_SECONDS);
    }
    sandbox.expect_nothing_left_within(TEN_SECONDS);
}
