//! Lines of a table: one line is one row, which is read as a flat JSON document whose members are the columns.
//!
//! So the keys mean what they mean for JSON: numbers are float fields, `true` and `false` are booleans, text is kept only
//! where it is listed, an empty cell is skipped, and a column is named by the path `$.name`. What names the device, the
//! measurement, the timestamp or a tag is taken as it was written, so that `007` stays what it is. Cells may be quoted by `"`,
//! which is doubled inside; a quoted cell is text. A table has the columns that the configuration lists, or those of its
//! header: a line of names, none of which could be a value. A word that a device says before its header looks like one
//! too, so a header stands only from the first row that fits it; then nothing but its own repetition, as by a device that
//! starts over, is taken for a header. Limits: [`super::json::MAX_FIELDS`] columns.

use serde_json::{Map, Number, Value as Json};
use thiserror::Error;

use super::json::MAX_FIELDS;
use crate::config::{Format, Layout, Selector};

/// What is known of the columns of one line.
#[derive(Clone, Debug)]
pub struct Table {
    separator: char,
    columns: Option<Vec<String>>,
    /// The columns are configured, or a row has fitted them: no header changes them any more.
    stands: bool,
    /// Columns whose cells are no fields, and are taken as they were written.
    verbatim: Vec<String>,
}

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CsvError {
    /// Nothing says what the cells are.
    #[error("no header line has come yet; write `columns`, or restart the device to get its header")]
    NoColumns,
    /// More or fewer cells than columns.
    #[error("{cells} cells, and there are {columns} columns")]
    Width {
        /// Cells of this line.
        cells: usize,
        /// Columns of the table.
        columns: usize,
    },
    /// A quoted cell does not end, or something stands behind its end.
    #[error("a quoted cell does not end at a separator")]
    OpenQuote,
    /// A header names a column twice.
    #[error("the header names {0:?} twice")]
    TwoColumns(String),
    /// Too many cells.
    #[error("more than {MAX_FIELDS} cells in one line")]
    TooManyCells,
}

/// A cell of a line.
struct Cell {
    text: String,
    quoted: bool,
}

impl Table {
    /// The table that a layout speaks of, if it speaks of one, before any line of it.
    #[must_use]
    pub fn of(layout: &Layout) -> Option<Table> {
        let Format::Csv { columns, separator } = &layout.format else { return None };
        let selected =
            [&layout.device, &layout.measurement].into_iter().filter_map(|selector| match selector {
                Some(Selector::Path(path)) => Some(path),
                _ => None,
            });
        let paths = selected.chain(&layout.timestamp).chain(&layout.tags_from);
        let verbatim: Vec<String> = paths.filter_map(|path| path.column().map(str::to_owned)).collect();
        Some(Table { separator: *separator, columns: columns.clone(), stands: columns.is_some(), verbatim })
    }

    /// Reads a line. `None` for a header, which is no row.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(&mut self, line: &str) -> Result<Option<Json>, CsvError> {
        let cells = cells(line, self.separator)?;
        if self.columns.as_ref().is_some_and(|columns| repeats(columns, &cells)) {
            return Ok(None);
        }
        if !self.stands && self.may_be_header(&cells) {
            self.columns = Some(columns(cells)?);
            return Ok(None);
        }
        let columns = self.columns.as_ref().ok_or(CsvError::NoColumns)?;
        if cells.len() != columns.len() {
            return Err(CsvError::Width { cells: cells.len(), columns: columns.len() });
        }
        self.stands = true;
        let named = columns.iter().zip(cells).filter(|(name, _)| !name.is_empty());
        let members = named.map(|(name, cell)| {
            let is_verbatim = self.verbatim.contains(name) && !cell.text.is_empty();
            (name.clone(), if is_verbatim { Json::String(cell.text) } else { value(cell) })
        });
        Ok(Some(Json::Object(members.collect::<Map<_, _>>())))
    }
}

impl Table {
    /// Whether a line must be the header that is still to come, whatever may be missing before it: it has all columns
    /// that the configuration names.
    #[must_use]
    pub fn expects(&self, line: &str) -> bool {
        let is_header = |cells: Vec<Cell>| are_names(&cells) && self.names_all(&texts(&cells));
        !self.stands && !self.verbatim.is_empty() && cells(line, self.separator).is_ok_and(is_header)
    }

