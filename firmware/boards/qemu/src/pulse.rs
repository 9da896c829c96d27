//! The group that is sampled in an interrupt, of timer 0, a hundred times a second.

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use critical_section::Mutex;
use forebay_firmware::adapters::interrupt::RowGiver;
use forebay_shared::ids::Tick;
use forebay_shared::reading::{Channel, Group, Value, ValueKind};
use lm3s6965::{Interrupt, interrupt};

use crate::clock;
use crate::uart::{RCGC1, Register};

/// What is sampled: how many rows there were before, and a level.
pub(crate) const GROUP: Group = Group {
    name: "pulse",
    channels: &[
        Channel { name: "n", unit: "", kind: ValueKind::U32, scale: 0 },
        Channel { name: "level", unit: "%", kind: ValueKind::I32, scale: -1 },
    ],
};

const TIMER_CONFIGURATION: Register = Register(0x4003_0000);
const TIMER_MODE: Register = Register(0x4003_0004);
const TIMER_CONTROL: Register = Register(0x4003_000c);
const TIMER_MASK: Register = Register(0x4003_0018);
const TIMER_CLEAR: Register = Register(0x4003_0024);
const TIMER_RELOAD: Register = Register(0x4003_0028);

static GIVER: Mutex<RefCell<Option<RowGiver<'static, 2>>>> = Mutex::new(RefCell::new(None));
static SAMPLED: AtomicU32 = AtomicU32::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Starts to sample into `giver`.
pub(crate) fn start(giver: RowGiver<'static, 2>) {
    critical_section::with(|section| GIVER.borrow_ref_mut(section).replace(giver));
    RCGC1.set(1 << 16);
    // One timer of 32 bits that starts over by itself.
    TIMER_CONFIGURATION.write(0);
    TIMER_MODE.write(2);
    TIMER_RELOAD.write(clock::HZ / 100 - 1);
    TIMER_MASK.write(1);
    TIMER_CONTROL.write(1);
    // SAFETY: the interrupt's handler needs nothing but the giver, which is there.
    unsafe { cortex_m::peripheral::NVIC::unmask(Interrupt::TIMER_0A) };
}

/// Samples no more; the timer goes on.
pub(crate) fn stop() {
    STOPPED.store(true, Ordering::Release);
}

/// How many rows were sampled.
pub(crate) fn sampled() -> u32 {
    SAMPLED.load(Ordering::Acquire)
}

#[interrupt]
fn TIMER_0A() {
    TIMER_CLEAR.write(1);
    if STOPPED.load(Ordering::Acquire) {
        return;
    }
    // Nobody else writes this count.
    let number = SAMPLED.load(Ordering::Relaxed);
    let level = (number % 2000).abs_diff(1000).cast_signed();
    critical_section::with(|section| {
        if let Some(giver) = GIVER.borrow_ref_mut(section).as_mut() {
            giver.give(Tick(clock::now()), [Some(Value::U32(number)), Some(Value::I32(level))]);
        }
    });
    SAMPLED.store(number + 1, Ordering::Release);
}
