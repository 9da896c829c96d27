//! The gateway's own clock: the only place that reads the wall clock, and what says whether it can be believed.
//!
//! A Raspberry Pi without a hardware clock starts at some earlier time with a perfectly plausible year. So plausible
//! is not enough: the kernel must say that it is synchronised, or the machine must have a hardware clock, or it must
//! have run for so long that waiting further helps nobody (a virtual machine is never synchronised by the kernel's
//! word). DESIGN.md §5.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::config::Trust;

/// Uptime of the machine from which on its clock is believed, whatever the kernel says about it.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

/// Nanoseconds since 1970 UTC by the wall clock; 0 before 1970, the highest number after 2262.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now_ns() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)
}

/// Time since an arbitrary point before this process started; never jumps, stands still while the machine sleeps.
#[must_use]
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// The same as whole milliseconds.
#[must_use]
pub fn monotonic_ms() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// Time since the machine started, sleep included.
#[must_use]
pub fn uptime() -> Duration {
    read(ClockId::Boottime)
}

/// What speaks for the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The kernel says that the clock is synchronised.
    pub synchronised: bool,
    /// The machine has a hardware clock.
    pub hardware: bool,
    /// Time since the machine started.
    pub uptime: Duration,
}

impl Evidence {
    /// Asks the kernel, `/sys` and the uptime.
    #[must_use]
    pub fn gather() -> Evidence {
        let rtc = |path: &str| Path::new(path).exists();
        Evidence {
            synchronised: kernel_says_synchronised(),
            hardware: rtc("/sys/class/rtc/rtc0") || rtc("/dev/rtc0"),
            uptime: uptime(),
        }
    }

    /// Whether the wall clock is to be believed.
    #[must_use]
    pub fn convinces(&self, trust: Trust) -> bool {
        trust == Trust::Always || self.synchronised || self.hardware || self.uptime >= MAX_WAIT
    }
}

/// Whether the wall clock is to be believed now.
#[must_use]
pub fn trusted(trust: Trust) -> bool {
    trust == Trust::Always || Evidence::gather().convinces(trust)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[expect(unsafe_code, reason = "no crate in the tree offers adjtimex as a safe call")]
fn kernel_says_synchronised() -> bool {
    // SAFETY: `timex` is a plain C structure of integers, for which all zeroes is a valid value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, exclusively borrowed `timex`; with `modes` 0 the kernel only fills it in.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Evidence =
        Evidence { synchronised: false, hardware: false, uptime: Duration::from_secs(599) };

    #[test]
    fn a_plausible_year_proves_nothing() {
        assert!(!NOTHING.convinces(Trust::Auto));
        assert!(NOTHING.convinces(Trust::Always));
        assert!(Evidence { synchronised: true, ..NOTHING }.convinces(Trust::Auto));
        assert!(Evidence { hardware: true, ..NOTHING }.convinces(Trust::Auto));
        assert!(Evidence { uptime: MAX_WAIT, ..NOTHING }.convinces(Trust::Auto));
    }

    #[test]
    fn the_clocks_run() {
        assert!(now_ns() > 1_600_000_000_000_000_000);
        let before = monotonic();
        assert!(monotonic() >= before);
        assert!(uptime() > Duration::ZERO);
        assert_eq!(Evidence::gather().synchronised, kernel_says_synchronised());
    }
}
