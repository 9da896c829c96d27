//! A reset between any two bytes that a ring writes.

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use forebay_shared::block::Row;
use forebay_shared::ids::{Boot, SchemaId, Seq, Tick};
use forebay_shared::link::Backlog;
use forebay_shared::message::GapCause;
use forebay_shared::reading::Value;
use proptest::prelude::*;

use super::tests::{Step, push, sealed, step};
use super::{KEPT_BYTES, Kin, Memory, Ring, WhenFull};

const RING: usize = 600;
const KIN: Kin = Kin { schema: SchemaId(7), tick_hz: 1000 };
const BOOT: Boot = Boot::new(9).unwrap();

/// Memory of a chip, which takes so many bytes more before the chip is reset.
#[derive(Clone)]
struct Ram(Rc<RefCell<(Box<[u8; RING + KEPT_BYTES]>, u32)>>);

impl Ram {
    /// Such as it may be when power was applied.
    fn new(noise: u8) -> Self {
        let bytes = Box::new(core::array::from_fn(|at| (at as u8).wrapping_mul(noise)));
        Self(Rc::new(RefCell::new((bytes, u32::MAX))))
    }

    fn reset_after(&self, bytes: u32) {
        self.0.borrow_mut().1 = bytes;
    }

    fn flip(&self, at: usize, bits: u8) {
        self.0.borrow_mut().0[at] ^= bits;
    }
}

impl Memory for Ram {
    const BYTES: usize = RING + KEPT_BYTES;

    fn read(&self, at: usize) -> u8 {
        self.0.borrow().0.read(at)
    }

    fn write(&mut self, at: usize, byte: u8) {
        let (bytes, left) = &mut *self.0.borrow_mut();
        if *left > 0 {
            *left -= 1;
            bytes.write(at, byte);
        }
    }
}

type Kept = Ring<RING, 1, super::Kept<Ram>>;

/// After a reset that leaves memory alone.
fn start(ram: &Ram, kin: Kin) -> Kept {
    Ring::resume(ram.clone(), kin, WhenFull::DropOldest, true)
}

/// After one that may not.
fn start_in_doubt(ram: &Ram) -> Kept {
    Ring::resume(ram.clone(), KIN, WhenFull::DropOldest, false)
}

/// What was taken up: rows before `oldest` are lost or released, those before `sealed` as they were, and those before
/// `next` declared.
fn rows(ring: &Kept) -> Vec<Row> {
    sealed(ring).into_iter().flat_map(|(_, rows)| rows).collect()
}

fn filled(ram: &Ram) -> Kept {
    let mut ring = start(ram, KIN);
    ring.keep_boot(BOOT);
    for value in 0..20 {
        push(&mut ring, value);
    }
    ring.seal();
    for value in 20..25 {
        push(&mut ring, value);
    }
    ring
}

#[test]
fn a_ring_goes_on_after_a_reset() {
    let ram = Ram::new(3);
    let before = rows(&filled(&ram));
    let mut ring = start(&ram, KIN);
    assert_eq!((ring.boot(), ring.next(), ring.blocks().sealed()), (Some(BOOT), Seq(25), Seq(25)));
    assert_eq!(ring.resumed_at(), Some(Tick(25)), "the last row had 24");
    let mut after = rows(&ring);
    let lost = Row::Lost { from: Seq(20), to: Seq(25), cause: GapCause::RESET };
    assert_eq!((after.pop(), after), (Some(lost), before));
    assert_eq!(push(&mut ring, 7), Seq(25));
    let ring = start(&ram, KIN);
    assert_eq!((ring.next(), ring.resumed_at()), (Seq(26), Some(Tick(26))), "and again");
}

#[test]
fn other_firmware_begins_anew() {
    for other in [Kin { schema: SchemaId(8), ..KIN }, Kin { tick_hz: 1_000_000, ..KIN }] {
        let ram = Ram::new(5);
        filled(&ram);
        let ring = start(&ram, other);
        assert_eq!((ring.boot(), ring.next(), ring.resumed_at()), (None, Seq(0), None));
        let ring = start(&ram, KIN);
        assert_eq!((ring.boot(), ring.next()), (None, Seq(0)), "nor is there a way back");
    }
}

