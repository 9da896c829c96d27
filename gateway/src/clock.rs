//! The gateway's own clock: the only place that reads the wall clock, and what says whether it can be believed.
//!
//! A Raspberry Pi without a hardware clock starts at some earlier time with a perfectly plausible year. So plausible
//! is not enough: the kernel must say that it is synchronised, or the machine must have a hardware clock, or it must
//! have run for so long that waiting further helps nobody (a virtual machine is never synchronised by the kernel's
//! word). DESIGN.md §5.
//!
//! Beside the wall clock there is the *steady* one, which counts from the machine's start, sleep included, and never
//! steps; the kernel lets both run at the same rate. What devices say of their time is kept in steady nanoseconds.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::config::{self, Trust};
use crate::raw;
use crate::record::MachineBoot;

/// How far a reading of the wall clock may be off against the steady clock before another one is taken, in nanoseconds.
const READING_NS: i64 = 50_000;

/// Steps of the wall clock to the past that are not followed at once are at most this long, in nanoseconds.
const SLEW_NS: i64 = 1_000_000_000;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since 1970 UTC; 0 before 1970. The wall clock, but for its steps to the past of up to a second: those
    /// are made up for by going an eighth slower, so that no time is given twice.
    pub ns: i64,
    /// Nanoseconds of the steady clock.
    pub steady_ns: i64,
}

impl Moment {
    /// The present one.
    #[must_use]
    pub fn now() -> Moment {
        let reading = Reading::take();
        let offset_ns = wall(reading).follow(reading);
        Moment { ns: reading.steady_ns.saturating_add(offset_ns), steady_ns: reading.steady_ns }
    }

    /// A moment of the steady clock, and what the wall clock read then as far as is known now.
    #[must_use]
    pub fn of_steady(steady_ns: i64) -> Moment {
        Moment { ns: steady_ns.saturating_add(Moment::now().offset_ns()), steady_ns }
    }

    /// What makes steady nanoseconds those since 1970.
    #[must_use]
    pub fn offset_ns(self) -> i64 {
        self.ns.saturating_sub(self.steady_ns)
    }
}

/// Nanoseconds since 1970 UTC, as [`Moment`] has them.
#[must_use]
pub fn now_ns() -> i64 {
    Moment::now().ns
}

/// The wall clock has been said to be ahead of the steady one by so much: where it is behind that by less than a second,
/// it goes on from there, as after a step to the past.
pub fn hold(offset_ns: i64) {
    wall(Reading::take()).hold(offset_ns);
}

/// The run of the machine that the steady clock counts in. Where the kernel does not name it, each process is taken for
/// one: then a restart of the gateway counts as one of the machine.
#[must_use]
pub fn machine_boot() -> MachineBoot {
    static BOOT: OnceLock<MachineBoot> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let named = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let named = named.and_then(|id| machine_boot_of(&id));
        // Without randomness the time since an arbitrary point is as good a name.
        named.unwrap_or_else(|| MachineBoot(getrandom::u64().unwrap_or_else(|_| monotonic_ms())))
    })
}

/// The first half of the kernel's name for a run of the machine, which is random.
fn machine_boot_of(id: &str) -> Option<MachineBoot> {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 16).map(MachineBoot)
}

fn wall(reading: Reading) -> MutexGuard<'static, Wall> {
    static WALL: OnceLock<Mutex<Wall>> = OnceLock::new();
    let first = || Mutex::new(Wall { offset_ns: reading.offset_ns, at_ns: reading.steady_ns });
    WALL.get_or_init(first).lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be added to the steady clock.
#[derive(Clone, Copy, Debug)]
struct Wall {
    offset_ns: i64,
    at_ns: i64,
}

/// Both clocks, read at the same moment but for `uncertain_ns`.
#[derive(Clone, Copy, Debug)]
struct Reading {
    steady_ns: i64,
    offset_ns: i64,
    uncertain_ns: i64,
}

