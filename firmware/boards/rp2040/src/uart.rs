//! UART0 at 115,200 baud.

use core::cell::RefCell;
use core::convert::Infallible;

use critical_section::Mutex;
use embedded_io::{ErrorType, Write, WriteReady};
use forebay_firmware::adapters::interrupt::ByteGiver;
use rp2040_hal::fugit::HertzU32;
use rp2040_hal::gpio::bank0::{Gpio0, Gpio1};
use rp2040_hal::gpio::{FunctionUart, Pin, PullDown};
use rp2040_hal::pac::{self, RESETS, UART0, interrupt};
use rp2040_hal::uart::{Enabled, UartConfig, UartPeripheral};

type Pins = (Pin<Gpio0, FunctionUart, PullDown>, Pin<Gpio1, FunctionUart, PullDown>);

struct Uart {
    port: UartPeripheral<Enabled, UART0, Pins>,
    giver: ByteGiver<'static>,
}

/// The main loop writes, and the interrupt reads.
static UART: Mutex<RefCell<Option<Uart>>> = Mutex::new(RefCell::new(None));

/// Turns the UART on, which is clocked with `clock`.
pub(crate) fn start(
    uart: UART0,
    pins: Pins,
    resets: &mut RESETS,
    clock: HertzU32,
    giver: ByteGiver<'static>,
) -> Option<Port> {
    let mut port = UartPeripheral::new(uart, pins, resets).enable(UartConfig::default(), clock).ok()?;
    port.enable_rx_interrupt();
    critical_section::with(|section| UART.borrow_ref_mut(section).replace(Uart { port, giver }));
    // SAFETY: the interrupt's handler needs nothing but what is there now.
    unsafe { cortex_m::peripheral::NVIC::unmask(pac::Interrupt::UART0_IRQ) };
    Some(Port)
}

#[interrupt]
fn UART0_IRQ() {
    critical_section::with(|section| {
        let mut uart = UART.borrow_ref_mut(section);
        let Some(Uart { port, giver }) = uart.as_mut() else { return };
        let mut bytes = [0; 32];
        // A damaged byte ends the reading early; the link sees to damage.
        while let Ok(count) = port.read_raw(&mut bytes) {
            bytes.iter().take(count).for_each(|byte| giver.give(*byte));
        }
    });
}

fn with_port<T>(nothing: T, work: impl FnOnce(&UartPeripheral<Enabled, UART0, Pins>) -> T) -> T {
    critical_section::with(|section| match UART.borrow_ref(section).as_ref() {
        Some(uart) => work(&uart.port),
        None => nothing,
    })
}

/// The half that writes.
pub(crate) struct Port;

impl ErrorType for Port {
    type Error = Infallible;
}

impl WriteReady for Port {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(with_port(false, UartPeripheral::uart_is_writable))
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        loop {
            if let Some(rest) = with_port(None, |port| port.write_raw(bytes).ok().map(<[u8]>::len)) {
                return Ok(bytes.len() - rest);
            }
        }
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
