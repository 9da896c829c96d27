//! One direction of a line of 115,200 baud, or of a broker's queue.

use std::collections::VecDeque;

use forebay_shared::ids::Millis;

use super::Random;

const LATENCY_MS: u32 = 2;
const BYTES_PER_MS: usize = 11;

pub(crate) struct Pipe {
    random: Random,
    noisy: bool,
    cut: bool,
    queue: VecDeque<(Millis, Vec<u8>)>,
}

impl Pipe {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), noisy: false, cut: false, queue: VecDeque::new() }
    }

    pub(crate) fn set_noisy(&mut self, noisy: bool) {
        self.noisy = noisy;
    }

    pub(crate) fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Bytes that the line takes in this millisecond.
    pub(crate) fn room(&self) -> usize {
        BYTES_PER_MS
    }

    /// Sends bytes, some of which do not arrive as they were.
    pub(crate) fn write(&mut self, now: Millis, bytes: &[u8]) {
        let mut arriving = Vec::new();
        for &byte in bytes {
            match self.fault(1500) {
                Some(0) => {}
                Some(1) => arriving.extend([byte, byte]),
                Some(2) => arriving.push(byte ^ (1 << self.random.below(8))),
                Some(_) => arriving.extend([0, byte]),
                None => arriving.push(byte),
            }
        }
        self.push(now, arriving);
    }

    /// Publishes a message, which may be dropped or come twice.
    pub(crate) fn publish(&mut self, now: Millis, message: &[u8]) {
        match self.fault(40) {
            Some(0) => {}
            Some(_) => {
                self.push(now, message.to_vec());
                self.push(now, message.to_vec());
            }
            None => self.push(now, message.to_vec()),
        }
    }

    /// What arrives by now.
    pub(crate) fn read(&mut self, now: Millis) -> Option<Vec<u8>> {
        if self.queue.front()?.0 > now {
            return None;
        }
        self.queue.pop_front().map(|(_, bytes)| bytes)
    }

    /// The sender was restarted in the middle of something.
    pub(crate) fn forget_partial(&mut self) {
        self.queue.pop_back();
    }

    fn push(&mut self, now: Millis, bytes: Vec<u8>) {
        if !self.cut && !bytes.is_empty() {
            self.queue.push_back((now.plus(LATENCY_MS), bytes));
        }
    }

    fn fault(&mut self, one_in: u64) -> Option<u64> {
        (self.noisy && self.random.one_in(one_in)).then(|| self.random.below(4))
    }
}
