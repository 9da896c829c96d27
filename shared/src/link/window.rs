//! The blocks that the device has in flight, and which of them are to be sent again.
//!
//! Each transmission has a number. A line never overtakes, so when a block is acknowledged, all that were
//! sent before it and are not acknowledged are lost. Where nothing is acknowledged at all, the timeout
//! decides.

use heapless::Vec;

use super::WINDOW_BLOCKS;
use super::rtt::RoundTrip;
use crate::ids::{Millis, Seq};
use crate::message::{Ack, SeqRange};

/// Blocks sent and not yet received without a hole, in order of their rows.
#[derive(Debug)]
pub(super) struct Window {
    flights: Vec<Flight, { WINDOW_BLOCKS as usize }, u8>,
    /// The number of the last transmission.
    order: u16,
    repeated_blocks: u32,
}

#[derive(Debug)]
struct Flight {
    rows: SeqRange,
    sent_at: Millis,
    order: u16,
    repeated: bool,
    acked: bool,
    /// Something sent later has arrived, or the answer is overdue: to be sent again at once.
    lost: bool,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self { flights: Vec::new(), order: 0, repeated_blocks: 0 }
    }

    /// Forgets everything: after a welcome nothing is in flight.
    pub(super) fn clear(&mut self) {
        self.flights.clear();
    }

    /// Forgets blocks with no row at or after `oldest`.
    pub(super) fn forget(&mut self, oldest: Seq) {
        self.flights.retain(|flight| oldest.is_before(flight.rows.to));
    }

    /// Whether another block may be in flight.
    pub(super) fn has_room(&self, credit: u8) -> bool {
        self.flights.len() < usize::from(credit.min(WINDOW_BLOCKS))
    }

    /// One past the last row in flight.
    pub(super) fn end(&self) -> Option<Seq> {
        self.flights.last().map(|flight| flight.rows.to)
    }

    /// Whether no answer is awaited.
    pub(super) fn all_acked(&self) -> bool {
        self.flights.iter().all(|flight| flight.acked)
    }

    /// How often a block was sent again.
    pub(super) const fn repeated_blocks(&self) -> u32 {
        self.repeated_blocks
    }

    /// Notes a transmission: of a block in flight, or of a new one behind all others.
    pub(super) fn sent(&mut self, now: Millis, rows: SeqRange) {
        self.order = self.order.wrapping_add(1);
        let known = self.flights.iter_mut().find(|flight| flight.rows == rows);
        let repeated = known.is_some();
        let flight = Flight { rows, sent_at: now, order: self.order, repeated, acked: false, lost: false };
        if let Some(known) = known {
            *known = flight;
            self.repeated_blocks = self.repeated_blocks.wrapping_add(1);
        } else {
            // There is room, or the block would not have been asked for.
            let room = self.flights.push(flight).is_ok();
            debug_assert!(room, "a block beyond the window was sent");
        }
    }

    /// Starts the wait for an answer anew.
    pub(super) fn left(&mut self, now: Millis, rows: SeqRange) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.rows == rows) {
            flight.sent_at = now;
        }
    }

    /// When a block is to be sent again.
    pub(super) fn missing_due(&self, rto_ms: u32) -> Option<Millis> {
        self.missing().map(|flight| flight.due(rto_ms)).min()
    }

    /// The first row of the block that is to be sent again now.
    pub(super) fn take_missing(&mut self, now: Millis, round_trip: &mut RoundTrip) -> Option<Seq> {
        let rto_ms = round_trip.rto_ms();
        let flight = self.missing().min_by_key(|flight| flight.due(rto_ms))?;
        let (row, sent_at, timed_out) = (flight.rows.from, flight.sent_at, !flight.lost);
        if timed_out {
            // All that waited as long goes out with it, before the wait doubles.
            for flight in &mut self.flights {
                flight.lost |= flight.due(rto_ms) <= now;
            }
            round_trip.timed_out(now, sent_at);
        }
        Some(row)
    }

    /// Marks what has arrived, measures the round trip and finds what was overtaken.
    pub(super) fn settle(&mut self, now: Millis, ack: &Ack, round_trip: &mut RoundTrip) {
        let mut newest: Option<(u16, Millis)> = None;
        for flight in self.flights.iter_mut().filter(|flight| !flight.acked) {
            flight.acked = has_arrived(flight.rows, ack);
            // Of a block that was sent twice, nobody knows which copy has arrived.
            let tells = flight.acked && !flight.repeated;
            if tells && newest.is_none_or(|(order, _)| is_later(flight.order, order)) {
                newest = Some((flight.order, flight.sent_at));
            }
        }
        self.forget(ack.received);
        if let Some((order, sent_at)) = newest {
            round_trip.measured(now.since(sent_at));
            for flight in &mut self.flights {
                flight.lost |= !flight.acked && is_later(order, flight.order);
            }
        }
    }

    fn missing(&self) -> impl Iterator<Item = &Flight> {
        self.flights.iter().filter(|flight| !flight.acked)
    }
}

impl Flight {
    fn due(&self, rto_ms: u32) -> Millis {
        if self.lost { Millis(0) } else { self.sent_at.plus(rto_ms) }
    }
}

fn has_arrived(rows: SeqRange, ack: &Ack) -> bool {
    let within = |range: &SeqRange| !rows.from.is_before(range.from) && !range.to.is_before(rows.to);
    !ack.received.is_before(rows.to) || ack.ranges.iter().any(within)
}

/// Whether transmission `order` came after `other`, which is less than 2¹⁵ transmissions away.
const fn is_later(order: u16, other: u16) -> bool {
    order.wrapping_sub(other).cast_signed() > 0
}
