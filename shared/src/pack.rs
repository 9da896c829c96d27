//! Rows packed into few bits.
//!
//! A packed run has no boundaries of bytes inside: bits are filled in from the highest down, and the last byte is
//! padded with zeros. What stands before it on the wire says how many row numbers it covers. The codes of a row:
//!
//! ```text
//! 0                                        a row of the group, and after the time, that are expected
//! 10  Rice(zigzag(ticks - expected))       the same after another time
//! 110 group 8 · ticks · present            any row; the first one of a run is of this form
//! 111 cause 8 · number(rows - 1)           rows that were lost ahead of the run, for this cause
//! ```
//!
//! After one of the first three follow the values that are present, in the order of their channels. *Expected* are the
//! group that came next when the last row's group was there before, and the ticks between those two; at first the
//! same group at once. The first row's `ticks` are its tick: `number(high half) · number(low half)`; later ones are
//! `number(since the row before)`. `present` is `1` where all channels have a value, and else `0` and a bit a channel;
//! a row of the first two forms has the channels that its group's last row had.
//!
//! ```text
//! number(n)  = how many bits n has, 6 · these bits without the highest
//! Rice(n)    = q ones · 0 · the lower k bits of n      where q = n >> k is less than 8
//!            = 8 ones · number(n)                      otherwise
//! zigzag(d)  = 2d where d is not negative, else -2d - 1
//! value      = 1 bit                                   of a Bool
//!            = order 2 · k 5 · number(zigzag(word))    where its channel has its first value of the run
//!            = Rice(zigzag(word - expected))           of the others
//! ```
//!
//! The *word* of an `I32` or `U32` is itself, that of an `F32` its bits, or those without the sign turned over where it
//! is negative, so that words are ordered as numbers are. Words are taken modulo 2³². Expected is the last word where
//! the order is 0, and where it is 1 the last word and once more its distance to the one before, which is taken as
//! -32768 or 32767 where it is beyond. Each channel, and the time, has a `k` of its own, in eighths: after each Rice code 2 eighths less where q was 0, and q + 1 more where it was
//! greater than 1, never below 0 or above 24 and 7 eighths. A channel's begins 4 eighths above the announced `k`, the
//! time's at 2.
//!
//! A run that ends within a row, covers other than the announced number of rows, has padding that is not zero, or
//! more than is needed, is refused as a whole.

mod model;
mod packer;
mod rows;

use crate::reading::GROUP_CHANNELS_MAX;
use model::ESCAPE;

pub use packer::{PackError, PackItem, PackRow, PackedBytes, Packer};
pub use rows::PackedRows;

/// Most bytes in a packed run.
pub const PACKED_BYTES_MAX: usize = 235;

/// Bits of the longest number.
const NUMBER_BITS_MAX: usize = 6 + 31;
const ROW_BITS_MAX: usize =
    3 + 8 + 2 * NUMBER_BITS_MAX + 1 + GROUP_CHANNELS_MAX * (1 + ESCAPE as usize + NUMBER_BITS_MAX);

