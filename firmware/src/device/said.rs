//! A message of the device, whose bytes are asked for one by one, so that the rows of a block stay where they are.

use forebay_shared::block::{Form, write_packed_head};
use forebay_shared::frame::Bytes;
use forebay_shared::ids::Boot;
use forebay_shared::link::{Backlog, Place};
use forebay_shared::message::Data;
use forebay_shared::message::brief::{Say, Writer};

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
