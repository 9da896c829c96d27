//! How a benchmark's findings reach people and programs: a table or JSON on standard output, a plot in a file, and
//! the bars that ours has to clear.

use std::fmt;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::cli::Common;
use crate::progress;

/// Something that ours has to reach.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Bar {
    name: String,
    /// None if it could not be measured here.
    value: Option<f64>,
    bound: &'static str,
    limit: f64,
    /// None if it could not be measured here.
    pass: Option<bool>,
}

/// Rows of text under headings, the columns aligned.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Bar {
    pub(crate) fn at_most(name: &str, value: Option<f64>, limit: f64) -> Bar {
        Bar { name: name.into(), value, bound: "at most", limit, pass: value.map(|v| v <= limit) }
    }

    pub(crate) fn at_least(name: &str, value: Option<f64>, limit: f64) -> Bar {
        Bar { name: name.into(), value, bound: "at least", limit, pass: value.map(|v| v >= limit) }
    }
}

impl Table {
    pub(crate) fn new(corner: &str, headings: &[&str]) -> Table {
        let headings = headings.iter().copied().map(str::to_owned);
        Table { rows: vec![std::iter::once(corner.to_owned()).chain(headings).collect()] }
    }

    pub(crate) fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        self.rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            self.rows.iter().filter_map(move |row| row.get(column)).map(|cell: &String| cell.chars().count())
        };
        let widths: Vec<usize> = (0..columns).map(|column| width_of(column).max().unwrap_or(0)).collect();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    write!(f, "{cell:width$}")?;
                } else {
                    write!(f, "  {cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Prints the report and writes the plot; whether every bar was met that could be measured.
pub(crate) fn publish<R: Serialize>(
    common: &Common,
    bench: &str,
    report: &R,
    table: &str,
    bars: &[Bar],
    plot: &str,
) -> Result<bool> {
    if common.json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{table}\n{}", verdicts(bars));
        if common.quick {
            println!("(--quick shows that the benchmark works; its figures say little)");
        }
    }
    let path = match &common.svg {
        Some(path) => path.clone(),
        None => common.directory()?.join(format!("{bench}.svg")),
    };
    fs::write(&path, plot).with_context(|| format!("cannot write {}", path.display()))?;
    progress!("plot: {}", path.display());
    Ok(bars.iter().all(|bar| bar.pass != Some(false)))
}

/// A figure with so many digits behind the point.
pub(crate) fn number(figure: f64, digits: usize) -> String {
    if figure.is_nan() {
        return "?".into();
    }
    let text = format!("{figure:.digits$}");
    let (whole, rest) = text.find('.').map_or((text.as_str(), ""), |at| text.split_at(at));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn verdicts(bars: &[Bar]) -> String {
    let mut table = Table::new("bar", &["measured", "", "limit", ""]);
    for bar in bars {
        let verdict = match bar.pass {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured here",
        };
        let measured = bar.value.map_or("-".into(), |value| number(value, 3));
        table.row(&bar.name, [measured, bar.bound.into(), number(bar.limit, 2), verdict.into()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped_by_thousands() {
        for (figure, digits, text) in
            [(1_234_567.4, 0, "1,234,567"), (-123.45, 1, "-123.5"), (999.0, 2, "999.00"), (f64::NAN, 1, "?")]
        {
            assert_eq!(number(figure, digits), text);
        }
    }

    #[test]
    fn a_bar_is_met_at_its_limit_and_undecided_without_a_figure() {
        assert_eq!(Bar::at_most("x", Some(1.3), 1.3).pass, Some(true));
        assert_eq!(Bar::at_most("x", Some(1.31), 1.3).pass, Some(false));
        assert_eq!(Bar::at_least("x", Some(2.4), 2.5).pass, Some(false));
        assert_eq!(Bar::at_least("x", None, 2.5).pass, None);
    }
}
