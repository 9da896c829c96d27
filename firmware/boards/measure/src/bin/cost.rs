//! What a device costs in memory, stack and instructions, measured on an emulated Cortex-M3 that counts instructions
//! (`-M mps2-an385 -icount shift=0`: 40 of them a tick of SysTick, in every run the same).
//!
//! The device samples rows of one or of four channels, a thousand a second, looks after each of them what is to be done, and sends them to the gateway's half of the link, which answers
//! at once. Counted is all that the device does: recording, deciding, encoding, and taking the acks in; the gateway's
//! part is not. The report is one line of JSON.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use cortex_m_semihosting::debug::{EXIT_FAILURE, EXIT_SUCCESS, exit};
use cortex_m_semihosting::hprintln;
use forebay_firmware::ring::{KEPT_BYTES, Kept, Memory, Uninit};
use forebay_firmware::{Device, DeviceConfig, WhenFull};
use forebay_measure::gateway::Gateway;
use forebay_measure::stack;
use forebay_shared::ids::{ChipId, GroupId, Millis, Tick};
use forebay_shared::link::Transport;
use forebay_shared::message::ResetCause;
use forebay_shared::reading::{Channel, Group, Groups, Value, ValueKind};

const RING_BYTES: usize = 8192;
const ROWS: u32 = 10_000;
const INSTRUCTIONS_A_TICK: u32 = 40;

const A: Channel = Channel { name: "a", unit: "°C", kind: ValueKind::I32, scale: -2 };
const B: Channel = Channel { name: "b", unit: "%", kind: ValueKind::I32, scale: -2 };
const C: Channel = Channel { name: "c", unit: "hPa", kind: ValueKind::I32, scale: -2 };
const D: Channel = Channel { name: "d", unit: "", kind: ValueKind::U32, scale: 0 };
static ONE: DeviceConfig = config(Groups::new(&[Group { name: "one", channels: &[A] }]));
static FOUR: DeviceConfig = config(Groups::new(&[Group { name: "four", channels: &[A, B, C, D] }]));

const fn config(groups: Groups) -> DeviceConfig {
    let (name, tick_hz, linger_ms) = ("measured", 1000, 1000);
    DeviceConfig {
        name,
        groups,
        tick_hz,
        linger_ms,
        transport: Transport::Serial,
        when_full: WhenFull::DropOldest,
    }
}

/// One channel's slow walk: down or up by a step, or not at all.
fn walk(number: u32, channel: u32) -> i32 {
    let mixed = (number / 3).wrapping_add(channel << 16).wrapping_mul(0x9e37_79b9);
    2000 + (number % 600).abs_diff(300).cast_signed() + (mixed >> 30).cast_signed()
}

fn value(number: u32, channel: usize) -> Option<Value> {
    match channel {
        3 => Some(Value::U32(number * 7)),
        _ => Some(Value::I32(walk(number, channel as u32))),
    }
}

/// Counts what the device does.
struct Meter {
    systick: SYST,
    ticks: u64,
    stack_bytes: usize,
}

impl Meter {
    /// Runs `work` with its instructions counted, or with its stack measured, which changes the count.
    fn measure<T>(&mut self, stack: bool, work: impl FnOnce() -> T) -> T {
        if stack {
            let (result, bytes) = stack::measure(work);
            self.stack_bytes = self.stack_bytes.max(bytes);
            return result;
        }
        self.systick.clear_current();
        let result = work();
        // A counter that was cleared starts from its reload value at the next tick.
        self.ticks += u64::from(SYST::get_reload() - SYST::get_current());
        result
    }
}

