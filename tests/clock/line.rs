//! Lines: how long a question for the tick takes, and its answer.

use forebay_tests::seed::Rng;

/// Delays of one direction, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay {
    base_s: f64,
    /// Uniform, from none to this.
    jitter_s: f64,
    /// How often something is in the way, and for how long at most.
    block: (f64, f64),
}

/// A line, and the tick's way over it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// What rows may be off by at the 99th percentile while it is connected, in nanoseconds.
    pub(crate) live_ns: i64,
    down: Delay,
    up: Delay,
    /// The way back while the device sends no rows yet.
    first_up: Delay,
    /// How often a question or an answer is lost.
    loss: f64,
}

impl Line {
    /// A full-speed USB port is asked every millisecond.
    pub(crate) fn usb() -> Line {
        let way = Delay { base_s: 0.1e-3, jitter_s: 1e-3, block: (0.02, 0.02) };
        Line { name: "USB", live_ns: 1_000_000, down: way, up: way, first_up: way, loss: 0.0 }
    }

    /// 115,200 baud: the answer is longer than the question, and a block of 253 bytes is in its way now and then.
    pub(crate) fn uart() -> Line {
        let down = Delay { base_s: 1.0e-3, jitter_s: 0.3e-3, block: (0.0, 0.0) };
        let up = Delay { base_s: 1.7e-3, jitter_s: 0.3e-3, block: (0.1, 0.022) };
        Line { name: "UART", live_ns: 1_000_000, down, up, first_up: up, loss: 0.01 }
    }

    /// The same with a block in the way of every answer, once the device sends rows: a line that is full.
    pub(crate) fn busy_uart() -> Line {
        let line = Line::uart();
        Line {
            name: "busy UART",
            live_ns: 2_000_000,
            up: Delay { block: (1.0, 0.022), ..line.up },
            loss: 0.05,
            ..line
        }
    }

    /// A broker in the same network; the ways differ.
    pub(crate) fn mqtt() -> Line {
        let down = Delay { base_s: 1.5e-3, jitter_s: 1e-3, block: (0.05, 0.05) };
        let up = Delay { base_s: 0.8e-3, jitter_s: 1e-3, block: (0.05, 0.05) };
        Line { name: "MQTT", live_ns: 1_000_000, down, up, first_up: up, loss: 0.0 }
    }

    /// Seconds from the question to the device, and back from there; none if either is lost.
    pub(crate) fn exchange(&self, rng: &mut Rng, sends_rows: bool) -> Option<(f64, f64)> {
        let lost = unit(rng) < self.loss;
        let up = if sends_rows { self.up } else { self.first_up };
        let ways = (self.down.draw(rng), up.draw(rng));
        (!lost).then_some(ways)
    }
}

impl Delay {
    fn draw(&self, rng: &mut Rng) -> f64 {
        let blocked = unit(rng) < self.block.0;
        self.base_s + self.jitter_s * unit(rng) + if blocked { self.block.1 * unit(rng) } else { 0.0 }
    }
}

/// A number from 0 up to 1.
pub(crate) fn unit(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