impl Wall {
    /// The offset after a reading. It changes only where the wall clock stepped: both clocks run at the same rate.
    fn follow(&mut self, reading: Reading) -> i64 {
        let passed_ns = reading.steady_ns.saturating_sub(self.at_ns).max(0);
        let behind_ns = self.offset_ns.saturating_sub(reading.offset_ns);
        if behind_ns > SLEW_NS || behind_ns < -reading.uncertain_ns {
            self.offset_ns = reading.offset_ns;
        } else if behind_ns > reading.uncertain_ns {
            self.offset_ns -= behind_ns.min(passed_ns / 8);
        }
        self.at_ns = self.at_ns.max(reading.steady_ns);
        self.offset_ns
    }

    /// Goes on from an offset that it is behind by less than what is made up for slowly.
    fn hold(&mut self, offset_ns: i64) {
        if (0..=SLEW_NS).contains(&offset_ns.saturating_sub(self.offset_ns)) {
            self.offset_ns = offset_ns;
        }
    }
}

impl Reading {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn take() -> Reading {
        let mut best: Option<Reading> = None;
        // Whoever is put to sleep between two readings tries again.
        for _ in 0..3 {
            let before = nanoseconds(uptime());
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let after = nanoseconds(uptime());
            let uncertain_ns = (after - before) / 2 + 1;
            let steady_ns = before + uncertain_ns;
            let offset_ns = nanoseconds(since_1970).saturating_sub(steady_ns);
            let reading = Reading { steady_ns, offset_ns, uncertain_ns };
            if best.is_none_or(|best| reading.uncertain_ns < best.uncertain_ns) {
                best = Some(reading);
            }
            if uncertain_ns <= READING_NS {
                break;
            }
        }
        best.unwrap_or(Reading { steady_ns: 0, offset_ns: 0, uncertain_ns: 0 })
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
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

/// Time since the machine started, sleep included: the steady clock.
#[must_use]
pub fn uptime() -> Duration {
    read(ClockId::Boottime)
}

/// The same in nanoseconds.
#[must_use]
pub fn steady_ns() -> i64 {
    nanoseconds(uptime())
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

/// Why the wall clock is believed, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// The configuration wants it.
    Told,
    /// The kernel says that it is synchronised.
    Synchronised,
    /// The machine has a hardware clock.
    Hardware,
    /// The machine has run for so long that waiting further helps nobody; nobody vouches for it.
    Waited,
    /// Not yet, and for so long at most.
    Waiting(Duration),
}

impl Evidence {
    /// Asks the kernel, `/sys` and the uptime.
    #[must_use]
    pub fn gather() -> Evidence {
        let rtc = |path: &str| Path::new(path).exists();
        Evidence {
            synchronised: raw::is_clock_synchronised(),
            hardware: rtc("/sys/class/rtc/rtc0") || rtc("/dev/rtc0"),
            uptime: uptime(),
        }
    }

    /// What follows from it.
    #[must_use]
    pub fn belief(&self, clock: config::Clock) -> Belief {
        match clock.max_wait.checked_sub(self.uptime) {
            _ if clock.trust == Trust::Always => Belief::Told,
            _ if self.synchronised => Belief::Synchronised,
            _ if self.hardware => Belief::Hardware,
            Some(wait) if !wait.is_zero() => Belief::Waiting(wait),
            _ => Belief::Waited,
        }
    }
}

impl Belief {
    /// Whether the wall clock is believed.
    #[must_use]
    pub fn is_trust(self) -> bool {
        !matches!(self, Belief::Waiting(_))
    }

    /// The reason in words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Belief::Told => "trust = \"always\" is configured",
            Belief::Synchronised => "the kernel says that it is synchronised",
            Belief::Hardware => "the machine has a hardware clock",
            Belief::Waited => "max_wait has passed since the machine's start",
            Belief::Waiting(_) => "it is not synchronised, and the machine has no hardware clock",
        }
    }
}

