//! A row as bars, in SVG: ours over the peer's, with the spread of their runs, and the goal as a line.
//!
//! Written by hand, since a chart of two bars needs no library. Colours follow the reader's scheme (CSS Color Adjustment,
//! `prefers-color-scheme`), and text keeps a contrast of 4.5 to 1 in both.

use crate::figures::{shown, spread};
use crate::report::Measured;
use crate::row::Better;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 16.0;
const RIGHT: f64 = 16.0;
const BAR: f64 = 22.0;
/// From one bar's top to the next one's: the label is above its bar.
const STEP: f64 = 52.0;
const TOP: f64 = 46.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.faint{fill:#59636e}\
.ours{fill:#1a7f72}.peer{fill:#8c959f}.spread{stroke:#1f2328;stroke-width:1.5}\
.goal{stroke:#bc4c00;stroke-width:1.5;stroke-dasharray:5 3}.goal-text{fill:#bc4c00}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.ours{fill:#2fb3a3}.peer{fill:#656c76}\
.spread{stroke:#e6edf3}.goal{stroke:#f0883e}.goal-text{fill:#f0883e}}";

struct Bar<'a> {
    class: &'static str,
    label: &'a str,
    figure: f64,
    runs: &'a [f64],
}

/// `None`: there is no figure to draw.
pub fn draw(row: &Measured) -> Option<String> {
    let ours = Bar { class: "ours", label: &row.ours_is, figure: row.ours?, runs: &row.runs.ours };
    let peer = row.peer.map(|figure| Bar {
        class: "peer",
        label: row.peer_is.as_deref().unwrap_or("peer"),
        figure,
        runs: &row.runs.peer,
    });
    let goal = row.goal.zip(row.peer).map(|(goal, peer)| goal * peer);
    let bars: Vec<_> = std::iter::once(ours).chain(peer).collect();
    let greatest = bars.iter().flat_map(|bar| bar.runs.iter().copied().chain([bar.figure])).chain(goal);
    let greatest = greatest.fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / greatest;
    #[expect(clippy::cast_precision_loss, reason = "two bars")]
    let bottom = TOP + bars.len() as f64 * STEP;
    let height = bottom + if goal.is_some() { 24.0 } else { 4.0 };
    let better = match row.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n\
         <style>{STYLE}</style>\n<text class=\"title\" x=\"{LEFT}\" y=\"22\">{}<tspan class=\"faint\" font-weight=\"400\" dx=\"6\">in \
         {}, {better}</tspan></text>\n",
        escaped(&said(row, &bars)),
        escaped(&row.name),
        escaped(&row.unit),
    );
    let mut top = TOP;
    for bar in &bars {
        svg.push_str(&drawn(bar, top, scale));
        top += STEP;
    }
    if let (Some(at), Some(goal)) = (goal, row.goal) {
        let x = LEFT + at * scale;
        let sign = if row.better == Better::Lower { "at most" } else { "at least" };
        // On the side where there is room. The line crosses our bar alone: that is what the goal is for.
        let anchor = if x > WIDTH / 2.0 { "end" } else { "start" };
        svg.push_str(&format!(
            "<line class=\"goal\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\n<text class=\"goal-text\" \
             x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">goal: {sign} {} times the peer</text>\n",
            TOP + 11.0,
            TOP + 17.0 + BAR,
            bottom + 16.0,
            shown(goal),
        ));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn drawn(bar: &Bar<'_>, top: f64, scale: f64) -> String {
    let Bar { class, label, figure, runs } = bar;
    let width = (figure * scale).max(1.0);
    let (least, greatest) = spread(runs).unwrap_or((*figure, *figure));
    let (from, to, middle) = (LEFT + least * scale, LEFT + greatest * scale, top + 14.0 + BAR / 2.0);
    format!(
        "<text x=\"{LEFT}\" y=\"{0:.1}\">{1}</text>\n<text x=\"{2}\" y=\"{0:.1}\" text-anchor=\"end\">{3}<tspan \
         class=\"faint\" dx=\"6\">({4} to {5})</tspan></text>\n<rect class=\"{class}\" x=\"{LEFT}\" y=\"{6:.1}\" \
         width=\"{width:.1}\" height=\"{BAR}\" rx=\"3\"/>\n<line class=\"spread\" x1=\"{from:.1}\" y1=\"{middle:.1}\" \
         x2=\"{to:.1}\" y2=\"{middle:.1}\"/>\n",
        top + 9.0,
        escaped(label),
        WIDTH - RIGHT,
        shown(*figure),
        shown(least),
        shown(greatest),
        top + 14.0,
    )
}

/// For those who don't see it.
fn said(row: &Measured, bars: &[Bar<'_>]) -> String {
    let bars: Vec<_> =
        bars.iter().map(|bar| format!("{}: {} {}", bar.label, shown(bar.figure), row.unit)).collect();
    format!("{}. {}", row.name, bars.join("; "))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
