//! Forebay's firmware for the Raspberry Pi Pico: one cable and no wiring.
//!
//! Once a second it samples the chip's own temperature sensor; with the feature `climate`, an SHTC3 on I2C too. It speaks
//! to the gateway through USB, as a serial port of its own, or, with the feature `uart`, through UART0. Its identity is
//! the unique number of its flash chip. The LED is on while a gateway has let it in, and off while it waits for one.
//!
//! A reset leaves the ring as it is, and the firmware goes on with what it holds; only a loss of power empties it.
//!
//! Bytes come from an interrupt; the loop sleeps between two of them, for at most 10 ms. What cannot be set up, stops the
//! chip before it says anything.
#![no_std]
#![no_main]

mod board;
mod chip;
#[cfg(feature = "uart")]
#[path = "uart.rs"]
mod line;
#[cfg(not(feature = "uart"))]
#[path = "usb.rs"]
mod line;

use core::mem::MaybeUninit;

use cortex_m::singleton;
use embedded_hal::digital::OutputPin;
use forebay_firmware::adapters::interrupt::{Bytes, service};
use forebay_firmware::ring::{KEPT_BYTES, Uninit};
use forebay_firmware::sensor::Sensor;
use forebay_firmware::{Device, DeviceConfig, WhenFull};
use forebay_shared::ids::{GroupId, Millis, Tick};
use forebay_shared::link::Transport;
use forebay_shared::reading::Groups;
use panic_halt as _;

#[cfg(feature = "climate")]
const GROUPS: Groups = Groups::new(&[chip::Thermometer::GROUP, board::Climate::GROUP]);
#[cfg(not(feature = "climate"))]
const GROUPS: Groups = Groups::new(&[chip::Thermometer::GROUP]);
const CHIP: GroupId = GroupId(0);
#[cfg(feature = "climate")]
const CLIMATE: GroupId = GroupId(1);

const CHANNELS: usize = GROUPS.channel_count() as usize;

static CONFIG: DeviceConfig = DeviceConfig {
    name: "pico",
    groups: GROUPS,
    tick_hz: board::TICK_HZ,
    linger_ms: 100,
    transport: Transport::Serial,
    when_full: WhenFull::DropOldest,
};

/// Hours of readings without a gateway.
const RING_BYTES: usize = 64 * 1024;

/// More than a gateway says at once, and than USB or a UART bring in the 12 ms of a measurement by I2C.
const BYTES: usize = 257;

const PERIOD_TICKS: u64 = board::TICK_HZ as u64;

/// The boot ROM runs this first; it suits every flash chip.
#[unsafe(link_section = ".boot2")]
#[used]
static SECOND_STAGE: [u8; 256] = rp2040_boot2::BOOT_LOADER_GENERIC_03H;

#[rp2040_hal::entry]
fn main() -> ! {
    // Without what this wants there is nothing to say, and nobody to say it to.
    let _ = run();
    loop {
        cortex_m::asm::wfi();
    }
}

// The start-up code neither clears nor fills this section.
#[unsafe(link_section = ".uninit.ring")]
static mut RAM: MaybeUninit<[u8; RING_BYTES + KEPT_BYTES]> = MaybeUninit::uninit();

/// Ends only where it cannot begin.
fn run() -> Option<()> {
    let bytes = singleton!(: Bytes<BYTES> = Bytes::new())?;
    let (giver, mut bytes) = bytes.split();
    let mut board = board::start(giver)?;
    // SAFETY: this is called once, and nothing else knows the name.
    let ram = unsafe { Uninit::new(&raw mut RAM) };
    let mut device = Device::<RING_BYTES, CHANNELS, _>::resume(&CONFIG, ram, board.chip, board.reset_cause);
    board.clock.go_on(device.resumed_at());
    let mut next_sample = board.clock.ticks();
    loop {
        if board.clock.ticks() >= next_sample {
            let Ok(row) = board.thermometer.sample();
            device.record(Tick(next_sample), CHIP, &row).ok()?;
            // A sensor that does not answer has no row this time.
            #[cfg(feature = "climate")]
            if let Ok(row) = board.climate.sample() {
                device.record(Tick(next_sample), CLIMATE, row.as_ref()).ok()?;
            }
            next_sample += PERIOD_TICKS;
        }
        let (now, tick) = (Millis(board.clock.ticks() / 1000), Tick(board.clock.ticks()));
        let Ok(deadline) = service(&mut device, &mut bytes, &mut board.port, now, tick);
        let Ok(()) = board.led.set_state(device.is_connected().into());
        if deadline.is_none_or(|at| now < at) {
            cortex_m::asm::wfi();
        }
    }
}