/// Whether the wall clock is believed, and why. What has convinced once is not asked again: a clock that was right goes
/// on being right while the network is away.
#[must_use]
pub fn belief(clock: config::Clock) -> Belief {
    static CONVINCED: OnceLock<Belief> = OnceLock::new();
    if clock.trust == Trust::Always {
        return Belief::Told;
    }
    CONVINCED.get().copied().unwrap_or_else(|| {
        let belief = Evidence::gather().belief(clock);
        if belief.is_trust() { *CONVINCED.get_or_init(|| belief) } else { belief }
    })
}

/// Whether the wall clock is believed now.
#[must_use]
pub fn trusted(clock: config::Clock) -> bool {
    belief(clock).is_trust()
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Evidence =
        Evidence { synchronised: false, hardware: false, uptime: Duration::from_secs(599) };

    #[test]
    fn a_plausible_year_proves_nothing() {
        let clock = |trust, seconds| config::Clock { trust, max_wait: Duration::from_secs(seconds) };
        let auto = clock(Trust::Auto, 600);
        assert_eq!(NOTHING.belief(auto), Belief::Waiting(Duration::from_secs(1)));
        assert!(!NOTHING.belief(auto).is_trust());
        assert_eq!(NOTHING.belief(clock(Trust::Auto, 599)), Belief::Waited);
        assert_eq!(NOTHING.belief(clock(Trust::Auto, 0)), Belief::Waited);
        assert_eq!(NOTHING.belief(clock(Trust::Always, 600)), Belief::Told);
        assert_eq!(Evidence { synchronised: true, ..NOTHING }.belief(auto), Belief::Synchronised);
        assert_eq!(Evidence { hardware: true, ..NOTHING }.belief(auto), Belief::Hardware);
    }

    #[test]
    fn a_short_step_to_the_past_is_made_up_for_slowly_and_everything_else_followed() {
        let mut wall = Wall { offset_ns: 5_000_000_000, at_ns: 0 };
        let mut at = |steady_ms: i64, offset_ms: i64| {
            let (steady_ns, offset_ns) = (steady_ms * 1_000_000, offset_ms * 1_000_000);
            wall.follow(Reading { steady_ns, offset_ns, uncertain_ns: 1_000_000 }) / 1_000_000
        };
        assert_eq!(at(100, 5_000), 5_000);
        assert_eq!(at(200, 5_001), 5_000, "a reading is not exact");
        assert_eq!(at(300, 5_400), 5_400);
        assert_eq!(at(400, 5_200), 5_387);
        assert_eq!(at(1_200, 5_200), 5_287);
        assert_eq!(at(9_000, 5_200), 5_200);
        assert_eq!(at(9_100, 4_000), 4_000, "a new epoch of the clock");
        wall.hold(4_800_000_000);
        wall.hold(4_500_000_000);
        wall.hold(9_000_000_000);
        let reading = Reading { steady_ns: 9_900_000_000, offset_ns: 4_000_000_000, uncertain_ns: 1_000_000 };
        assert_eq!(wall.follow(reading), 4_700_000_000, "what was said of it stands for a while");
    }

    #[test]
    fn a_machine_boot_is_named_by_half_of_what_the_kernel_calls_it() {
        let id = "d1b9c3e0-5a77-4f10-8e2b-0c9d8f7a6b5c\n";
        assert_eq!(machine_boot_of(id), Some(MachineBoot(0xd1b9_c3e0_5a77_4f10)));
        assert_eq!(machine_boot_of("d1b9"), None);
        assert_eq!(machine_boot(), machine_boot());
    }

    #[test]
    fn the_clocks_run() {
        assert!(now_ns() > 1_600_000_000_000_000_000);
        let before = monotonic();
        assert!(monotonic() >= before);
        assert!(uptime() > Duration::ZERO);
        assert_eq!(Evidence::gather().synchronised, raw::is_clock_synchronised());
    }
}
