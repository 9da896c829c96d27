//! A sealed block as the message that carries it.

use forebay_shared::block::{Form, PACKED_HEAD_BYTES_MAX, packed_head};
use forebay_shared::ids::Boot;
use forebay_shared::link::{Backlog, Place};
use forebay_shared::message::Data;
use heapless::Vec;

use crate::ring::Blocks;

/// Most bytes in a message of rows before their run.
const BLOCK_HEAD_BYTES_MAX: usize = 5 + PACKED_HEAD_BYTES_MAX;

/// A sealed block as a message, whose run stays where it is.
pub(super) struct BlockMessage<'a, const RING: usize> {
    head: Vec<u8, BLOCK_HEAD_BYTES_MAX, u8>,
    blocks: &'a Blocks<RING>,
    place: Place,
}

impl<'a, const RING: usize> BlockMessage<'a, RING> {
    pub(super) fn of(blocks: &'a Blocks<RING>, boot: Option<Boot>, place: Place) -> Self {
        let mut head = Vec::new();
        if let (Some(boot), Some(block)) = (boot, blocks.block(place)) {
            let parts = [&Data::head(Form::Packed, boot)[..], &packed_head(block.rows)];
            for byte in parts.into_iter().flatten() {
                let room = head.push(*byte).is_ok();
                debug_assert!(room, "both heads have room");
            }
        }
        Self { head, blocks, place }
    }

    pub(super) fn len(&self) -> u8 {
        // A message has at most 249 bytes.
        self.head.len() as u8 + self.blocks.run_len(self.place)
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.head
            .get(at)
            .copied()
            .unwrap_or_else(|| self.blocks.byte(self.place, at.saturating_sub(self.head.len())))
    }
}
