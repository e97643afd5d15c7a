use super::*;
use crate::report::{Ending, Runs};
use crate::row::{About, Better};

fn about() -> About {
    About {
        name: "exec",
        unit: "ms",
        better: Better::Lower,
        goal: Some(0.1),
        ours: "creel <API>",
        peer: Some("docker exec"),
        meaning: "`true` there and back.",
    }
}

fn rows() -> Vec<Measured> {
    let runs = || Runs { ours: vec![2.5, 2.0, 3.0], peer: vec![60.0, 55.0, 72.0] };
    let missing = Ending { peer_missing: Some(Failed::new("dockerd did not start")), failed: None };
    let failed = Ending { peer_missing: None, failed: Some(Failed::new("the log ended early")) };
    let alone = Runs { peer: Vec::new(), ..runs() };
    let faster = About { name: "stdout", unit: "MiB/s", better: Better::Higher, goal: Some(2.0), ..about() };
    let memory = About { name: "memory", unit: "MiB", goal: None, peer: None, ..about() };
    vec![
        Measured::new(about(), runs(), Ending::default(), false),
        Measured::new(faster, runs(), Ending::default(), false),
        Measured::new(About { name: "lonely", ..about() }, alone.clone(), missing, false),
        Measured::new(About { name: "broken", ..about() }, runs(), failed, false),
        Measured::new(memory, alone, Ending::default(), false),
    ]
}

fn host() -> Host {
    Host {
        cores: 2,
        memory_mib: 24_000,
        processor: "A processor".into(),
        kernel: "6.1".into(),
        measured_at: "2026-11-23T08:00:00Z".into(),
        creel: "creel 0.1.0".into(),
        docker: String::new(),
        qemu: "QEMU emulator version 7.2.0".into(),
        accel: "tcg".into(),
        runs: 3,
    }
}

#[test]
fn the_page_shows_every_row_and_counts_nothing_as_met_that_was_not_measured() {
    let page = render(&host(), &rows());
    let body = page.strip_prefix(HEAD).unwrap().strip_suffix(TAIL).unwrap();
    insta::assert_snapshot!(body);
}

#[test]
fn a_chart_has_both_bars_their_spread_and_the_goal() {
    let rows = rows();
    insta::assert_snapshot!(chart::draw(&rows[0]).unwrap());
    insta::assert_snapshot!(chart::draw(&rows[1]).unwrap());
}

#[test]
fn without_a_peer_there_is_one_bar_and_no_goal() {
    let rows = rows();
    let svg = chart::draw(&rows[2]).unwrap();
    assert!(svg.matches("<rect").count() == 1 && !svg.contains("class=\"goal\""), "{svg}");
    assert_eq!(chart::draw(&rows[3]), None);
}

#[test]
fn charts_of_rows_that_are_no_more_go() {
    let docs = tempfile::tempdir().unwrap();
    let charts = docs.path().join(CHARTS);
    fs::create_dir(&charts).unwrap();
    fs::write(charts.join("old.svg"), "").unwrap();
    write(docs.path(), &host(), &rows()).unwrap();
    let mut left: Vec<_> = fs::read_dir(&charts)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["exec.svg", "lonely.svg", "memory.svg", "stdout.svg"]);
    assert!(docs.path().join(PAGE).exists());
}