/// The longest row fits in an empty run.
const _: () = assert!(ROW_BITS_MAX.div_ceil(8) <= 200 && 200 <= PACKED_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::block::{Block, Form, packed_head};
    use crate::block::{BlockError, Row};
    use crate::fixture::{bits, schema};
    use crate::ids::{GroupId, Seq, Tick};
    use crate::message::GapCause;
    use crate::message::SeqRange;
    use crate::reading::Value;

    /// Somewhere for bytes, with room for so many.
    struct Room(Vec<u8>, usize);

    impl PackedBytes for Room {
        fn put(&mut self, at: u8, byte: u8) -> bool {
            let at = usize::from(at);
            self.0.truncate(at);
            assert_eq!(self.0.len(), at, "bytes come one after the other");
            self.0.push(byte);
            at < self.1
        }
    }

    /// A run that is being packed, and how many numbers it covers.
    struct Run {
        packer: Packer<5>,
        room: Room,
        first: Seq,
        count: u32,
    }

    impl Run {
        fn new(first: u32) -> Self {
            let room = Room(Vec::new(), PACKED_BYTES_MAX);
            Self { packer: Packer::new(), room, first: Seq(first), count: 0 }
        }

        fn push(&mut self, tick: u64, group: u8, values: &[Option<Value>]) -> Result<(), PackError> {
            let channels_before = if group == 0 { 0 } else { 4 };
            let row = PackRow { tick: Tick(tick), group: GroupId(group), channels_before, values };
            self.packer.push(&PackItem::Row(row), &mut self.room)?;
            self.count += 1;
            Ok(())
        }

        fn lost(&mut self, rows: u32, cause: GapCause) -> Result<(), PackError> {
            self.packer.push(&PackItem::Lost { rows, cause }, &mut self.room)?;
            self.count += rows;
            Ok(())
        }

        /// The block so far, and the next one's beginning.
        fn take(&mut self) -> Vec<u8> {
            let to = self.first.plus(self.count);
            let head = packed_head(SeqRange { from: self.first, to });
            let run = &self.room.0[..usize::from(self.packer.len())];
            let block = [&head[..], run].concat();
            self.packer.clear();
            (self.first, self.count) = (to, 0);
            block
        }
    }

    fn decode(block: &[u8]) -> Result<Vec<Row>, BlockError> {
        Block::parse(Form::Packed, block)?.rows(&schema()).collect()
    }

    #[derive(Debug, Clone)]
    enum Given {
        Row(u8, u64, Vec<Option<Value>>),
        Lost(u32, u8),
    }

    fn given() -> impl Strategy<Value = Given> {
        let number = || prop_oneof![4 => 0..9_u32, 2 => 0..5000_u32, 1 => any::<u32>()];
        let maybe = |present: bool, value| if present { Some(value) } else { None };
        let all = (any::<bool>(), number(), number(), number(), prop_oneof![3 => Just(15_u8), 1 => 1..16_u8]);
        let all = all.prop_map(move |(a, b, c, d, present)| {
            Vec::from([
                maybe(present & 1 > 0, Value::Bool(a)),
                maybe(present & 2 > 0, Value::I32(b.cast_signed())),
                maybe(present & 4 > 0, Value::U32(c)),
                maybe(present & 8 > 0, Value::F32(f32::from_bits(d.rotate_right(9)))),
            ])
        });
        let one = number().prop_map(|value| Vec::from([Some(Value::U32(value))]));
        let step =
            || prop_oneof![8 => Just(10_u64), 2 => 0..1000_u64, 1 => any::<u64>().prop_map(|s| s >> 8)];
        prop_oneof![
            4 => (step(), all).prop_map(|(step, row)| Given::Row(0, step, row)),
            4 => (step(), one).prop_map(|(step, row)| Given::Row(1, step, row)),
            1 => (1..=u32::MAX >> 2, any::<u8>()).prop_map(|(rows, cause)| Given::Lost(rows, cause)),
        ]
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(first in any::<u32>(), given in vec(given(), 1..300)) {
            let mut run = Run::new(first);
            let (mut decoded, mut ticks, mut tick) = (Vec::new(), Vec::new(), 0);
            for given in &given {
                let mut push = |run: &mut Run| match given {
                    Given::Row(group, step, values) => {
                        run.push(tick + (step >> 8), *group, values).inspect(|()| tick += step >> 8)
                    }
                    Given::Lost(rows, cause) => run.lost(*rows, GapCause(*cause)),
                };
                // A block covers less than half of all numbers.
                if run.count >= u32::MAX >> 2 || push(&mut run).inspect_err(|e| assert_eq!(*e, PackError::Full)).is_err() {
                    decoded.extend(decode(&run.take()).unwrap());
                    push(&mut run).unwrap();
                }
                ticks.push(tick);
            }
            decoded.extend(decode(&run.take()).unwrap());
            prop_assert_eq!(decoded.len(), given.len());
            let mut seq = Seq(first);
            for ((row, given), at) in decoded.iter().zip(&given).zip(ticks) {
                match (row, given) {
                    (Row::Sample(row), Given::Row(group, _, values)) => {
                        prop_assert_eq!((row.seq, row.tick, row.group), (seq, Tick(at), GroupId(*group)));
                        let got: Vec<_> = row.values.iter().map(|(at, v)| (usize::from(*at), bits(*v))).collect();
                        let sent = values.iter().enumerate().filter_map(|(at, v)| v.map(|v| (at, bits(v))));
                        prop_assert_eq!(got, sent.collect::<Vec<_>>());
                        seq = seq.plus(1);
                    }
                    (Row::Lost { from, to, cause }, Given::Lost(rows, of)) => {
                        prop_assert_eq!((*from, *to, cause.0), (seq, seq.plus(*rows), *of));
                        seq = *to;
                    }
                    _ => prop_assert!(false, "{row:?} instead of {given:?}"),
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(count in 1..2000_u32, run in vec(any::<u8>(), 0..=PACKED_BYTES_MAX)) {
            let rows = SeqRange { from: Seq(7), to: Seq(7).plus(count) };
            if let Ok(rows) = decode(&[&packed_head(rows)[..], &run].concat()) {
                prop_assert!(!rows.is_empty() && rows.len() <= count as usize);
            }
        }

        #[test]
        fn no_other_length_is_a_block(given in vec(given(), 1..20), more in any::<u8>(), padding in any::<u8>()) {
            let mut run = Run::new(0);
            for given in &given {
                match given {
                    Given::Row(group, _, values) => { let _ = run.push(0, *group, values); }
                    Given::Lost(rows, cause) => { let _ = run.lost(rows & 0xff | 1, GapCause(*cause)); }
                }
            }
            let used = run.packer.end.used;
            let mut block = run.take();
            block.push(more);
            prop_assert_eq!(decode(&block), Err(BlockError::Trailing));
            block.pop();
            let unused = 0xff_u8.checked_shr(u32::from(used)).unwrap_or(0) & padding;
            if used > 0 && unused != 0 {
                let last = block.len() - 1;
                block[last] |= unused;
                prop_assert_eq!(decode(&block), Err(BlockError::Trailing));
            }
            block.pop();
            prop_assert!(decode(&block).is_err());
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let one = |bits: &str| {
            let padded = std::format!("{bits:0<width$}", width = bits.len().next_multiple_of(8));
            let bytes = padded
                .as_bytes()
                .chunks(8)
                .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0')));
            decode(&[&[0, 0, 0, 0, 1][..], &bytes.collect::<Vec<_>>()].concat())
        };
        let zero = "000000";
        let row = |group: &str, present: &str| std::format!("110{group}{zero}{zero}{present}");
        let first = std::format!("{}00{}{zero}", row("00000001", "1"), "00011");
        assert!(one(&first).is_ok());
        assert_eq!(one(&row("00000010", "1")), Err(BlockError::Group(GroupId(2))));
        assert_eq!(one(&row("00000000", "00000")), Err(BlockError::Present), "no values");
        assert_eq!(one("0"), Err(BlockError::Value), "nothing is expected yet");
        assert_eq!(one("10"), Err(BlockError::Value), "nothing is expected yet");
        assert_eq!(one(&std::format!("{}10{}{zero}", row("00000001", "1"), "00011")), Err(BlockError::Value));
        assert_eq!(one(&std::format!("{}00{}{zero}", row("00000001", "1"), "11001")), Err(BlockError::Value));
        assert_eq!(one(&std::format!("{}00{}100001", row("00000001", "1"), "00011")), Err(BlockError::Value));
        assert_eq!(one("11100000001000001"), Err(BlockError::Rows), "two lost rows where there is one");
        assert_eq!(one(&std::format!("{first}1")), Err(BlockError::Trailing));
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Err(BlockError::Header), "no rows");
        assert_eq!(decode(&[0, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 8]), Err(BlockError::Header), "2^31 rows");
        assert_eq!(decode(&[0, 0, 0]), Err(BlockError::Header));
    }

    #[test]
    fn where_there_is_no_room_nothing_is_packed() {
        let mut run = Run::new(0);
        run.room.1 = 20;
        let mut tick = 0;
        let error = loop {
            tick += 7;
            if let Err(error) = run.push(tick, 1, &[Some(Value::U32(tick as u32 * tick as u32))]) {
                break error;
            }
        };
        assert_eq!(error, PackError::NoRoom);
        let rows = run.count;
        assert!(rows > 3 && run.packer.len() <= 20, "{rows} rows");
        assert_eq!(decode(&run.take()).map(|rows| rows.len()), Ok(rows as usize));
    }

    #[test]
    fn time_that_runs_backward_wants_another_run() {
        for tick in [9, 1 << 33] {
            let mut run = Run::new(0);
            run.push(10, 1, &[Some(Value::U32(1))]).unwrap();
            assert_eq!(run.push(tick, 1, &[Some(Value::U32(1))]), Err(PackError::Full));
            assert_eq!(decode(&run.take()).map(|rows| rows.len()), Ok(1));
        }
    }

    #[test]
    fn regular_rows_take_few_bits() {
        let rows_in_a_block = |value: fn(u32) -> u32| {
            let mut run = Run::new(0);
            let mut rows = Vec::new();
            // The third one: the first two tell what the rows are like.
            for row in 0.. {
                if rows.len() == 3 {
                    break;
                }
                if run.push(u64::from(row) * 10, 1, &[Some(Value::U32(value(row)))]).is_err() {
                    rows.push(run.count);
                    run.take();
                }
            }
            rows[2]
        };
        assert!(rows_in_a_block(|_| 7) > 900, "two bits a row");
        assert!(rows_in_a_block(|row| row * 1000) > 880, "an even slope is no change");
        assert!(rows_in_a_block(|row| 2000 + (row * 7 % 3)) > 400);
    }
}
