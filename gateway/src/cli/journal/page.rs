//! Files, findings and totals, for people. Text from outside is made harmless for the terminal.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::plain;
use crate::journal::inspect::{FileKind, FileReport, Finding, Inspection, Looked, Place};
use crate::record::Offset;

pub(super) fn push_file(page: &mut String, file: &FileReport) {
    let name = plain(&file.name);
    let kind = word(&file.kind);
    let text = match file.kind {
        FileKind::Segment => format!(
            "{name}  {kind}  {}..{}  {} entries  {} rows  {} of {} bytes  {}{}",
            shown(file.first),
            shown(file.end),
            file.entries,
            file.rows,
            file.used_bytes,
            file.bytes,
            word(&file.state),
            if file.newest_snapshot { "  newest snapshot" } else { "" }
        ),
        FileKind::Other | FileKind::Lock => format!("{name}  {kind}  {} bytes", file.bytes),
        FileKind::Spare | FileKind::EndMark | FileKind::RepairNote => {
            format!("{name}  {kind}  {} bytes  {}", file.bytes, word(&file.state))
        }
    };
    line(page, &text);
}

pub(super) fn push_finding(page: &mut String, what: &str, finding: &Finding) {
    let places: Vec<String> = finding.places.iter().map(place).collect();
    let mut text =
        format!("{what}: {}", if places.is_empty() { "no file".into() } else { places.join(" and ") });
    if let Some((from, to)) = finding.offsets {
        // Formatting into a String cannot fail.
        let last = Offset(to.0.saturating_sub(1));
        let _ = if from < last {
            write!(text, ", entries {from} to {last}")
        } else {
            write!(text, ", entry {from}")
        };
        let _ = match finding.rows {
            Some(1) => write!(text, ", 1 row"),
            Some(rows) => write!(text, ", {rows} rows"),
            None => write!(text, ", an unknown number of rows"),
        };
        if finding.delivered {
            text.push_str(", which no database waits for");
        }
    }
    let _ = write!(text, ": {}", finding.kind.meaning());
    line(page, &text);
}

/// Bytes of a file, for people: the last one included.
pub(super) fn place(place: &Place) -> String {
    let file = plain(&place.file);
    match place.bytes {
        Some((from, to)) if from < to => format!("{file} bytes {from} to {}", to - 1),
        Some((from, _)) => format!("{file} at byte {from}"),
        None => format!("{file}, which is missing"),
    }
}

pub(super) fn push_running(page: &mut String, looked: &Looked) {
    if let Some(pid) = &looked.running {
        let pid = plain(pid);
        line(
            page,
            &format!("a gateway is running (process {pid}): what it writes just now is not looked at"),
        );
    }
}

pub(super) fn push_totals(page: &mut String, inspection: &Inspection) {
    let damage = &inspection.damage;
    let verdict = if damage.is_empty() { "all is well" } else { "DAMAGED" };
    let mut text = format!(
        "{verdict}: {} segments, {} frames, {} entries ({} to {}), {} rows",
        segments(inspection),
        inspection.frames,
        inspection.entries,
        inspection.first,
        inspection.end,
        inspection.rows
    );
    if !damage.is_empty() {
        let owed = || damage.iter().filter(|finding| !finding.delivered && finding.offsets.is_some());
        let lost: u64 = owed().filter_map(|finding| finding.rows).sum();
        let least = if owed().all(|finding| finding.rows.is_some()) { "" } else { "at least " };
        let _ = write!(
            text,
            "; damaged in {} places, {least}{lost} rows lost that not every database has. The gateway starts all the same, \
             delivers the rest and declares what is lost; `forebay journal repair --to DIRECTORY` makes a sound copy",
            damage.len()
        );
    }
    line(page, &text);
}

pub(super) fn segments(inspection: &Inspection) -> usize {
    inspection.files.iter().filter(|file| file.kind == FileKind::Segment).count()
}

/// The name of a value in JSON, for people.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word.replace('_', " "),
        _ => String::new(),
    }
}

fn shown(offset: Option<Offset>) -> String {
    offset.map_or_else(|| "-".into(), |offset| offset.to_string())
}

pub(super) fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}
