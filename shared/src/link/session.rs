//! A welcomed device, as the gateway's half of the link sees it: what has come, what is held beyond a hole,
//! what is lost, and what is to be said about that.

use heapless::Vec;

use super::bugs::{Bug, seeded};
use super::receiver::{Event, Known, LinkError, Terms};
use super::{ACK_DELAY_MS, WINDOW_BLOCKS};
use crate::block::{Block, BlockBytes, BlockError};
use crate::ids::{Boot, Epoch, LongSeq, Millis, Seq, Token};
use crate::message::Data;
use crate::message::{ACK_RANGES_MAX, Ack, Gap, GapCause, Hello, SeqRange, Status, Welcome};

/// Blocks after which an acknowledgement waits no longer: half a window, so that the device never runs out
/// of it.
const ACK_BLOCKS: u8 = WINDOW_BLOCKS / 2;

/// A welcomed device.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) boot: Boot,
    /// The device is known to have had its welcome.
    pub(super) adopted: bool,
    /// The next row in order.
    pub(super) next: LongSeq,
    pub(super) released: LongSeq,
    /// One past the last row known to be numbered.
    pub(super) learned: LongSeq,
    /// One past the last row known to be sent, or declared lost.
    sent: LongSeq,
    /// Blocks beyond the next row, by their first row.
    held: Vec<Held, { WINDOW_BLOCKS as usize }>,
    /// Rows up to here are lost unless they are held.
    lost: Option<(LongSeq, GapCause)>,
    pub(super) credit: u8,
    pub(super) births: bool,
    pub(super) welcome_due: bool,
    pub(super) time_request: Option<Token>,
    pub(super) ack_at: Option<Millis>,
    pub(super) unacked_blocks: u8,
    pub(super) missing_since: Option<Millis>,
    /// The time of the last message, for what happens while events are drained.
    now: Millis,
}

#[derive(Debug)]
struct Held {
    first: LongSeq,
    end: LongSeq,
    bytes: BlockBytes,
}

pub(super) enum Intake {
    Taken,
    Duplicate,
    Dropped,
}

impl Session {
    pub(super) fn new(now: Millis, hello: &Hello, terms: Terms) -> Result<Self, LinkError> {
        // Where nothing is known, what comes before the oldest row was another gateway's business.
        let start = LongSeq(u64::from(hello.oldest.0));
        let Known { next, released } = terms.known.unwrap_or(Known { next: start, released: start });
        let oldest = next.extend(hello.oldest).ok_or(LinkError::Sequence)?;
        let learned = next.extend(hello.next).ok_or(LinkError::Sequence)?;
        if learned < next || learned < oldest {
            return Err(LinkError::Sequence);
        }
        Ok(Self {
            boot: terms.boot,
            adopted: hello.boot.is_some(),
            next,
            released: released.min(next),
            learned,
            sent: next,
            held: Vec::new(),
            // Another gateway, or a life of this one that forgot, has let the device let go of them.
            lost: Some((oldest, GapCause::FORGOTTEN)),
            credit: terms.credit.min(WINDOW_BLOCKS),
            births: !terms.wants_birth,
            welcome_due: true,
            time_request: None,
            ack_at: Some(now),
            unacked_blocks: 0,
            missing_since: None,
            now,
        })
    }

    /// Whether `hello` comes from the device as it was welcomed, which then has missed something, and
    /// not from another life of it, or one that has since obeyed another gateway.
    pub(super) fn continues(&self, before: &Hello, hello: &Hello) -> bool {
        let same_life = match hello.boot {
            Some(boot) => boot == self.boot,
            None => !self.adopted && !hello.next.is_before(before.next) && hello.tick_now >= before.tick_now,
        };
        let holds_the_next_row = self.next.extend(hello.oldest).is_some_and(|oldest| oldest <= self.next)
            && self.next.extend(hello.next).is_some_and(|end| end >= self.next);
        (same_life || seeded(Bug::AnyHelloContinues))
            && holds_the_next_row
            && hello.chip == before.chip
            && hello.schema == before.schema
            // After a reset its ticks have lost the time meanwhile, which the host has to know.
            && hello.resumed_at == before.resumed_at
    }

    pub(super) fn welcome_again(&mut self, now: Millis) {
        self.now = now;
        self.welcome_due = true;
        self.ack_by(now);
        self.restart_missing();
    }

