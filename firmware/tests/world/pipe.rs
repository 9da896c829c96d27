//! One direction of a serial line, or of a broker's queue, and what it does to what is sent.

use std::collections::VecDeque;

use forebay_firmware::noise::{Chance, Noise, Random};
use forebay_shared::ids::Millis;

/// Messages that a broker may hand over once more after a reconnect.
const REMEMBERED: usize = 8;

/// What arrives at once.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) at: Millis,
    pub(crate) bytes: Vec<u8>,
    /// The rest of a frame is still to come.
    pub(crate) is_part: bool,
}

#[derive(Debug)]
pub(crate) struct Pipe {
    random: Random,
    latency_ms: u32,
    /// One byte of a line, or one message of a broker, in so many is harmed; zero for none.
    noise: u64,
    cut: bool,
    /// Each frame arrives in two parts.
    split: bool,
    queue: VecDeque<Chunk>,
    last_at: Millis,
    remembered: VecDeque<Vec<u8>>,
}

impl Pipe {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            latency_ms: 1,
            noise: 0,
            cut: false,
            split: false,
            queue: VecDeque::new(),
            last_at: Millis(0),
            remembered: VecDeque::new(),
        }
    }

    pub(crate) fn set_latency(&mut self, ms: u32) {
        self.latency_ms = ms;
    }

    pub(crate) fn set_noise(&mut self, one_in: u64) {
        self.noise = one_in;
    }

    /// Nothing passes, and what is on its way is gone.
    pub(crate) fn cut(&mut self) {
        self.cut = true;
        self.queue.clear();
    }

    pub(crate) fn mend(&mut self) {
        self.cut = false;
    }

    pub(crate) fn split(&mut self, split: bool) {
        self.split = split;
    }

    /// Sends the bytes of a frame, some of which do not arrive as they were.
    pub(crate) fn write(&mut self, now: Millis, frame: &[u8]) {
        let bytes = self.harm(frame);
        if self.cut || bytes.is_empty() {
            return;
        }
        if bytes.len() > 4 && (self.split || self.random.one_in(8)) {
            let (left, right) = bytes.split_at(self.random.within(2, bytes.len() as u64 - 2) as usize);
            self.push(now, left.to_vec(), true);
            let pause = self.random.below(4) as u32;
            self.push(now.plus(pause), right.to_vec(), false);
        } else {
            self.push(now, bytes, false);
        }
    }

    /// Publishes a message, which may be dropped or come twice.
    pub(crate) fn publish(&mut self, now: Millis, message: &[u8]) {
        let is_harmed = self.random.happens(Chance::one_in(self.noise));
        let copies = if is_harmed { self.random.below(2) * 2 } else { 1 };
        if self.cut {
            return;
        }
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(message.to_vec());
        for _ in 0..copies {
            self.push(now, message.to_vec(), false);
        }
    }

    /// The broker hands over once more what it has no confirmation for.
    pub(crate) fn redeliver(&mut self, now: Millis) {
        for message in self.remembered.clone() {
            self.push(now, message, false);
        }
    }

    /// When something arrives.
    pub(crate) fn next_at(&self) -> Option<Millis> {
        self.queue.front().map(|chunk| chunk.at)
    }

    /// What arrives by now.
    pub(crate) fn read(&mut self, now: Millis) -> Option<Chunk> {
        self.queue.pop_front_if(|chunk| chunk.at <= now)
    }

    /// What is on its way goes elsewhere from here on.
    pub(crate) fn take(&mut self) -> VecDeque<Chunk> {
        core::mem::take(&mut self.queue)
    }

    /// A line never overtakes, and a broker keeps the order too.
    fn push(&mut self, now: Millis, bytes: Vec<u8>, is_part: bool) {
        let at = now.plus(self.latency_ms).max(self.last_at);
        self.last_at = at;
        self.queue.push_back(Chunk { at, bytes, is_part });
    }

    fn harm(&mut self, frame: &[u8]) -> Vec<u8> {
        if self.noise == 0 {
            return frame.to_vec();
        }
        let each = Chance::one_in(4 * self.noise);
        let noise = Noise { flip: each, drop: each, duplicate: each, insert: each };
        let mut arriving = Vec::with_capacity(frame.len() + 2);
        noise.pass(&mut self.random, frame, |byte| arriving.push(byte));
        // A frame may be lost as a whole, or come twice.
        match self.random.below(40) {
            0 => Vec::new(),
            1 => [arriving.as_slice(), &arriving].concat(),
            _ => arriving,
        }
    }
}
