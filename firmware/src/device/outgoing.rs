//! The one message that is being sent: what it is, and how much of it has left.
//!
//! Over a serial line its frame is made piece by piece from where the message's parts are, so that no frame is ever
//! kept whole. What a message says that can change before its last piece is made is kept here.

use forebay_shared::frame::{Bytes, DELIMITER, Pieces};
use forebay_shared::ids::{Seq, Stamp, Tick};
use forebay_shared::link::Transmit;
use forebay_shared::message::SeqRange;
use heapless::Vec;

/// Bytes of a frame that wait to be written. A `Status` fits in one piece.
const PIECE_BYTES: usize = 44;

/// How long a line may take nothing before what is on its way is given up.
const STALL_MS: u32 = 1000;

/// What is being sent. See the [module](self).
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The message, until its last byte was written.
    what: Option<Transmit>,
    /// The present when the message was chosen, by the device's own count: its lower and its upper half.
    tick: [u32; 2],
    /// The first row that was not released then, and the number that the next would have got.
    oldest: Seq,
    next: Seq,
    frame: Option<Pieces>,
    piece: Vec<u8, PIECE_BYTES, u8>,
    /// How many of them were written.
    at: u8,
    /// Whether the line was busy up to now, so that it needs no delimiter before the next frame.
    in_burst: bool,
    /// When bytes were last known to be written.
    moved_at: Stamp,
    moved: bool,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self {
            what: None,
            tick: [0; 2],
            oldest: Seq(0),
            next: Seq(0),
            frame: None,
            piece: Vec::new(),
            at: 0,
            in_burst: false,
            moved_at: Stamp::ZERO,
            moved: false,
        }
    }

    pub(super) const fn what(&self) -> Option<Transmit> {
        self.what
    }

    pub(super) const fn tick(&self) -> Tick {
        let [low, high] = self.tick;
        Tick((high as u64) << 32 | low as u64)
    }

    pub(super) const fn oldest(&self) -> Seq {
        self.oldest
    }

    pub(super) const fn next(&self) -> Seq {
        self.next
    }

    pub(super) fn begin(&mut self, now: Stamp, tick: Tick, what: Transmit, rows: SeqRange) {
        (self.what, self.frame) = (Some(what), None);
        (self.oldest, self.next) = (rows.from, rows.to);
        self.tick = [tick.0 as u32, (tick.0 >> 32) as u32];
        (self.moved_at, self.moved) = (now, false);
    }

    /// The message has left.
    pub(super) const fn finish(&mut self) {
        self.what = None;
    }

    /// Nothing more is to be said, so the next frame begins a burst.
    pub(super) const fn rest(&mut self) {
        self.in_burst = false;
    }

    /// Bytes to be written next.
    pub(super) fn waiting(&self) -> &[u8] {
        self.piece.get(usize::from(self.at)..).unwrap_or_default()
    }

    /// The first `count` of those bytes were written; says whether that was the last of them.
    pub(super) fn sent(&mut self, count: usize) -> bool {
        let end = self.piece.len();
        self.at = (usize::from(self.at) + count).min(end) as u8;
        self.moved |= count > 0;
        usize::from(self.at) == end
    }

    /// Makes the next piece of the frame of this message; none where all was written.
    pub(super) fn refill(&mut self, message: &impl Bytes) {
        self.empty();
        let frame = self.frame.get_or_insert_with(|| {
            if !self.in_burst {
                let _ = self.piece.push(DELIMITER);
            }
            self.in_burst = true;
            Pieces::new(message)
        });
        while !self.piece.is_full()
            && let Some(byte) = frame.next(message)
        {
            let _ = self.piece.push(byte);
        }
    }

    /// There is nothing to be written.
    pub(super) fn empty(&mut self) {
        self.piece.clear();
        self.at = 0;
    }

    /// Whether the line takes nothing any more.
    pub(super) fn is_stalled(&mut self, now: Stamp) -> bool {
        if core::mem::take(&mut self.moved) {
            self.moved_at = now;
        }
        now.until(self.moved_at.plus(STALL_MS)) == 0
    }

    /// Forgets the message. Whatever comes next ends what has been written of it.
    pub(super) fn abort(&mut self) {
        self.empty();
        (self.what, self.in_burst) = (None, false);
    }
}
