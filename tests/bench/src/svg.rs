//! Plots as SVG: bars side by side, and curves.

use std::fmt::Write as _;

use crate::publish::number;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 18.0;
const GAP: f64 = 6.0;
const PANEL_HEADING: f64 = 26.0;
const CURVE: f64 = 170.0;
const COLOURS: [&str; 4] = ["#1b6ca8", "#9aa5b1", "#c2a878", "#8fb39a"];

/// One figure of several things, as bars.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) heading: String,
    pub(crate) digits: usize,
    pub(crate) bars: Vec<(String, f64)>,
}

/// One figure over several points, joined; both in the order of the points, heights logarithmic.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) heading: String,
    pub(crate) digits: usize,
    pub(crate) points: Vec<(String, f64)>,
}

/// Panels of bars below each other, each with a scale of its own.
pub(crate) fn bars(title: &str, panels: &[Panel]) -> String {
    let mut body = String::new();
    let mut y = 48.0;
    for panel in panels {
        text(&mut body, LEFT, y, "start", &panel.heading, true);
        y += PANEL_HEADING - 16.0;
        let most = panel.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for ((name, value), colour) in panel.bars.iter().zip(COLOURS.iter().cycle()) {
            let length = (value / most * (WIDTH - LEFT - RIGHT)).max(1.0);
            let (baseline, end) = (y + BAR - 5.0, LEFT + length + 6.0);
            text(&mut body, LEFT - 8.0, baseline, "end", name, false);
            rectangle(&mut body, LEFT, y, length, colour);
            text(&mut body, end, baseline, "start", &number(*value, panel.digits), false);
            y += BAR + GAP;
        }
        y += PANEL_HEADING;
    }
    document(title, y, &body)
}

/// Curves below each other over the same points.
pub(crate) fn curves(title: &str, below: &str, curves: &[Curve]) -> String {
    let mut body = String::new();
    let mut y = 48.0;
    for curve in curves {
        text(&mut body, LEFT, y, "start", &curve.heading, true);
        let values = || curve.points.iter().map(|(_, value)| value.max(f64::MIN_POSITIVE).log10());
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        let step = (WIDTH - LEFT - RIGHT) / (curve.points.len().max(2) - 1) as f64;
        let top = y + 34.0;
        let mut line = String::new();
        for (at, (value, (name, figure))) in values().zip(&curve.points).enumerate() {
            let x = LEFT + at as f64 * step;
            let height = (value - least) / (most - least).max(f64::MIN_POSITIVE);
            let point = top + (1.0 - height) * (CURVE - 60.0);
            let _ = write!(line, "{x:.1},{point:.1} ");
            let colour = COLOURS[0];
            let _ = writeln!(body, r#"<circle cx="{x:.1}" cy="{point:.1}" r="4" fill="{colour}"/>"#);
            text(&mut body, x, point - 10.0, "middle", &number(*figure, curve.digits), false);
            text(&mut body, x, y + CURVE, "middle", name, false);
        }
        let colour = COLOURS[0];
        let _ =
            writeln!(body, r#"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
        y += CURVE + PANEL_HEADING + 10.0;
    }
    text(&mut body, WIDTH / 2.0, y, "middle", below, false);
    document(title, y + 20.0, &body)
}

fn document(title: &str, height: f64, body: &str) -> String {
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
"#
    );
    let _ =
        write!(out, r#"<text x="{LEFT}" y="24" font-size="16" font-weight="bold">{}</text>"#, escape(title));
    out + "\n" + body + "</svg>\n"
}

fn rectangle(out: &mut String, x: f64, y: f64, width: f64, colour: &str) {
    let _ = writeln!(out, r#"<rect x="{x}" y="{y:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#);
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, what: &str, bold: bool) {
    let weight = if bold { r#" font-weight="bold""# } else { "" };
    let what = escape(what);
    let _ = writeln!(out, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{weight}>{what}</text>"#);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_stands_in_the_plot() {
        let points: Vec<(String, f64)> = vec![("a<b".into(), 12.0), ("c".into(), 3_456.0)];
        let panel = Panel { heading: "h".into(), digits: 0, bars: points.clone() };
        let curve = Curve { heading: "h".into(), digits: 0, points };
        for plot in [bars("t", &[panel]), curves("t", "x", &[curve])] {
            for part in ["a&lt;b", ">12<", ">3,456<", "</svg>"] {
                assert!(plot.contains(part), "{part} in {plot}");
            }
        }
    }
}
