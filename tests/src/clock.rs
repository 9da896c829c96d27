//! The clock of the simulated world: ticks that a device counts, and the true time of each tick.
//!
//! A simulated device has no wall clock. It counts microseconds since its own power-on; the harness alone knows which
//! nanosecond of the wall clock each tick was. Both advance with the monotonic clock, so that a step of the wall clock
//! during a run shows up as the gateway's error and not as the harness's.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Ticks a second of every simulated device: a tick is one microsecond.
pub const TICK_HZ: u32 = 1_000_000;

/// Nanoseconds since 1970 UTC, as this machine's clock says.
#[must_use]
pub fn wall_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// One device's tick counter, tied to the wall clock once.
#[derive(Clone, Copy, Debug)]
pub struct TickClock {
    origin: Instant,
    origin_ns: i64,
    first_tick: u64,
}

impl TickClock {
    /// Powers on now, with the counter at `first_tick`, and on a whole millisecond of the wall clock, so that stores
    /// that keep milliseconds round no two rows together.
    #[must_use]
    pub fn start(first_tick: u64) -> TickClock {
        let (origin, now_ns) = (Instant::now(), wall_ns());
        let past_millisecond = now_ns.rem_euclid(1_000_000);
        let origin =
            origin.checked_sub(Duration::from_nanos(past_millisecond.unsigned_abs())).unwrap_or(origin);
        TickClock { origin, origin_ns: now_ns - past_millisecond, first_tick }
    }

    /// The counter now.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.first_tick + u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The counter's value at power-on.
    #[must_use]
    pub fn first_tick(&self) -> u64 {
        self.first_tick
    }

    /// The true time of `tick`, nanoseconds since 1970 UTC.
    #[must_use]
    pub fn ns_of(&self, tick: u64) -> i64 {
        let micros = i64::try_from(tick.saturating_sub(self.first_tick)).unwrap_or(i64::MAX / 1000);
        self.origin_ns + micros * 1000
    }

    /// Milliseconds since power-on, the monotonic time that the firmware's timers run on.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Calls `ready` every few milliseconds until it answers with a value.
///
/// # Errors
/// `what` did not happen within `limit`, with the last reason that `ready` gave.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ready() {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= deadline => {
                anyhow::bail!("{what} did not happen within {limit:?}: {reason}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
