//! One direction of a serial line on a virtual clock: so many bytes a second, a fixed delay, and frames that are damaged.

use std::collections::VecDeque;

use crate::workload::mix;

/// Start, eight data bits, stop.
pub(super) const BITS_A_BYTE: u64 = 10;

/// From the last bit of a byte to the program that reads it.
const DELAY_NS: u64 = 1_000_000;

const NS_A_SECOND: u64 = 1_000_000_000;

pub(super) struct Line {
    baud: u64,
    /// Frames of a million that are damaged.
    loss_ppm: u64,
    random: Random,
    /// Bits that may be sent, times nanoseconds.
    budget: u64,
    /// Bytes of the present frame until the one that is damaged.
    damage_in: Option<u64>,
    between_frames: bool,
    arriving: VecDeque<(u64, u8)>,
}

impl Line {
    pub(super) fn new(baud: u64, loss_ppm: u64, seed: u64) -> Line {
        Line {
            baud,
            loss_ppm,
            random: Random::new(seed),
            budget: 0,
            damage_in: None,
            between_frames: true,
            arriving: VecDeque::new(),
        }
    }

    /// Time passes.
    pub(super) fn advance(&mut self, ns: u64) {
        // What an idle line could have sent is not sent later.
        self.budget = self.budget.min(BITS_A_BYTE * NS_A_SECOND) + self.baud * ns;
    }

    /// Bytes that the line takes now.
    pub(super) fn room(&self) -> usize {
        (self.budget / (BITS_A_BYTE * NS_A_SECOND)) as usize
    }

    /// Sends bytes, for which there must be room; on a line that is cut they are gone.
    pub(super) fn send(&mut self, now_ns: u64, bytes: &[u8], cut: bool) {
        self.budget -= bytes.len() as u64 * BITS_A_BYTE * NS_A_SECOND;
        for &byte in bytes {
            let byte = self.pass(byte);
            if !cut {
                self.arriving.push_back((now_ns + DELAY_NS, byte));
            }
        }
    }

    /// What has arrived by now.
    pub(super) fn receive(&mut self, now_ns: u64) -> Vec<u8> {
        let count = self.arriving.partition_point(|(at, _)| *at <= now_ns);
        self.arriving.drain(..count).map(|(_, byte)| byte).collect()
    }

    /// The cable was pulled: what was under way is gone.
    pub(super) fn lose_all(&mut self) {
        self.arriving.clear();
    }

    /// Changes one byte of a frame that is to be lost, and none that ends one.
    fn pass(&mut self, byte: u8) -> u8 {
        if byte == 0 {
            self.between_frames = true;
            return byte;
        }
        if std::mem::take(&mut self.between_frames) {
            let lost = self.random.below(1_000_000) < self.loss_ppm;
            self.damage_in = lost.then(|| self.random.below(6));
        }
        match &mut self.damage_in {
            Some(0) => {
                self.damage_in = None;
                // Neither itself nor a delimiter.
                if byte == 0x55 { 0xaa } else { 0x55 }
            }
            Some(left) => {
                *left -= 1;
                byte
            }
            None => byte,
        }
    }
}

/// A small seeded generator.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(mix(seed))
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_line_is_a_tenth_of_its_baud_and_loses_as_many_frames_as_told() {
        let mut line = Line::new(115_200, 50_000, 1);
        let (mut sent, mut came) = (0, Vec::new());
        for step in 1..=10_000 {
            line.advance(100_000);
            let count = line.room();
            let bytes: Vec<u8> = (sent..sent + count).map(|at| if at % 8 == 7 { 0 } else { 0x55 }).collect();
            line.send(step * 100_000, &bytes, false);
            sent += count;
            came.extend(line.receive(step * 100_000));
        }
        assert_eq!(sent, 11_520);
        assert!((11_505..11_520).contains(&came.len()), "the last millisecond is under way");
        let damaged = came.chunks(8).filter(|frame| frame.contains(&0xaa)).count();
        assert!((50..95).contains(&damaged), "{damaged} of 1,440 frames");
        assert_eq!(came.iter().filter(|byte| **byte == 0xaa).count(), damaged, "one byte each");
    }
}
