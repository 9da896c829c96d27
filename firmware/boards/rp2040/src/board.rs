//! The Pico: clocks, pins, and what is on them.

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use forebay_firmware::adapters::interrupt::ByteGiver;
#[cfg(feature = "climate")]
use forebay_firmware::sensor::Shtc3;
use forebay_shared::ids::{ChipId, Tick};
use forebay_shared::message::ResetCause;
use rp2040_hal::clocks::{Clock as _, ClocksManager, init_clocks_and_plls};
use rp2040_hal::gpio::bank0::Gpio25;
#[cfg(feature = "climate")]
use rp2040_hal::gpio::{
    FunctionI2C, PullUp,
    bank0::{Gpio4, Gpio5},
};
use rp2040_hal::gpio::{FunctionSioOutput, Pin, Pins, PullDown};
use rp2040_hal::pac::{self, Peripherals};
use rp2040_hal::{Adc, Sio, Timer, Watchdog};

use crate::chip::Thermometer;
use crate::line::{self, Port};

/// Ticks a second: the chip's timer counts microseconds.
pub(crate) const TICK_HZ: u32 = 1_000_000;

/// The crystal on the board.
const CRYSTAL_HZ: u32 = 12_000_000;

/// How often the loop wakes up if nothing else wakes it.
const WAKE_UPS_HZ: u32 = 100;

#[cfg(feature = "climate")]
type Bus = rp2040_hal::I2C<pac::I2C0, (Pin<Gpio4, FunctionI2C, PullUp>, Pin<Gpio5, FunctionI2C, PullUp>)>;

/// The climate sensor on I2C0.
#[cfg(feature = "climate")]
pub(crate) type Climate = Shtc3<Bus, Timer>;

/// All that the firmware uses.
pub(crate) struct Board {
    pub(crate) chip: ChipId,
    pub(crate) reset_cause: ResetCause,
    pub(crate) clock: Clock,
    pub(crate) led: Pin<Gpio25, FunctionSioOutput, PullDown>,
    pub(crate) thermometer: Thermometer,
    #[cfg(feature = "climate")]
    pub(crate) climate: Climate,
    pub(crate) port: Port,
}

/// The time since the reset, behind what passed before it.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    timer: Timer,
    from: u64,
}

impl Clock {
    /// Goes on from there, if the ring does.
    pub(crate) fn go_on(&mut self, from: Option<Tick>) {
        self.from = from.map_or(0, |Tick(tick)| tick);
    }

    pub(crate) fn ticks(self) -> u64 {
        self.from + self.timer.get_counter().ticks()
    }
}

/// Sets everything up; bytes that the port receives go to `giver`.
pub(crate) fn start(giver: ByteGiver<'static>) -> Option<Board> {
    let chip = chip_id()?;
    let (mut peripherals, core) = (Peripherals::take()?, pac::CorePeripherals::take()?);
    let reset_cause = reset_cause(&peripherals.VREG_AND_CHIP_RESET, &peripherals.WATCHDOG);
    let mut watchdog = Watchdog::new(peripherals.WATCHDOG);
    let clocks = init_clocks_and_plls(
        CRYSTAL_HZ,
        peripherals.XOSC,
        peripherals.CLOCKS,
        peripherals.PLL_SYS,
        peripherals.PLL_USB,
        &mut peripherals.RESETS,
        &mut watchdog,
    )
    .ok()?;
    let resets = &mut peripherals.RESETS;
    let pins =
        Pins::new(peripherals.IO_BANK0, peripherals.PADS_BANK0, Sio::new(peripherals.SIO).gpio_bank0, resets);
    let timer = Timer::new(peripherals.TIMER, resets, &clocks);
    wake_up_often(core.SYST, &clocks);
    #[cfg(feature = "climate")]
    let climate = {
        let (data, clock) = (pins.gpio4.reconfigure(), pins.gpio5.reconfigure());
        let rate = rp2040_hal::fugit::HertzU32::kHz(100);
        Shtc3::new(
            rp2040_hal::I2C::i2c0(peripherals.I2C0, data, clock, rate, resets, &clocks.system_clock),
            timer,
        )
    };
    #[cfg(feature = "uart")]
    let port = line::start(
        peripherals.UART0,
        (pins.gpio0.reconfigure(), pins.gpio1.reconfigure()),
        resets,
        clocks.peripheral_clock.freq(),
        giver,
    )?;
    #[cfg(not(feature = "uart"))]
    let port = line::start(
        rp2040_hal::usb::UsbBus::new(
            peripherals.USBCTRL_REGS,
            peripherals.USBCTRL_DPRAM,
            clocks.usb_clock,
            true,
            resets,
        ),
        &chip,
        giver,
    )?;
    Some(Board {
        chip,
        reset_cause,
        clock: Clock { timer, from: 0 },
        led: pins.gpio25.reconfigure(),
        thermometer: Thermometer::new(Adc::new(peripherals.ADC, resets))?,
        #[cfg(feature = "climate")]
        climate,
        port,
    })
}

/// Why the chip was reset. Memory outlives all of these but the loss of power; the boot ROM, which takes a new program by
/// USB, ends with the watchdog's reset.
fn reset_cause(chip: &pac::VREG_AND_CHIP_RESET, watchdog: &pac::WATCHDOG) -> ResetCause {
    let (reason, reset) = (watchdog.reason().read(), chip.chip_reset().read());
    if reason.timer().bit_is_set() {
        ResetCause::WATCHDOG
    } else if reason.force().bit_is_set() {
        ResetCause::SOFTWARE
    } else if reset.had_por().bit_is_set() {
        ResetCause::POWER_ON
    } else if reset.had_run().bit_is_set() {
        ResetCause::PIN
    } else {
        ResetCause::UNKNOWN
    }
}

/// The unique number of the flash chip.
fn chip_id() -> Option<ChipId> {
    let mut id = [0; 8];
    // SAFETY: nothing runs but this, on one core, without interrupts, so that nobody misses the flash meanwhile; and
    // the second stage, which turns it on again, lies where the function looks for it.
    cortex_m::interrupt::free(|_| unsafe { rp2040_flash::flash::flash_unique_id(&mut id, true) });
    ChipId::new(&id)
}

fn wake_up_often(mut systick: pac::SYST, clocks: &ClocksManager) {
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(clocks.system_clock.freq().to_Hz() / WAKE_UPS_HZ - 1);
    systick.clear_current();
    systick.enable_interrupt();
    systick.enable_counter();
}

/// Its coming is all that is wanted.
#[exception]
fn SysTick() {}
