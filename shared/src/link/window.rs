//! The blocks that the device has in flight, and which of them are to be sent again.
//!
//! What is to be remembered of a block is kept with it, wherever the device keeps its blocks ([`Backlog`]); the
//! window is where they begin and end. Each transmission has a number. A line never overtakes, so when a block is
//! acknowledged, all that were sent before it and are not acknowledged are lost. Where nothing is acknowledged at
//! all, the timeout decides.

use super::WINDOW_BLOCKS;
use super::rtt::RoundTrip;
use crate::ids::{Seq, Stamp};
use crate::message::{Ack, SeqRange};

/// What the device holds: sealed blocks in the order of their rows, without a hole between them.
pub trait Backlog {
    /// First row in a block; where there is none, the first that is in none yet.
    fn oldest(&self) -> Seq;

    /// One past the last row in a sealed block.
    fn sealed(&self) -> Seq;

    /// One past the last row that made room for newer ones and is not released, if there is any.
    fn lost_to(&self) -> Option<Seq>;

    /// Rows before this are durable: lets go of the blocks that hold no others, soon.
    fn release(&mut self, to: Seq);

    /// Where the first block is; where there is none, where the next will be.
    fn first(&self) -> Place;

    /// The block at a place; nothing where there is none yet, or none any more.
    fn block(&self, place: Place) -> Option<Block>;

    /// Keeps what is to be remembered of the block at `place`; a new one has [`Flight::NEW`].
    fn note(&mut self, place: Place, flight: Flight);
}

/// Where a block is kept: a number that grows from block to block, and wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub u32);

impl Place {
    const fn max(self, other: Self) -> Self {
        if self.0.wrapping_sub(other.0).cast_signed() < 0 { other } else { self }
    }
}

/// A sealed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its rows.
    pub rows: SeqRange,
    /// What was kept of it.
    pub flight: Flight,
    /// Where the block behind it is.
    pub next: Place,
}

/// What the link remembers of a block, in the 32 bits in which a device may keep it: the lower half of the milliseconds at
/// which it was sent (less than a minute ago, or it was given up), above them the number of that transmission, and marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight(pub u32);

const ACKED: u32 = 1 << 24;
/// Something sent later has arrived, or the answer is overdue: to be sent again at once.
const LOST: u32 = 2 << 24;
const REPEATED: u32 = 4 << 24;
const MARKS: u32 = 0xff << 24;

impl Flight {
    /// Of a block that was never sent.
    pub const NEW: Self = Self(0);

    const fn new(now: Stamp, order: u8, marks: u32) -> Self {
        Self(marks | (order as u32) << 16 | now.since(Stamp::ZERO) & 0xffff)
    }

    const fn is(self, mark: u32) -> bool {
        self.0 & mark != 0
    }

    const fn order(self) -> u8 {
        (self.0 >> 16) as u8
    }

    const fn age_ms(self, now: Stamp) -> u32 {
        now.since(Stamp::ZERO).wrapping_sub(self.0) & 0xffff
    }

    /// How long it is until this is to be sent again.
    fn wait_ms(self, now: Stamp, rto_ms: u32) -> u32 {
        if self.is(LOST) { 0 } else { rto_ms.saturating_sub(self.age_ms(now)) }
    }
}

/// What a walk over the blocks in flight has found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey {
    /// How many there are.
    blocks: u8,
    /// The block that is to be sent again before all others, and how long that has time.
    pub(super) missing: Option<(Place, u32)>,
}

impl Survey {
    /// Whether another block may be in flight.
    pub(super) fn has_room(self, credit: u8) -> bool {
        self.blocks < credit.min(WINDOW_BLOCKS)
    }
}

