//! In: what the link wants to say. Out: a message, whose bytes are asked for one by one, so that the rows of a block
//! stay where they are. Next: `outgoing.rs`.

use forebay_shared::block::{Form, write_packed_head};
use forebay_shared::frame::Bytes;
use forebay_shared::ids::{Boot, ChipId};
use forebay_shared::link::{Backlog, Place, Transmit};
use forebay_shared::message::brief::{Say, Writer};
use forebay_shared::message::{Birth, Data, Gap, GapCause, Hello, SeqRange, Status, TimeReply, WIRE_VERSION};

use super::Device;
use crate::ring::{Blocks, Memory};

/// What stands before the rows of a message, or all of one that has none; and where the rows are.
pub(super) struct Head {
    bytes: Writer,
    place: Place,
    run_len: u8,
}

impl Head {
    pub(super) const fn new() -> Self {
        Self { bytes: Writer::new(), place: Place(0), run_len: 0 }
    }

    /// Becomes that of a message without rows.
    pub(super) fn control(&mut self, message: &impl Say) {
        message.say(&mut self.bytes);
    }

    /// Becomes that of the sealed block at this place, if there is one.
    pub(super) fn block<const RING: usize, M: Memory>(
        &mut self,
        blocks: &Blocks<RING, M>,
        boot: Boot,
        place: Place,
    ) -> Option<()> {
        let rows = blocks.block(place)?.rows;
        for byte in Data::head(Form::Packed, boot) {
            self.bytes.byte(byte);
        }
        write_packed_head(rows, &mut self.bytes);
        (self.place, self.run_len) = (place, blocks.run_len(place));
        Some(())
    }

    fn len(&self) -> u8 {
        self.bytes.as_bytes().len() as u8
    }
}

/// A message. See the [module](self).
pub(super) struct Said<'a, const RING: usize, M> {
    pub(super) head: &'a Head,
    pub(super) blocks: &'a Blocks<RING, M>,
}

impl<const RING: usize, M: Memory> Bytes for Said<'_, RING, M> {
    fn size(&self) -> u8 {
        // A message has at most 249 bytes.
        self.head.len() + self.head.run_len
    }

    fn byte(&self, at: u8) -> u8 {
        let head = self.head.bytes.as_bytes().get(usize::from(at)).copied();
        head.unwrap_or_else(|| self.blocks.byte(self.head.place, at - self.head.len()))
    }
}

impl<const RING: usize, const CHANNELS: usize, M: Memory> Device<RING, CHANNELS, M> {
    /// Makes the next piece of the frame that is being sent.
    pub(super) fn refill(&mut self) {
        let mut head = Head::new();
        match self.out.what().and_then(|what| self.write_head(what, &mut head)) {
            Some(()) => self.out.refill(&Said { head: &head, blocks: self.ring.blocks() }),
            None => self.out.empty(),
        }
    }

    /// Writes the message but for its rows; nothing where what it is about is gone.
    pub(super) fn write_head(&self, what: Transmit, head: &mut Head) -> Option<()> {
        let boot = self.sender.boot();
        match what {
            Transmit::Hello => head.control(&self.hello()),
            Transmit::Birth(index) => {
                let count = self.config.groups.channel_count();
                let description = self.config.groups.description(index)?;
                head.control(&Birth { schema: self.config.groups.id(), index, count, description });
            }
            Transmit::Gap => {
                let (boot, SeqRange { from, to }) = (boot?, self.ring.lost()?);
                head.control(&Gap { boot, from, to, cause: GapCause::OVERFLOW });
            }
            Transmit::TimeReply(token) => head.control(&TimeReply { token, tick_now: self.out.tick() }),
            Transmit::Status { .. } => head.control(&self.status(boot?)),
            Transmit::Block(place) => head.block(self.ring.blocks(), boot?, place)?,
        }
        Some(())
    }

    fn hello(&self) -> Hello<&ChipId, &'static str> {
        Hello {
            chip: &self.chip,
            name: self.config.name,
            boot: self.sender.boot(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            schema: self.config.groups.id(),
            oldest: self.out.oldest(),
            next: self.out.next(),
            tick_hz: self.config.tick_hz,
            tick_now: self.out.tick(),
            reset_cause: self.reset_cause,
            resumed_at: self.ring.resumed_at(),
        }
    }

    fn status(&self, boot: Boot) -> Status {
        Status {
            boot,
            oldest: self.ring.unreleased(),
            sent: self.sender.sent(),
            next: self.ring.next(),
            ring_used: self.ring.used_bytes() as u32,
            ring_size: RING as u32,
            evicted_rows: self.ring.evicted_rows(),
        }
    }
}