    fn names_all(&self, names: &[&str]) -> bool {
        self.verbatim.iter().all(|name| names.contains(&name.as_str()))
    }

    /// As long as there was no row, another header may take the place of the first, but a row of words may not: one that
    /// is of another width, or has columns of the configuration that the first has not.
    fn may_be_header(&self, cells: &[Cell]) -> bool {
        let Some(columns) = &self.columns else { return are_names(cells) };
        let present: Vec<&str> = columns.iter().map(String::as_str).collect();
        let is_better = self.names_all(&texts(cells)) && !self.names_all(&present);
        are_names(cells) && (columns.len() != cells.len() || is_better)
    }
}

fn are_names(cells: &[Cell]) -> bool {
    cells.iter().all(|cell| is_name(&cell.text))
}

fn texts(cells: &[Cell]) -> Vec<&str> {
    cells.iter().map(|cell| cell.text.as_str()).collect()
}

/// Whether a line repeats the names of the columns.
fn repeats(columns: &[String], cells: &[Cell]) -> bool {
    columns.len() == cells.len()
        && columns.iter().zip(cells).all(|(name, cell)| name.is_empty() || *name == cell.text)
}

fn is_name(text: &str) -> bool {
    let begins = text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    begins && !matches!(scalar(text), Json::Bool(_) | Json::Number(_)) && !text.contains(char::is_control)
}

fn columns(cells: Vec<Cell>) -> Result<Vec<String>, CsvError> {
    let mut names: Vec<String> = Vec::with_capacity(cells.len());
    for cell in cells {
        if names.contains(&cell.text) {
            return Err(CsvError::TwoColumns(cell.text));
        }
        names.push(cell.text);
    }
    Ok(names)
}

fn cells(line: &str, separator: char) -> Result<Vec<Cell>, CsvError> {
    let mut cells = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        if cells.len() == MAX_FIELDS {
            return Err(CsvError::TooManyCells);
        }
        let trimmed = text.trim_start_matches(' ');
        let (cell, behind) = match trimmed.strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted, separator)?,
            None => {
                let (cell, behind) =
                    text.split_once(separator).map_or((text, None), |(cell, behind)| (cell, Some(behind)));
                (Cell { text: cell.trim().to_owned(), quoted: false }, behind)
            }
        };
        cells.push(cell);
        rest = behind;
    }
    Ok(cells)
}

/// The cell whose opening quote is passed, and what is behind the separator that ends it.
fn quoted_cell(quoted: &str, separator: char) -> Result<(Cell, Option<&str>), CsvError> {
    let mut text = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"').ok_or(CsvError::OpenQuote)?;
        text.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => {
                let behind = after.trim_start_matches(' ');
                let cell = Cell { text, quoted: true };
                return match behind.strip_prefix(separator) {
                    Some(behind) => Ok((cell, Some(behind))),
                    None if behind.is_empty() => Ok((cell, None)),
                    None => Err(CsvError::OpenQuote),
                };
            }
        }
    }
}

fn value(cell: Cell) -> Json {
    if cell.quoted { Json::String(cell.text) } else { scalar(&cell.text) }
}

/// What an unquoted cell stands for.
fn scalar(text: &str) -> Json {
    match text {
        "" => Json::Null,
        "true" | "True" | "TRUE" => Json::Bool(true),
        "false" | "False" | "FALSE" => Json::Bool(false),
        _ => number(text).map_or_else(|| Json::String(text.to_owned()), Json::Number),
    }
}

