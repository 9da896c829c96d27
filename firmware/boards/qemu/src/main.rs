//! Forebay's firmware on an LM3S6965 evaluation board, which QEMU emulates: a whole device whose bytes and rows come
//! from interrupts, without any hardware.
//!
//! It samples two groups:
//!
//! * `climate`, four times a second in the main loop: an SHTC3 on an I2C bus, both of which [`climate`] simulates;
//! * `pulse`, a hundred times a second in a timer's interrupt: a count, and a level that goes up and down.
//!
//! Its serial port is UART0, its identity the board's MAC address, its tick a cycle of the processor. The host's word on
//! the command line, a number of seconds, ends the sampling; once the gateway has everything, the firmware says through
//! QEMU what it produced, and ends. Without a number it runs on. A reset leaves its ring as it is, from which it goes on.
#![no_std]
#![no_main]

mod climate;
mod clock;
mod host;
mod pulse;
mod reset;
mod uart;

use core::mem::MaybeUninit;

use cortex_m::singleton;
use forebay_firmware::adapters::interrupt::{Bytes, Rows, service};
use forebay_firmware::ring::{KEPT_BYTES, Uninit};
use forebay_firmware::sensor::{Sensor, Shtc3};
use forebay_firmware::{Device, DeviceConfig, WhenFull};
use forebay_shared::ids::{ChipId, GroupId, Tick};
use forebay_shared::link::Transport;
use forebay_shared::reading::Groups;

const GROUPS: Groups = Groups::new(&[Shtc3::<climate::Bus, clock::Delay>::GROUP, pulse::GROUP]);
const CLIMATE: GroupId = GroupId(0);
const PULSE: GroupId = GroupId(1);
const CHANNELS: usize = GROUPS.channel_count() as usize;

static CONFIG: DeviceConfig = DeviceConfig {
    name: "emulated",
    groups: GROUPS,
    tick_hz: clock::HZ,
    linger_ms: 100,
    transport: Transport::Serial,
    when_full: WhenFull::DropOldest,
};

const CLIMATE_PERIOD_TICKS: u64 = clock::HZ as u64 / 4;

/// Some twenty seconds without a gateway, and a quarter of the memory.
const RING_BYTES: usize = 16 * 1024;

/// A measurement takes the loop away for 12 ms, in which a line of 115,200 baud brings 144 bytes.
const BYTES: usize = 257;

/// Rows of `pulse` that may wait for the loop: 630 ms of them.
const ROWS: usize = 64;

#[cortex_m_rt::entry]
fn main() -> ! {
    match run() {
        Ok(report) => host::end(&report),
        Err(reason) => host::fail(reason),
    }
}

// The start-up code neither clears nor fills this section.
#[unsafe(link_section = ".uninit.ring")]
static mut RAM: MaybeUninit<[u8; RING_BYTES + KEPT_BYTES]> = MaybeUninit::uninit();

fn run() -> Result<host::Report, &'static str> {
    let mut core = cortex_m::Peripherals::take().ok_or("the peripherals are taken")?;
    let bytes = singleton!(: Bytes<BYTES> = Bytes::new()).ok_or("the bytes are taken")?;
    let rows = singleton!(: Rows<2, ROWS> = Rows::new()).ok_or("the rows are taken")?;
    let chip = ChipId::new(&uart::mac_address()).ok_or("the board has no MAC address")?;
    // SAFETY: this is called once, and nothing else knows the name.
    let ram = unsafe { Uninit::new(&raw mut RAM) };
    let mut device = Device::<RING_BYTES, CHANNELS, _>::resume(&CONFIG, ram, chip, reset::cause());
    let ((byte_giver, mut bytes), (row_giver, mut rows)) = (bytes.split(), rows.split());
    clock::start(&mut core.SYST, device.resumed_at());
    let mut port = uart::start(byte_giver);
    pulse::start(row_giver);
    let mut sensor = Shtc3::new(climate::Bus::new(), clock::Delay);

    let end = host::seconds().map(|seconds| u64::from(seconds) * u64::from(clock::HZ));
    let mut report = host::Report::default();
    let mut next_sample = clock::now() + CLIMATE_PERIOD_TICKS;
    loop {
        let tick = clock::now();
        let sampling = end.is_none_or(|end| tick < end);
        if sampling && tick >= next_sample {
            let row = sensor.sample().map_err(|_| "the sensor does not answer")?;
            device.record(Tick(next_sample), CLIMATE, row.as_ref()).map_err(|_| "no row of climate")?;
            report.climate += 1;
            next_sample += CLIMATE_PERIOD_TICKS;
        }
        if !sampling {
            pulse::stop();
        }
        rows.record(&mut device, PULSE).map_err(|_| "no row of pulse")?;
        let tick = clock::now();
        let deadline = match service(&mut device, &mut bytes, &mut port, clock::millis(tick), Tick(tick)) {
            Ok(deadline) => deadline,
            Err(never) => match never {},
        };
        if !sampling && device.oldest() == device.next_sequence() {
            report.pulse = pulse::sampled();
            report.lost_rows = rows.lost();
            report.lost_bytes = bytes.lost();
            report.counters = device.counters();
            report.numbered = device.next_sequence().0;
            return Ok(report);
        }
        if deadline.is_none_or(|at| clock::millis(tick) < at) {
            // The timer comes a hundred times a second, even when nothing is sampled any more.
            cortex_m::asm::wfi();
        }
    }
}