/// Instructions a row, or bytes of stack, with rows of `N` channels.
fn run<const N: usize, M: Memory>(
    meter: &mut Meter,
    mut device: Device<RING_BYTES, N, M>,
    stack: bool,
) -> Option<u32> {
    (meter.ticks, meter.stack_bytes) = (0, 0);
    let mut gateway = Gateway::new();
    let mut number = 0;
    let mut now = Millis(0);
    while number < ROWS {
        // As long as the device has nothing to say, row follows row.
        meter.measure(stack, || {
            device.poll(now, Tick(now.0));
            while device.transmit().is_empty() && number < ROWS {
                now = now.plus(1);
                let row: [Option<Value>; N] = core::array::from_fn(|channel| value(number, channel));
                let recorded = device.record(Tick(now.0), GroupId(0), &row);
                number += u32::from(recorded.is_ok());
                device.poll(now, Tick(now.0));
            }
        });
        while !device.transmit().is_empty() {
            gateway.receive(now, device.transmit());
            meter.measure(stack, || device.sent(usize::MAX));
        }
        while let Some(frame) = gateway.answer(now) {
            meter.measure(stack, || device.receive(now, frame));
        }
    }
    let stored = gateway.rows();
    let instructions = meter.ticks * u64::from(INSTRUCTIONS_A_TICK) / u64::from(ROWS);
    let lost = device.counters().evicted_rows + device.counters().repeated_blocks;
    // Almost all rows must have arrived, or it was not the whole path that was measured.
    (lost == 0 && stored > ROWS * 9 / 10).then_some(if stack {
        meter.stack_bytes as u32
    } else {
        instructions as u32
    })
}

fn new<const N: usize>(config: &'static DeviceConfig) -> Option<Device<RING_BYTES, N>> {
    Some(Device::new(config, ChipId::new(&[1])?, ResetCause::UNKNOWN))
}

/// Memory that could outlive a reset.
type Ram = [u8; RING_BYTES + KEPT_BYTES];

/// Instructions that it takes to record a row of `N` channels, without a gateway.
fn record<const N: usize>(meter: &mut Meter, config: &'static DeviceConfig) -> Option<u32> {
    const RECORDED: u32 = 2000;
    meter.ticks = 0;
    let mut device = new::<N>(config)?;
    let recorded = meter.measure(false, || {
        let rows = (0..RECORDED).filter(|number| {
            let row: [Option<Value>; N] = core::array::from_fn(|channel| value(*number, channel));
            device.record(Tick(u64::from(*number) * 10), GroupId(0), &row).is_ok()
        });
        rows.count()
    });
    let instructions = meter.ticks * u64::from(INSTRUCTIONS_A_TICK) / u64::from(RECORDED);
    (recorded == RECORDED as usize).then_some(instructions as u32)
}

fn report() -> Option<()> {
    let mut systick = cortex_m::Peripherals::take()?.SYST;
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(0x00ff_ffff);
    systick.enable_counter();
    let mut meter = Meter { systick, ticks: 0, stack_bytes: 0 };
    let instructions = (run(&mut meter, new::<1>(&ONE)?, false)?, run(&mut meter, new::<4>(&FOUR)?, false)?);
    let chip = ChipId::new(&[1])?;
    let kept = Device::<RING_BYTES, 1, Kept<Ram>>::resume(&ONE, [0; _], chip, ResetCause::UNKNOWN);
    let resumable = run(&mut meter, kept, false)?;
    let recording = (record::<1>(&mut meter, &ONE)?, record::<4>(&mut meter, &FOUR)?);
    let stack = run(&mut meter, new::<4>(&FOUR)?, true)?;
    hprintln!(
        "{{\"beside_the_ring_bytes\":{},\"stack_bytes\":{stack},\
         \"instructions_1_channel\":{},\"instructions_4_channels\":{},\
         \"to_record_1_channel\":{},\"to_record_4_channels\":{},\
         \"resumable_beside_the_ring_bytes\":{},\"resumable_instructions_1_channel\":{resumable}}}",
        size_of::<Device<RING_BYTES, 4>>() - RING_BYTES,
        instructions.0,
        instructions.1,
        recording.0,
        recording.1,
        size_of::<Device<RING_BYTES, 4, Kept<Uninit<{ RING_BYTES + KEPT_BYTES }>>>>() + KEPT_BYTES,
    );
    Some(())
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let status = if report().is_some() { EXIT_SUCCESS } else { EXIT_FAILURE };
    loop {
        exit(status);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hprintln!("{info}");
    loop {
        exit(EXIT_FAILURE);
    }
}