/// A number as devices print them, which is more than JSON allows: `+1`, `.5`, `007`, `5.`; `nan` is none.
fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::{JsonPath, TimestampFormat};

    fn table(columns: Option<&[&str]>, separator: char) -> Table {
        let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let path = |text| JsonPath::parse(text).unwrap();
        let layout = Layout {
            device: Some(Selector::Path(path("$.id"))),
            measurement: Some(Selector::Fixed("m".to_owned())),
            timestamp: Some(path("$.at")),
            timestamp_format: Some(TimestampFormat::Seconds),
            tags_from: vec![path("$.tag")],
            ..Layout::of(Format::Csv { columns, separator })
        };
        Table::of(&layout).unwrap()
    }

    #[test]
    fn names_and_times_are_taken_as_they_were_written() {
        let mut table = table(Some(&["id", "at", "tag", "t"]), ',');
        let row = table.read("007,1700000000.123456789,+1,+1").unwrap().unwrap();
        assert_eq!(row, json!({"id": "007", "at": "1700000000.123456789", "tag": "+1", "t": 1}));
        assert_eq!(
            table.read(",,,1").unwrap().unwrap(),
            json!({"id": null, "at": null, "tag": null, "t": 1})
        );
    }

    #[test]
    fn cells_become_members_by_type() {
        let mut table = table(Some(&["t", "", "n", "ok", "say", "none", "big"]), ',');
        let row =
            table.read("21.50, skipped ,+007,TRUE,\"a, \"\"b\"\"\",,1700000000123456789").unwrap().unwrap();
        let expected = json!({"t": 21.5, "n": 7, "ok": true, "say": "a, \"b\"", "none": null,
            "big": 1_700_000_000_123_456_789_i64});
        assert_eq!(row, expected);
        assert_eq!(
            table.read("nan,,1,x,y,,-.5").unwrap().unwrap(),
            json!({"t": "nan", "n": 1, "ok": "x",
            "say": "y", "none": null, "big": -0.5})
        );
    }

    #[test]
    fn a_header_names_the_columns_and_stands_once_a_row_fits_it() {
        let mut table = table(None, ';');
        assert_eq!(table.read("1;2"), Err(CsvError::NoColumns));
        assert_eq!(table.read("Booting"), Ok(None));
        assert_eq!(table.read("1;2"), Err(CsvError::Width { cells: 2, columns: 1 }));
        assert_eq!(table.read("a;a"), Err(CsvError::TwoColumns("a".to_owned())));
        assert_eq!(table.read("t;h"), Ok(None));
        assert_eq!(table.read("1;2"), Ok(Some(json!({"t": 1, "h": 2}))));
        assert_eq!(
            table.read("on;off"),
            Ok(Some(json!({"t": "on", "h": "off"}))),
            "text is no header any more"
        );
        assert_eq!(table.read("Booting"), Err(CsvError::Width { cells: 1, columns: 2 }));
        assert_eq!(table.read("t;h"), Ok(None), "a device that starts over says its header again");
        assert_eq!(table.read("3;4"), Ok(Some(json!({"t": 3, "h": 4}))));
    }

    #[test]
    fn a_row_of_words_is_no_header() {
        let mut table = table(None, ';');
        assert_eq!(table.read("door;state"), Ok(None));
        assert_eq!(table.read("front;open"), Ok(Some(json!({"door": "front", "state": "open"}))));
    }

    #[test]
    fn configured_columns_stand_and_their_header_is_no_row() {
        let mut table = table(Some(&["name", "", "t"]), '\t');
        assert_eq!(table.read("name\twhatever\tt"), Ok(None));
        assert_eq!(table.read("a\tb\tc"), Ok(Some(json!({"name": "a", "t": "c"}))), "text is no header");
        assert_eq!(table.read("a\tb"), Err(CsvError::Width { cells: 2, columns: 3 }));
    }

    #[test]
    fn empty_cells_at_the_edges_count_whatever_separates_them() {
        let mut table = table(Some(&["a", "b", "c"]), '\t');
        assert_eq!(table.read("\t1\t"), Ok(Some(json!({"a": null, "b": 1, "c": null}))));
    }

    #[test]
    fn broken_quotes_are_refused() {
        let mut table = table(Some(&["a", "b"]), ',');
        for line in ["\"x,1", "\"x\"y,1", "1,\""] {
            assert_eq!(table.read(line), Err(CsvError::OpenQuote), "{line}");
        }
    }

    #[test]
    fn too_many_cells_are_refused() {
        assert_eq!(table(None, ',').read(&",".repeat(MAX_FIELDS)), Err(CsvError::TooManyCells));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC{0,100}|[a1,\" .+-]{0,60}") {
            let mut table = table(None, ',');
            for line in [line.as_str(), "a,b", line.as_str()] {
                if let Ok(Some(row)) = table.read(line) {
                    prop_assert!(row.is_object());
                }
            }
        }
    }
}
