use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::row::{About, Better};

/// Says figures that it was given, and keeps the order in which it was asked.
#[derive(Debug, Default)]
struct Scripted {
    ours: VecDeque<Result<f64, Failed>>,
    peer: VecDeque<Result<f64, Failed>>,
    missing: Option<Failed>,
    asked: Arc<Mutex<String>>,
}

impl Scripted {
    fn new(ours: &[f64], peer: &[f64]) -> Self {
        let script = |figures: &[f64]| figures.iter().copied().map(Ok).collect();
        Self { ours: script(ours), peer: script(peer), ..Self::default() }
    }

    fn note(&self, what: char) {
        self.asked.lock().unwrap().push(what);
    }
}

#[async_trait]
impl Row for Scripted {
    fn about(&self) -> About {
        About {
            name: "scripted",
            unit: "ms",
            better: Better::Lower,
            goal: Some(0.1),
            ours: "ours",
            peer: Some("theirs"),
            meaning: "",
        }
    }

    async fn prepare(&mut self, _world: &mut World) -> Result<(), Failed> {
        Ok(())
    }

    async fn prepare_peer(&mut self, _world: &mut World) -> Result<(), Failed> {
        self.missing.clone().map_or(Ok(()), Err)
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        self.note('o');
        self.ours.pop_front().unwrap()
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        self.note('p');
        self.peer.pop_front().unwrap()
    }

    async fn clean_up(&mut self) -> Result<(), Failed> {
        self.note('c');
        Ok(())
    }
}

async fn measured(mut row: Scripted) -> (Measured, String) {
    let nothing = PathBuf::from("/nonexistent");
    let programs =
        Programs { creel: nothing.clone(), creeld: nothing.clone(), kit: nothing.clone(), own: nothing };
    let mut world = World::new(programs, true).unwrap();
    let measured = measure(&mut row, &mut world, 3, true).await;
    let asked = row.asked.lock().unwrap().clone();
    (measured, asked)
}

#[tokio::test]
async fn both_sides_take_turns_and_the_first_turn_does_not_count() {
    let (measured, asked) =
        measured(Scripted::new(&[999.0, 1.0, 3.0, 2.0], &[999.0, 40.0, 20.0, 30.0])).await;
    assert_eq!(asked, "opopopopc");
    assert_eq!((measured.ours, measured.peer), (Some(2.0), Some(30.0)));
    assert_eq!(measured.runs, Runs { ours: vec![1.0, 3.0, 2.0], peer: vec![40.0, 20.0, 30.0] });
    assert_eq!(measured.met, Some(true));
}

#[tokio::test]
async fn a_goal_that_is_missed_is_not_met() {
    let (measured, _) = measured(Scripted::new(&[5.0; 4], &[30.0; 4])).await;
    assert_eq!(measured.met, Some(false));
}

#[tokio::test]
async fn without_its_peer_a_row_is_measured_and_has_met_nothing() {
    let why = Failed::new("dockerd did not start: no such file");
    let (measured, asked) = measured(Scripted { missing: Some(why), ..Scripted::new(&[1.0; 4], &[]) }).await;
    assert_eq!(asked, "ooooc");
    assert_eq!((measured.ours, measured.peer, measured.ratio, measured.met), (Some(1.0), None, None, None));
    assert_eq!(measured.peer_missing.as_deref(), Some("dockerd did not start: no such file"));
    assert!(table::render(&[measured]).ends_with("peer missing: dockerd did not start: no such file\n"));
}

#[tokio::test]
async fn a_row_that_fails_says_why_has_no_figure_and_cleans_up() {
    let mut row = Scripted::new(&[1.0, 1.0], &[9.0, 9.0]);
    row.ours.push_back(Err(Failed::new("the log has given up 7 bytes")));
    let (measured, asked) = measured(row).await;
    assert_eq!(asked, "opopoc");
    assert_eq!((measured.ours, measured.met), (None, Some(false)));
    assert_eq!(measured.failed.as_deref(), Some("the log has given up 7 bytes"));
}

#[test]
fn the_report_has_the_shape_that_scripts_read() {
    let about = Scripted::default().about();
    let runs = Runs { ours: vec![1.0], peer: vec![20.0] };
    let good = Measured::new(about, runs, Ending::default(), false);
    let directory = tempfile::tempdir().unwrap();
    report::write(directory.path(), &Host::look(), std::slice::from_ref(&good)).unwrap();
    let json = std::fs::read(directory.path().join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let row = &json.as_array().unwrap()[0];
    let expected = serde_json::json!({"name": "scripted", "ours": 1.0, "peer": 20.0, "unit": "ms", "better": "lower",
        "ratio": 0.05, "goal": 0.1, "met": true, "runs": {"ours": [1.0], "peer": [20.0]}});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&row[key], value, "{key}");
    }
    assert_eq!(report::read(directory.path()).unwrap().1, [good]);
}

#[test]
fn rows_are_chosen_by_name_and_a_wrong_name_is_told() {
    let names = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        chosen(rows::all(), &names)
            .map(|rows| rows.iter().map(|row| row.about().name).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    };
    assert_eq!(names(&["stdin", "exec"]), Ok(vec!["exec", "stdin"]));
    let all = names(&[]).unwrap();
    assert!(
        all.len() > 5
            && names(&["exce"]).is_err_and(|text| text.contains("`exce`") && text.contains("stdin"))
    );
    let mut once = all.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), all.len(), "each name is one row's");
}