/// The blocks from the first that is not received without a hole, to the last that was sent.
#[derive(Debug)]
pub(super) struct Window {
    start: Place,
    end: Place,
    /// The number of the last transmission.
    order: u8,
    repeated_blocks: u32,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self { start: Place(0), end: Place(0), order: 0, repeated_blocks: 0 }
    }

    /// After a welcome nothing is in flight, and what is not received is to be sent.
    pub(super) fn clear<B: Backlog>(&mut self, received: Seq, backlog: &B) {
        self.start = backlog.first();
        self.end = self.start;
        self.forget(received, backlog);
    }

    /// Counts the blocks in flight, and looks for the one that is to be sent again first.
    pub(super) fn survey<B: Backlog>(&self, now: Stamp, rto_ms: u32, backlog: &B) -> Survey {
        let mut survey = Survey { blocks: 0, missing: None };
        let mut at = self.start.max(backlog.first());
        while let Some(block) = self.flight(at, backlog) {
            survey.blocks = survey.blocks.saturating_add(1);
            let wait_ms = block.flight.wait_ms(now, rto_ms);
            if !block.flight.is(ACKED) && survey.missing.is_none_or(|(_, least)| wait_ms < least) {
                survey.missing = Some((at, wait_ms));
            }
            at = block.next;
        }
        survey
    }

    /// Where the block is that is to be sent next.
    pub(super) fn end<B: Backlog>(&self, backlog: &B) -> Place {
        self.end.max(backlog.first())
    }

    /// How often a block was sent again.
    pub(super) const fn repeated_blocks(&self) -> u32 {
        self.repeated_blocks
    }

    /// Notes a transmission, of a block in flight or of the one behind all others, and gives its rows. One that is sent
    /// again only since its answer is overdue doubles the wait for the others.
    pub(super) fn sent<B: Backlog>(
        &mut self,
        now: Stamp,
        place: Place,
        round_trip: &mut RoundTrip,
        backlog: &mut B,
    ) -> Option<SeqRange> {
        let Block { rows, next, flight } = backlog.block(place)?;
        let marks = if place == self.end(backlog) {
            self.end = next;
            0
        } else {
            self.repeated_blocks = self.repeated_blocks.wrapping_add(1);
            if !flight.is(LOST) {
                // All that waited as long goes out with it, before the wait doubles.
                self.mark(None, now, round_trip.rto_ms(), backlog);
                round_trip.timed_out(now, now.minus(flight.age_ms(now)));
            }
            REPEATED
        };
        self.order = self.order.wrapping_add(1);
        backlog.note(place, Flight::new(now, self.order, marks));
        Some(rows)
    }

    /// Starts the wait for an answer anew.
    pub(super) fn left<B: Backlog>(&self, now: Stamp, place: Place, backlog: &mut B) {
        if let Some(Block { flight, .. }) = backlog.block(place) {
            backlog.note(place, Flight::new(now, flight.order(), flight.0 & MARKS));
        }
    }

    /// Marks what has arrived, measures the round trip and finds what was overtaken.
    pub(super) fn settle<B: Backlog>(
        &mut self,
        now: Stamp,
        ack: &Ack,
        round_trip: &mut RoundTrip,
        backlog: &mut B,
    ) {
        let mut newest: Option<Flight> = None;
        let mut at = self.start.max(backlog.first());
        while let Some(mut block) = self.flight(at, backlog) {
            if !block.flight.is(ACKED) && has_arrived(block.rows, ack) {
                // Of a block that was sent twice, nobody knows which copy has arrived.
                let later = newest.is_none_or(|newest| is_later(block.flight.order(), newest.order()));
                if !block.flight.is(REPEATED) && later {
                    newest = Some(block.flight);
                }
                block.flight.0 |= ACKED;
                backlog.note(at, block.flight);
            }
            at = block.next;
        }
        self.forget(ack.received, backlog);
        if let Some(newest) = newest {
            round_trip.measured(newest.age_ms(now));
            self.mark(Some(newest.order()), now, round_trip.rto_ms(), backlog);
        }
    }

    /// Leaves out what is received without a hole.
    fn forget<B: Backlog>(&mut self, received: Seq, backlog: &B) {
        self.start = self.start.max(backlog.first());
        while let Some(block) = backlog.block(self.start).filter(|block| !received.is_before(block.rows.to)) {
            self.start = block.next;
        }
        self.end = self.end.max(self.start);
    }

    /// Marks those of the awaited blocks that are lost: all that transmission `by` has overtaken, or where there is none,
    /// all that are overdue.
    fn mark<B: Backlog>(&self, by: Option<u8>, now: Stamp, rto_ms: u32, backlog: &mut B) {
        let mut at = self.start.max(backlog.first());
        while let Some(Block { mut flight, next, .. }) = self.flight(at, backlog) {
            let is_lost =
                by.map_or(flight.wait_ms(now, rto_ms) == 0, |order| is_later(order, flight.order()));
            if !flight.is(ACKED) && is_lost {
                flight.0 |= LOST;
                backlog.note(at, flight);
            }
            at = next;
        }
    }

    /// The block at `at`, if it is in flight.
    fn flight<B: Backlog>(&self, at: Place, backlog: &B) -> Option<Block> {
        if at == self.end(backlog) { None } else { backlog.block(at) }
    }
}

fn has_arrived(rows: SeqRange, ack: &Ack) -> bool {
    let within = |range: &SeqRange| !rows.from.is_before(range.from) && !range.to.is_before(rows.to);
    !ack.received.is_before(rows.to) || ack.ranges.iter().any(within)
}

/// Whether transmission `order` came after `other`: at most a window of them is awaited at a time, so they are less than
/// 2⁷ apart.
const fn is_later(order: u8, other: u8) -> bool {
    order.wrapping_sub(other).cast_signed() > 0
}