#[test]
fn memory_that_was_never_written_is_an_empty_ring() {
    for noise in 0..=u8::MAX {
        assert_eq!(start(&Ram::new(noise), KIN).resumed_at(), None);
        assert_eq!(start_in_doubt(&Ram::new(noise)).resumed_at(), None);
    }
}

proptest! {
    /// Whatever is taken up is as it was; and all of it, or nothing.
    #[test]
    fn damage_is_never_taken_for_rows(at in 0..RING + KEPT_BYTES, bits in 1..=u8::MAX, more in any::<bool>()) {
        let ram = Ram::new(1);
        let before = rows(&filled(&ram));
        ram.flip(at, bits);
        if more {
            ram.flip((at * 7 + 3) % RING, bits);
        }
        let ring = start_in_doubt(&ram);
        if ring.resumed_at().is_some() {
            let mut found = rows(&ring);
            let lost = Row::Lost { from: Seq(20), to: Seq(25), cause: GapCause::RESET };
            prop_assert_eq!(found.pop(), Some(lost));
            prop_assert_eq!(found, before);
            prop_assert_eq!((ring.boot(), ring.next()), (Some(BOOT), Seq(25)));
        } else {
            prop_assert_eq!((ring.boot(), ring.next(), rows(&ring)), (None, Seq(0), Vec::new()));
        }
    }

    #[test]
    fn a_reset_may_come_at_any_byte(
        steps in proptest::collection::vec(step(), 1..120), cut in 0..60_u32, again in 0..40_u32,
    ) {
        let ram = Ram::new(1);
        let mut ring = start(&ram, KIN);
        let mut given: Vec<Option<u32>> = Vec::new();
        let (last, whole) = steps.split_last().unwrap();
        for step in whole {
            take(&mut ring, step, &mut given);
        }
        let (before, released) = (ring.next(), ring.unreleased());
        ram.reset_after(cut);
        take(&mut ring, last, &mut given);
        let after = ring.next();
        drop(ring);

        // And one more, while the ring is being taken up.
        ram.reset_after(again);
        drop(start(&ram, KIN));
        ram.reset_after(u32::MAX);
        let ring = start(&ram, KIN);
        prop_assert!(ring.resumed_at().is_some());
        let next = ring.next();
        prop_assert!(!next.is_before(before) && !after.is_before(next), "{before} {next} {after}");
        prop_assert!(!ring.unreleased().is_before(released));
        let mut at = ring.blocks().oldest();
        for (range, rows) in sealed(&ring) {
            prop_assert_eq!(range.from, at);
            at = range.to;
            for row in rows {
                match row {
                    Row::Sample(row) => {
                        let value = given[row.seq.0 as usize].map(|value| (0, Value::U32(value)));
                        prop_assert_eq!(row.values.first().copied(), value);
                    }
                    Row::Lost { cause: GapCause::RESET, .. } => {}
                    Row::Lost { from, to, .. } => {
                        prop_assert!(given[from.0 as usize..to.0 as usize].iter().all(Option::is_none));
                    }
                }
            }
        }
        prop_assert_eq!(at, ring.blocks().sealed());
        prop_assert_eq!(at, next, "what was open is declared");
    }
}

fn take(ring: &mut Kept, step: &Step, given: &mut Vec<Option<u32>>) {
    match step {
        Step::Push(value) => {
            push(ring, *value);
            given.push((ring.refused == 0).then_some(*value));
        }
        Step::Skip(rows) => {
            ring.skip(*rows, GapCause::SENSOR);
            given.extend((0..*rows).map(|_| None));
        }
        Step::Seal => ring.seal(),
        Step::Release(rows) => {
            let to = ring.unreleased().plus(*rows);
            ring.release(to.min(ring.blocks().sealed()));
        }
        Step::Pin(true) => ring.pin(ring.blocks().first()),
        Step::Pin(false) => ring.unpin(),
    }
}