    pub(super) fn data(&mut self, now: Millis, data: Data<'_>) -> Result<Intake, LinkError> {
        let block = Block::parse(data.form, data.block)?;
        let first = self.long(block.first())?;
        let end = first.plus(u64::from(block.first().rows_until(block.end())));
        self.now = now;
        self.learned = self.learned.max(end);
        self.sent = self.sent.max(end);

        let at = self.held.partition_point(|held| held.first < first);
        let is_held = self.held.get(at).is_some_and(|held| held.first == first);
        if end <= self.next || is_held {
            self.ack_by(now);
            return Ok(Intake::Duplicate);
        }
        // Rows of before the welcome, which nobody can read yet: the device sends them again when it has told its schema.
        if !self.births {
            self.ack_by(now);
            return Ok(Intake::Dropped);
        }
        // One place is kept for the block that fills the hole, or nothing would ever move again.
        let fills = first <= self.next;
        let room = usize::from(WINDOW_BLOCKS) - usize::from(!fills);
        let bytes = Vec::from_slice(data.block).map_err(|_| BlockError::Trailing)?;
        let bytes = BlockBytes { form: data.form, bytes };
        if self.held.len() >= 2 && seeded(Bug::HeldBlockGivenUp) {
            self.held.pop();
        }
        let at = at.min(self.held.len());
        if self.held.len() >= room || self.held.insert(at, Held { first, end, bytes }).is_err() {
            self.ack_by(now);
            self.notice_missing();
            return Ok(Intake::Dropped);
        }
        self.unacked_blocks = self.unacked_blocks.saturating_add(1);
        let wait = fills && self.held.len() == 1 && self.unacked_blocks < ACK_BLOCKS;
        self.ack_by(if wait { now.plus(ACK_DELAY_MS) } else { now });
        self.notice_missing();
        Ok(Intake::Taken)
    }

    pub(super) fn gap(&mut self, now: Millis, gap: Gap) -> Result<(), LinkError> {
        let (from, to) = (self.long(gap.from)?, self.long(gap.to)?);
        // Rows before the gap would be neither in it nor in the device: its `Hello` sorts that out.
        if to <= from || from > self.next {
            return Err(LinkError::Sequence);
        }
        self.now = now;
        self.learned = self.learned.max(to);
        self.sent = self.sent.max(to);
        if self.lost.is_none_or(|(end, _)| end < to) {
            self.lost = Some((to, gap.cause));
        }
        self.ack_by(now);
        Ok(())
    }

    pub(super) fn status(&mut self, now: Millis, status: Status) -> Result<(), LinkError> {
        let (oldest, sent, next) =
            (self.long(status.oldest)?, self.long(status.sent)?, self.long(status.next)?);
        if oldest > self.next || next < self.next {
            return Err(LinkError::Sequence);
        }
        self.now = now;
        self.learned = self.learned.max(next);
        self.sent = self.sent.max(sent.min(next));
        if !seeded(Bug::StatusNotAnswered) {
            self.ack_by(now);
        }
        self.notice_missing();
        Ok(())
    }

    /// Moves on by one event.
    pub(super) fn advance(&mut self) -> Option<Event> {
        let from = self.next;
        while self.held.first().is_some_and(|held| held.end <= from) {
            self.held.remove(0);
        }
        let event = if self.held.first().is_some_and(|held| held.first <= from) {
            let Held { first, end, bytes } = self.held.remove(0);
            self.next = end;
            // A block covers less than 2³¹ numbers.
            Event::Rows { from, to: end, skip: first.rows_until(from) as u32, block: bytes }
        } else {
            let (end, cause) = self.lost.filter(|(end, _)| *end > from)?;
            let held = self.held.first().filter(|_| !seeded(Bug::GapOverHeldRows));
            self.next = held.map_or(end, |held| held.first.min(end));
            Event::Gap { from, to: self.next, cause }
        };
        self.restart_missing();
        Some(event)
    }

    fn notice_missing(&mut self) {
        if self.sent > self.next && self.missing_since.is_none() {
            self.missing_since = Some(self.now);
        }
    }

    fn restart_missing(&mut self) {
        self.missing_since = None;
        self.notice_missing();
    }

    pub(super) fn ack_by(&mut self, at: Millis) {
        self.ack_at = Some(self.ack_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn long(&self, seq: Seq) -> Result<LongSeq, LinkError> {
        if seeded(Bug::WrongExtensionAtWrap) {
            return Ok(LongSeq(u64::from(seq.0)));
        }
        self.next.extend(seq).ok_or(LinkError::Sequence)
    }

    pub(super) fn welcome(&self, epoch: Epoch, hello: &Hello) -> Welcome {
        Welcome {
            epoch,
            boot: self.boot,
            released: self.released.to_wire(),
            received: self.next.to_wire(),
            wants_birth: !self.births,
            credit: self.credit,
            chip: hello.chip.clone(),
            answers: hello.token(),
        }
    }

    pub(super) fn ack(&self, epoch: Epoch) -> Ack {
        let mut ranges: Vec<SeqRange, ACK_RANGES_MAX, u8> = Vec::new();
        for held in &self.held {
            let (from, to) = (held.first.to_wire(), held.end.to_wire());
            match ranges.last_mut() {
                Some(range) if range.to == from => range.to = to,
                _ => {
                    // The lowest ranges are what the device needs first.
                    if ranges.push(SeqRange { from, to }).is_err() {
                        break;
                    }
                }
            }
        }
        Ack {
            epoch,
            boot: self.boot,
            received: match self.held.last() {
                Some(held) if seeded(Bug::ReceivedIsHighest) => held.end.to_wire(),
                _ => self.next.to_wire(),
            },
            released: self.released.to_wire(),
            ranges,
            credit: self.credit,
            births: self.births || seeded(Bug::BirthsNotAwaited),
        }
    }
}
