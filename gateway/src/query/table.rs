//! Rows by time and series, each once, and no more of them than there is room for.
//!
//! Where the room ends, whole instants go, the latest first, and the table remembers from where on it is not complete.
//! So what it holds is always everything before its end, in whatever order it came in, and a page never cuts an instant.

use std::collections::BTreeMap;

/// What a row and a field take beside their texts and values, about, in bytes.
const ROW_BYTES: usize = 96;
const FIELD_BYTES: usize = 48;

/// Values by the name of their field.
pub(super) type Row<V> = BTreeMap<Box<str>, V>;

/// Rows before an end.
#[derive(Debug)]
pub(super) struct Table<V> {
    instants: BTreeMap<i64, Instant<V>>,
    rows: usize,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
    end_ns: i64,
    /// Whether it ends where it does for want of room.
    crowded: bool,
}

#[derive(Debug)]
struct Instant<V> {
    rows: BTreeMap<Box<str>, Row<V>>,
    bytes: usize,
}

impl<V> Table<V> {
    /// An empty table for rows before `end_ns`, at most `rows_max` of about `bytes_max` bytes.
    pub(super) fn new(end_ns: i64, rows_max: usize, bytes_max: usize) -> Table<V> {
        Table { instants: BTreeMap::new(), rows: 0, bytes: 0, rows_max, bytes_max, end_ns, crowded: false }
    }

    /// Everything before this is here, of what was given; nothing from here on is.
    pub(super) fn end_ns(&self) -> i64 {
        self.end_ns
    }

    /// Rows in the table.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Puts a value of `bytes` bytes into the row of an instant and a series. `join` adds it to the value that is there
    /// already, and says by how many bytes that grows.
    pub(super) fn merge(
        &mut self,
        (ns, series): (i64, &str),
        name: &str,
        (value, bytes): (V, usize),
        join: impl FnOnce(&mut V, V) -> usize,
    ) {
        if ns >= self.end_ns {
            return;
        }
        let instant = self.instants.entry(ns).or_insert_with(|| Instant { rows: BTreeMap::new(), bytes: 0 });
        let mut grown = 0;
        if !instant.rows.contains_key(series) {
            instant.rows.insert(series.into(), Row::new());
            self.rows += 1;
            grown += ROW_BYTES + series.len();
        }
        let Some(row) = instant.rows.get_mut(series) else { return };
        match row.get_mut(name) {
            Some(known) => grown += join(known, value),
            None => {
                row.insert(name.into(), value);
                grown += FIELD_BYTES + name.len() + bytes;
            }
        }
        instant.bytes += grown;
        self.bytes += grown;
        while self.rows > self.rows_max || self.bytes > self.bytes_max {
            let Some((last_ns, _)) = self.instants.last_key_value() else { break };
            self.crowd(*last_ns);
        }
    }

    /// Lets go of everything from `end_ns` on.
    pub(super) fn cut(&mut self, end_ns: i64) {
        self.end_ns = self.end_ns.min(end_ns);
        for instant in self.instants.split_off(&self.end_ns).into_values() {
            self.rows -= instant.rows.len();
            self.bytes -= instant.bytes;
        }
    }

    /// The same for want of room: there is more than is wanted.
    pub(super) fn crowd(&mut self, end_ns: i64) {
        self.crowded = true;
        self.cut(end_ns);
    }

    /// Whether one instant alone is more than there is room for.
    pub(super) fn is_overfull(&self) -> bool {
        self.crowded && self.rows == 0
    }

    /// The row of an instant and a series.
    pub(super) fn get(&self, ns: i64, series: &str) -> Option<&Row<V>> {
        self.instants.get(&ns)?.rows.get(series)
    }

    /// The instants at which there are rows, in order.
    pub(super) fn instants(&self) -> impl Iterator<Item = i64> {
        self.instants.keys().copied()
    }

    /// The rows with their instants and series, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &str, &Row<V>)> {
        self.instants
            .iter()
            .flat_map(|(ns, instant)| instant.rows.iter().map(|(series, row)| (*ns, &**series, row)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was put in: instant, series, field, value.
    type Given = (i64, u8, u8, u32);

    fn fill(given: &[Given], rows_max: usize) -> Table<u32> {
        let mut table = Table::new(100, rows_max, usize::MAX);
        for (ns, series, name, value) in given {
            let (series, name) = (series.to_string(), name.to_string());
            table.merge((*ns, &series), &name, (*value, 4), |known, value| {
                *known = value;
                0
            });
        }
        table
    }

    /// The same in one map, without any limit: the later value of a field wins.
    fn model(given: &[Given], end_ns: i64) -> BTreeMap<(i64, String), BTreeMap<String, u32>> {
        let mut rows: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (ns, series, name, value) in given.iter().filter(|(ns, ..)| *ns < end_ns) {
            rows.entry((*ns, series.to_string())).or_default().insert(name.to_string(), *value);
        }
        rows
    }

    proptest! {
        #[test]
        fn everything_before_the_end_is_there_once_and_the_end_is_where_the_room_ends(
            given in prop::collection::vec((0_i64..120, 0_u8..4, 0_u8..3, 0_u32..9), 0..300),
            rows_max in 1_usize..60,
        ) {
            let table = fill(&given, rows_max);
            let end_ns = table.end_ns();
            let expected = model(&given, end_ns);
            let rows: BTreeMap<_, BTreeMap<_, _>> = table
                .iter()
                .map(|(ns, series, row)| {
                    ((ns, series.to_owned()), row.iter().map(|(name, value)| (name.to_string(), *value)).collect())
                })
                .collect();
            prop_assert_eq!(table.iter().count(), rows.len(), "a row is there twice");
            prop_assert_eq!(&rows, &expected);
            prop_assert!(table.len() <= rows_max && table.len() == rows.len());
            // It ends early only if one instant more would have been too much.
            let behind = model(&given, end_ns.saturating_add(1));
            prop_assert!(end_ns == 100 || behind.len() > rows_max, "it ends at {} without need", end_ns);
        }
    }

    #[test]
    fn bytes_are_bounded_as_rows_are_and_given_back() {
        let mut table = Table::new(i64::MAX, usize::MAX, 10_000);
        for ns in (0..1_000).rev() {
            table.merge((ns, "series"), "name", ((), 1_000), |(), ()| 0);
        }
        assert!((5..=10).contains(&table.len()), "{} rows", table.len());
        assert_eq!(table.end_ns(), table.len() as i64);
        table.cut(0);
        assert_eq!((table.len(), table.bytes), (0, 0));
    }
}
