//! The report for a terminal.

use crate::figures::{shown, spread};
use crate::report::Measured;
use crate::row::{About, Better};

/// Names and what they compare.
pub fn list(rows: impl Iterator<Item = About>) -> String {
    rows.map(|row| {
        let peer = row.peer.map(|peer| format!(" against {peer}")).unwrap_or_default();
        format!("{:<16} {}{peer}\n", row.name, row.ours)
    })
    .collect()
}

/// A line for each row, and below what could not be measured.
pub fn render(rows: &[Measured]) -> String {
    let header = ["row", "ours", "peer", "unit", "ratio", "goal", "met"].map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    let widths: Vec<usize> = (0..7)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    for row in rows {
        if let Some(why) = &row.failed {
            text.push_str(&format!("{}: failed: {why}\n", row.name));
        }
        if let Some(why) = &row.peer_missing {
            text.push_str(&format!("{}: peer missing: {why}\n", row.name));
        }
    }
    text
}

fn cells(row: &Measured) -> [String; 7] {
    [
        row.name.clone(),
        side(row.ours, &row.runs.ours),
        side(row.peer, &row.runs.peer),
        row.unit.clone(),
        row.ratio.map(shown).unwrap_or_else(|| "-".to_owned()),
        goal(row),
        verdict(row).to_owned(),
    ]
}

/// The median, and its spread.
pub fn side(figure: Option<f64>, runs: &[f64]) -> String {
    match figure.zip(spread(runs)) {
        Some((figure, (least, greatest))) => {
            format!("{} ({}..{})", shown(figure), shown(least), shown(greatest))
        }
        None => "-".to_owned(),
    }
}

/// What the ratio is held against.
pub fn goal(row: &Measured) -> String {
    match (row.goal, row.better) {
        (Some(goal), Better::Lower) => format!("<= {}", shown(goal)),
        (Some(goal), Better::Higher) => format!(">= {}", shown(goal)),
        (None, _) => "-".to_owned(),
    }
}

pub fn verdict(row: &Measured) -> &'static str {
    match (&row.failed, &row.peer_missing, row.met) {
        (Some(_), ..) => "FAILED",
        (None, Some(_), _) => "no peer",
        (None, None, Some(true)) => "yes",
        (None, None, Some(false)) => "NO",
        (None, None, None) => "-",
    }
}
