//! A device, a line and a gateway on a virtual clock, in steps of a tenth of a millisecond: the real firmware core and the
//! real gateway's half of the link, a device that always has rows to send, and faults that are told.

use anyhow::{Result, ensure};
use forebay_shared::ids::{GroupId, Millis, Tick};

use super::gateway::{Accepted, Gateway};
use super::line::{BITS_A_BYTE, Line, Random};
use super::series::Series;
use super::{Dut, RELEASE_MS};

const STEP_NS: u64 = 100_000;
const NS_A_MS: u64 = 1_000_000;

/// Bytes of the ring that the device leaves free when it samples: the open block, and one that is being sealed.
const HEADROOM_BYTES: usize = 600;

/// A gateway looks for its port four times a second.
pub(super) const LOOK_MS: u64 = 250;

/// Until the estimate of the round trip has settled.
const WARM_UP_MS: u64 = 3_000;

/// How long a device may take until it delivers again, before that is given up.
const RESUME_MS_MAX: u64 = 60_000;

pub(super) struct Rig<'a, const RING: usize> {
    series: &'a Series,
    baud: u64,
    device: Box<Dut<RING>>,
    up: Line,
    down: Line,
    gateway: Gateway,
    now_ns: u64,
    sampled: u64,
    cut: bool,
}

/// How well a line was used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) efficiency: f64,
    pub(super) repeated_blocks: u32,
    pub(super) ring_peak_bytes: usize,
}

/// What happens to a device that delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// The cable is pulled, and plugged in again: the gateway closes its port, and opens it when it looks again.
    Replug,
    /// The gateway is killed, forgets what was not durable, and starts again.
    Restart,
}

impl<'a, const RING: usize> Rig<'a, RING> {
    /// Everything is plugged in and starts now.
    pub(super) fn new(series: &'a Series, baud: u64, loss_ppm: u64, seed: u64) -> Result<Self> {
        let mut gateway = Gateway::new(RELEASE_MS);
        gateway.open();
        Ok(Self {
            series,
            baud,
            device: super::device(series, super::LINGER_MS)?,
            up: Line::new(baud, loss_ppm, seed),
            down: Line::new(baud, loss_ppm, !seed),
            gateway,
            now_ns: 0,
            sampled: 0,
            cut: false,
        })
    }

    /// Wire time of each data frame that was accepted, counted once, by the time that passed.
    pub(super) fn efficiency(mut self, seconds: u64) -> Result<Used> {
        self.run(WARM_UP_MS)?;
        let before = self.gateway.accepted();
        let mut ring_peak_bytes = 0;
        for _ in 0..seconds * 1_000 {
            self.run(1)?;
            ring_peak_bytes = ring_peak_bytes.max(self.device.ring_used_bytes());
        }
        let bytes = self.gateway.accepted().bytes - before.bytes;
        let counters = self.device.counters();
        ensure!(counters.evicted_rows == 0, "the ring overflowed");
        let efficiency = (bytes * BITS_A_BYTE) as f64 / (self.baud * seconds) as f64;
        Ok(Used { efficiency, repeated_blocks: counters.repeated_blocks, ring_peak_bytes })
    }

    /// Milliseconds from the moment that the cable is plugged in, or the gateway is back, until new rows are accepted.
    pub(super) fn resume_ms(mut self, outage: Outage, outage_ms: u64, random: &mut Random) -> Result<u64> {
        self.run(WARM_UP_MS + random.below(1_000))?;
        ensure!(self.gateway.accepted().frames > 0, "the device does not deliver");
        match outage {
            Outage::Replug => {
                self.cut = true;
                self.up.lose_all();
                self.down.lose_all();
                self.gateway.close();
            }
            Outage::Restart => self.gateway.kill(),
        }
        self.run(outage_ms)?;
        self.cut = false;
        let back_ns = self.now_ns;
        if outage == Outage::Replug {
            self.run(random.below(LOOK_MS))?;
        }
        self.gateway.open();
        let before: Accepted = self.gateway.accepted();
        while self.gateway.accepted() == before && self.now_ns - back_ns < RESUME_MS_MAX * NS_A_MS {
            self.run(1)?;
        }
        Ok((self.now_ns - back_ns) / NS_A_MS)
    }

    fn run(&mut self, ms: u64) -> Result<()> {
        for _ in 0..ms * NS_A_MS / STEP_NS {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        self.now_ns += STEP_NS;
        let now = Millis(self.now_ns / NS_A_MS);
        self.sample()?;
        self.up.advance(STEP_NS);
        self.down.advance(STEP_NS);
        loop {
            if self.device.transmit().is_empty() {
                self.device.poll(now, Tick(self.now_ns / 1_000));
            }
            let waiting = self.device.transmit();
            let count = self.up.room().min(waiting.len());
            if count == 0 {
                break;
            }
            self.up.send(self.now_ns, &waiting[..count], self.cut);
            self.device.sent(count);
        }
        self.gateway.receive(now, &self.up.receive(self.now_ns))?;
        self.gateway.tend(now)?;
        let answer = self.gateway.transmit(self.down.room());
        self.down.send(self.now_ns, &answer, self.cut);
        self.device.receive(now, &self.down.receive(self.now_ns));
        Ok(())
    }

    /// As many rows as the ring takes without losing one.
    fn sample(&mut self) -> Result<()> {
        while self.device.ring_used_bytes() + HEADROOM_BYTES <= RING {
            let rows = &self.series.rows;
            let row = &rows[(self.sampled % rows.len() as u64) as usize];
            // A thousand rows a second, however fast they are taken: ticks only have to go forward.
            let tick = Tick(rows[0].tick.0 + self.sampled * 1_000);
            self.device.record(tick, GroupId(0), &row.values)?;
            self.sampled += 1;
        }
        Ok(())
    }
}
