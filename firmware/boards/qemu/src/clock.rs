//! The time: SysTick runs freely through its 24 bits, and its interrupt counts how often it came around.
//!
//! So no tick is lost as long as that interrupt waits for less than one round, 1.3 s.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use cortex_m_rt::exception;
use embedded_hal::delay::DelayNs;
use forebay_shared::ids::{Millis, Tick};

/// Cycles a second: what the chip's oscillator makes of its reset settings in QEMU.
pub(crate) const HZ: u32 = 12_500_000;

const ROUND: u32 = 1 << 24;

static ROUNDS: AtomicU32 = AtomicU32::new(0);
/// The tick of the start: its lower and its upper half.
static FROM: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

/// Starts at 0, or goes on from where it was before a reset.
pub(crate) fn start(systick: &mut SYST, from: Option<Tick>) {
    let Tick(from) = from.unwrap_or(Tick(0));
    FROM[0].store(from as u32, Ordering::Relaxed);
    FROM[1].store((from >> 32) as u32, Ordering::Relaxed);
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(ROUND - 1);
    systick.clear_current();
    systick.enable_interrupt();
    systick.enable_counter();
    // At 0 it stands until it is loaded, which to `now` would be the end of a round. A chip takes a cycle for that; QEMU, as
    // long as its host is busy.
    while SYST::get_current() == 0 {}
}

#[exception]
fn SysTick() {
    // Nobody else writes it.
    ROUNDS.store(ROUNDS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

/// Cycles since the first start.
pub(crate) fn now() -> u64 {
    loop {
        let rounds = ROUNDS.load(Ordering::Acquire);
        let passed = (ROUND - 1) - SYST::get_current();
        // A round that ended while interrupts were held off is not counted yet.
        let uncounted = SCB::is_pendst_pending() && passed < ROUND / 2;
        if rounds == ROUNDS.load(Ordering::Acquire) {
            let rounds = u64::from(rounds) + u64::from(uncounted);
            let [low, high] = [&FROM[0], &FROM[1]].map(|half| u64::from(half.load(Ordering::Relaxed)));
            return (high << 32 | low) + rounds * u64::from(ROUND) + u64::from(passed);
        }
    }
}

/// The milliseconds of a tick.
pub(crate) fn millis(tick: u64) -> Millis {
    Millis(tick / u64::from(HZ / 1000))
}

/// Waits by looking at the clock.
pub(crate) struct Delay;

impl DelayNs for Delay {
    fn delay_ns(&mut self, ns: u32) {
        let cycles = u64::from(ns) * u64::from(HZ / 1000) / 1_000_000 + 1;
        let end = now() + cycles;
        while now() < end {
            core::hint::spin_loop();
        }
    }
}
