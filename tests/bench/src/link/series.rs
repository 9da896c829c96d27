//! The series of `tests/bench/fixtures`, as a device samples them.
//!
//! They were made once by `fixtures/generate.py`, which says what is in them, before anything was measured on them.

use anyhow::{Context as _, Result, ensure};
use forebay_shared::ids::Tick;
use forebay_shared::reading::{Channel, Group, Groups, Value, ValueKind};

/// Rows of one group.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) groups: Groups,
    pub(super) group: &'static Group,
    pub(super) tick_hz: u32,
    /// Most bytes that a reading may take, where that was promised.
    pub(super) bar: Option<f64>,
    pub(super) rows: Vec<Row>,
}

/// One sample of all channels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) tick: Tick,
    pub(super) values: Vec<Option<Value>>,
}

/// What is known of a series before its file is read.
struct Kind {
    name: &'static str,
    groups: Groups,
    group: &'static Group,
    tick_hz: u32,
    bar: Option<f64>,
    csv: &'static str,
}

const fn channel(name: &'static str, unit: &'static str, kind: ValueKind, scale: i8) -> Channel {
    Channel { name, unit, kind, scale }
}

const SLOW: &[Group] =
    &[Group { name: "room", channels: &[channel("temperature", "°C", ValueKind::I32, -2)] }];
const VIBRATION: &[Group] = &[Group {
    name: "vibration",
    channels: &[
        channel("x", "", ValueKind::I32, 0),
        channel("y", "", ValueKind::I32, 0),
        channel("z", "", ValueKind::I32, 0),
    ],
}];
const COUNTER: &[Group] = &[Group { name: "meter", channels: &[channel("pulses", "", ValueKind::U32, 0)] }];
const CLIMATE: &[Group] = &[Group {
    name: "climate",
    channels: &[
        channel("temperature", "°C", ValueKind::I32, -2),
        channel("humidity", "%", ValueKind::I32, -2),
        channel("pressure", "Pa", ValueKind::F32, 0),
        channel("co2", "ppm", ValueKind::U32, 0),
    ],
}];

const KINDS: [Kind; 4] = [
    Kind {
        name: "slow",
        groups: Groups::new(SLOW),
        group: &SLOW[0],
        tick_hz: 1_000,
        bar: Some(0.75),
        csv: include_str!("../../fixtures/slow.csv"),
    },
    Kind {
        name: "vibration",
        groups: Groups::new(VIBRATION),
        group: &VIBRATION[0],
        tick_hz: 1_000_000,
        bar: Some(2.0),
        csv: include_str!("../../fixtures/vibration.csv"),
    },
    Kind {
        name: "counter",
        groups: Groups::new(COUNTER),
        group: &COUNTER[0],
        tick_hz: 1_000,
        bar: Some(1.0),
        csv: include_str!("../../fixtures/counter.csv"),
    },
    Kind {
        name: "climate",
        groups: Groups::new(CLIMATE),
        group: &CLIMATE[0],
        tick_hz: 1_000,
        bar: None,
        csv: include_str!("../../fixtures/climate.csv"),
    },
];

/// All series.
pub(super) fn all() -> Result<Vec<Series>> {
    KINDS.iter().map(|kind| kind.read().with_context(|| format!("fixtures/{}.csv", kind.name))).collect()
}

/// The series that keeps a line busy.
pub(super) fn vibration() -> Result<Series> {
    KINDS[1].read().context("fixtures/vibration.csv")
}

impl Kind {
    fn read(&self) -> Result<Series> {
        let mut lines = self.csv.lines();
        let channels = self.group.channels;
        let names = channels.iter().map(|channel| channel.name);
        let heading: Vec<&str> = std::iter::once("tick").chain(names).collect();
        ensure!(lines.next() == Some(heading.join(",").as_str()), "the columns are not {heading:?}");
        let rows =
            lines.map(|line| row(line, channels).with_context(|| line.to_owned())).collect::<Result<_>>()?;
        let Kind { name, groups, group, tick_hz, bar, .. } = *self;
        Ok(Series { name, groups, group, tick_hz, bar, rows })
    }
}

fn row(line: &str, channels: &[Channel]) -> Result<Row> {
    let (tick, cells) = line.split_once(',').context("one column")?;
    let cells: Vec<&str> = cells.split(',').collect();
    ensure!(cells.len() == channels.len(), "{} cells", cells.len());
    let value = |(cell, channel): (&&str, &Channel)| -> Result<Option<Value>> {
        if cell.is_empty() {
            return Ok(None);
        }
        Ok(Some(match channel.kind {
            ValueKind::Bool => Value::Bool(cell.parse()?),
            ValueKind::I32 => Value::I32(cell.parse()?),
            ValueKind::U32 => Value::U32(cell.parse()?),
            ValueKind::F32 => Value::F32(cell.parse()?),
        }))
    };
    let values = cells.iter().zip(channels).map(value).collect::<Result<_>>()?;
    Ok(Row { tick: Tick(tick.parse()?), values })
}

impl Series {
    /// Values, of all rows together.
    pub(super) fn readings(&self) -> usize {
        self.rows.iter().map(|row| row.values.iter().flatten().count()).sum()
    }

    /// Only the first rows.
    pub(super) fn cut(mut self, rows: usize) -> Series {
        self.rows.truncate(rows);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_whole() {
        let all = all().unwrap();
        let sizes: Vec<_> = all.iter().map(|series| (series.rows.len(), series.readings())).collect();
        assert_eq!(sizes, [(8_640, 8_640), (10_000, 30_000), (5_760, 5_760), (2_880, 11_509)]);
        assert!(all.iter().all(|series| series.rows.is_sorted_by(|a, b| a.tick < b.tick)));
        assert_eq!(all[3].rows[0].values[2], Some(Value::F32(100_850.58)));
        let empty = all[3].rows.iter().find(|row| row.values[3].is_none()).unwrap();
        assert_eq!(empty.values.iter().flatten().count(), 3);
    }
}
