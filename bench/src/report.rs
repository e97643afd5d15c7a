//! What came of a run: `report.json`, a list of rows, and `machine.json` beside it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::figures::median;
use crate::host::Host;
use crate::row::{About, Better, Failed, Trying as _};

const REPORT: &str = "report.json";
const HOST: &str = "machine.json";

/// One row, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub name: String,
    /// The median; `None`: the row failed.
    pub ours: Option<f64>,
    /// The median; `None`: there is no peer, or it is missing.
    pub peer: Option<f64>,
    pub unit: String,
    pub better: Better,
    /// ours / peer.
    pub ratio: Option<f64>,
    /// For the ratio.
    pub goal: Option<f64>,
    /// `None`: there is no goal, or no peer to hold ours against. A row that failed has not met its goal.
    pub met: Option<bool>,
    pub runs: Runs,
    pub ours_is: String,
    pub peer_is: Option<String>,
    pub meaning: String,
    /// Why there is nothing to compare with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer_missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failed: Option<String>,
    /// Sizes were reduced.
    pub quick: bool,
}

/// Each run's own figure, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    pub ours: Vec<f64>,
    pub peer: Vec<f64>,
}

/// How a row ended beside its figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    pub peer_missing: Option<Failed>,
    pub failed: Option<Failed>,
}

impl Measured {
    pub fn new(about: About, runs: Runs, ending: Ending, quick: bool) -> Self {
        let failed = ending.failed.is_some();
        let (ours, peer) = match failed {
            true => (None, None),
            false => (median(&runs.ours), median(&runs.peer)),
        };
        let ratio = ours.zip(peer).filter(|(_, peer)| *peer > 0.0).map(|(ours, peer)| ours / peer);
        let met = match (failed, about.goal) {
            (true, Some(_)) => Some(false),
            (_, goal) => ratio.zip(goal).map(|(ratio, goal)| about.better.met(ratio, goal)),
        };
        Self {
            name: about.name.to_owned(),
            ours,
            peer,
            unit: about.unit.to_owned(),
            better: about.better,
            ratio,
            goal: about.goal,
            met,
            runs,
            ours_is: about.ours.to_owned(),
            peer_is: about.peer.map(str::to_owned),
            meaning: about.meaning.to_owned(),
            peer_missing: ending.peer_missing.map(|why| why.to_string()),
            failed: ending.failed.map(|why| why.to_string()),
            quick,
        }
    }
}

/// Writes both files, and makes the directory.
///
/// # Errors
/// Names the file.
pub fn write(directory: &Path, host: &Host, rows: &[Measured]) -> Result<(), Failed> {
    fs::create_dir_all(directory).trying(&format!("make `{}`", directory.display()))?;
    write_json(&directory.join(REPORT), rows)?;
    write_json(&directory.join(HOST), host)
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// Names the file.
pub fn read(directory: &Path) -> Result<(Host, Vec<Measured>), Failed> {
    Ok((read_json(&directory.join(HOST))?, read_json(&directory.join(REPORT))?))
}

fn write_json(path: &Path, value: &(impl Serialize + ?Sized)) -> Result<(), Failed> {
    let mut json = serde_json::to_string_pretty(value).trying("write a report")?;
    json.push('\n');
    fs::write(path, json).trying(&format!("write `{}`", path.display()))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failed> {
    let json = fs::read(path).trying(&format!("read `{}` (the bench writes it)", path.display()))?;
    serde_json::from_slice(&json).trying(&format!("understand `{}`", path.display()))
}
