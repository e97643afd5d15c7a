//! docs/performance.md and its charts, from a report: no figure in them is written by hand.

mod chart;

use std::fs;
use std::path::Path;

use crate::figures::shown;
use crate::host::Host;
use crate::report::Measured;
use crate::row::{Failed, Trying as _};
use crate::table::{goal, side, verdict};

const PAGE: &str = "performance.md";
const CHARTS: &str = "performance";

const HEAD: &str = include_str!("page/head.md");
const TAIL: &str = include_str!("page/tail.md");

/// Writes the page and a chart for each row, and removes charts of rows that are no more.
///
/// # Errors
/// Names the file.
pub fn write(docs: &Path, host: &Host, rows: &[Measured]) -> Result<(), Failed> {
    let charts = docs.join(CHARTS);
    fs::create_dir_all(&charts).trying(&format!("make `{}`", charts.display()))?;
    for entry in fs::read_dir(&charts).trying("list the charts")?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "svg") {
            fs::remove_file(entry.path()).trying("remove an old chart")?;
        }
    }
    for (name, svg) in rows.iter().filter_map(|row| Some((&row.name, chart::draw(row)?))) {
        let path = charts.join(format!("{name}.svg"));
        fs::write(&path, svg).trying(&format!("write `{}`", path.display()))?;
    }
    let path = docs.join(PAGE);
    fs::write(&path, render(host, rows)).trying(&format!("write `{}`", path.display()))
}

/// The page's text.
pub fn render(host: &Host, rows: &[Measured]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str(&measured_on(host, rows));
    page.push_str("\n## Figures\n\n| row | creel | peer | unit | creel / peer | goal | met |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for row in rows {
        page.push_str(&format!(
            "| [`{0}`](#{0}) | {1} | {2} | {3} | {4} | {5} | {6} |\n",
            row.name,
            side(row.ours, &row.runs.ours),
            side(row.peer, &row.runs.peer),
            row.unit,
            row.ratio.map(shown).unwrap_or_else(|| "-".to_owned()),
            goal(row),
            verdict(row),
        ));
    }
    page.push_str(
        "\nEach figure is the median of the runs, with the least and the greatest of them.\n\n## Rows\n",
    );
    for row in rows {
        page.push_str(&section(row));
    }
    page.push('\n');
    page.push_str(TAIL);
    page
}

fn section(row: &Measured) -> String {
    let mut text = format!("\n### {}\n\n{}\n", row.name, row.meaning);
    if let Some(why) = &row.failed {
        text.push_str(&format!("\nIt failed in this run: {why}\n"));
    } else if let Some(why) = &row.peer_missing {
        text.push_str(&format!("\nThe peer was missing in this run: {why}\n"));
    }
    if row.ours.is_some() && row.failed.is_none() {
        text.push_str(&format!("\n![{} in {}]({CHARTS}/{}.svg)\n", row.name, row.unit, row.name));
    }
    text
}

fn measured_on(host: &Host, rows: &[Measured]) -> String {
    let Host { cores, memory_mib, processor, kernel, measured_at, creel, docker, qemu, accel, runs } = host;
    let date = measured_at.split('T').next().unwrap_or_default();
    let docker = if docker.is_empty() { "none" } else { docker };
    let mut text = format!(
        "| | |\n| --- | --- |\n| measured on | {date} |\n| processor | {processor}, {cores} cores |\n| memory | {memory_mib} \
         MiB |\n| kernel | {kernel} |\n| microVMs | {} |\n| creel | {creel} |\n| QEMU | {qemu} |\n| Docker | {docker} |\n| \
         runs | {runs} of each side |\n",
        match accel.as_str() {
            "tcg" => "emulated (TCG): KVM can't be used on that machine",
            other => other,
        },
    );
    if rows.iter().any(|row| row.quick) {
        text.push_str("\nSizes were reduced (`--quick`): these figures are not to be published.\n");
    }
    text
}

#[cfg(test)]
mod tests;
