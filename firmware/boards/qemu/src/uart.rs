//! UART0 at 115,200 baud, and what else is reached by the address of a register.

use core::cell::RefCell;
use core::convert::Infallible;

use critical_section::Mutex;
use embedded_io::{ErrorType, Write, WriteReady};
use forebay_firmware::adapters::interrupt::ByteGiver;
use lm3s6965::{Interrupt, interrupt};

use crate::clock;

/// A register of the chip. The data sheet says which addresses there are; none of those below has an effect on memory.
pub(crate) struct Register(pub(crate) usize);

impl Register {
    pub(crate) fn read(&self) -> u32 {
        // SAFETY: the address is one of a register, which may be read at any time.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    pub(crate) fn write(&self, value: u32) {
        // SAFETY: the address is one of a register, and no register that is written here touches memory.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }

    pub(crate) fn set(&self, bits: u32) {
        self.write(self.read() | bits);
    }
}

/// Clock gates of UART0 and timer 0, and of GPIO port A.
pub(crate) const RCGC1: Register = Register(0x400f_e104);
const RCGC2: Register = Register(0x400f_e108);
const MAC_HIGH: Register = Register(0x400f_e1e0);
const MAC_LOW: Register = Register(0x400f_e1e4);
const PORT_A_ALTERNATE: Register = Register(0x4000_4420);
const PORT_A_DIGITAL: Register = Register(0x4000_451c);
const DATA: Register = Register(0x4000_c000);
const FLAGS: Register = Register(0x4000_c018);
const BAUD_WHOLE: Register = Register(0x4000_c024);
const BAUD_FRACTION: Register = Register(0x4000_c028);
const LINE: Register = Register(0x4000_c02c);
const CONTROL: Register = Register(0x4000_c030);
const MASK: Register = Register(0x4000_c038);
const CLEAR: Register = Register(0x4000_c044);

const RECEIVER_EMPTY: u32 = 1 << 4;
const TRANSMITTER_FULL: u32 = 1 << 5;
/// Bytes have come, or some came and no more did.
const RECEIVED: u32 = 1 << 4 | 1 << 6;

const BAUD: u32 = 115_200;

static GIVER: Mutex<RefCell<Option<ByteGiver<'static>>>> = Mutex::new(RefCell::new(None));

/// Turns the UART on; what it receives goes to `giver`.
pub(crate) fn start(giver: ByteGiver<'static>) -> Port {
    critical_section::with(|section| GIVER.borrow_ref_mut(section).replace(giver));
    RCGC1.set(1);
    RCGC2.set(1);
    // Pins 0 and 1 of port A are the UART's.
    PORT_A_ALTERNATE.set(0b11);
    PORT_A_DIGITAL.set(0b11);
    // The divisor is the clock by 16 times the rate, in units of 1/64.
    let divisor = (8 * clock::HZ / BAUD).div_ceil(2);
    BAUD_WHOLE.write(divisor / 64);
    BAUD_FRACTION.write(divisor % 64);
    // Eight bits, no parity, one stop bit, with the queues of the chip.
    LINE.write(0b111_0000);
    MASK.write(RECEIVED);
    // Transmitter, receiver, and all of it.
    CONTROL.write(1 << 9 | 1 << 8 | 1);
    // SAFETY: the interrupt's handler needs nothing but the giver, which is there.
    unsafe { cortex_m::peripheral::NVIC::unmask(Interrupt::UART0) };
    Port
}

/// The board's MAC address, which lies in two registers for the user.
pub(crate) fn mac_address() -> [u8; 6] {
    let ([a, b, c, _], [d, e, f, _]) = (MAC_HIGH.read().to_le_bytes(), MAC_LOW.read().to_le_bytes());
    [a, b, c, d, e, f]
}

#[interrupt]
fn UART0() {
    CLEAR.write(RECEIVED);
    critical_section::with(|section| {
        while FLAGS.read() & RECEIVER_EMPTY == 0 {
            let [byte, ..] = DATA.read().to_le_bytes();
            if let Some(giver) = GIVER.borrow_ref_mut(section).as_mut() {
                giver.give(byte);
            }
        }
    });
}

/// The half that writes.
pub(crate) struct Port;

impl ErrorType for Port {
    type Error = Infallible;
}

impl WriteReady for Port {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(FLAGS.read() & TRANSMITTER_FULL == 0)
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let Some((first, rest)) = bytes.split_first() else { return Ok(0) };
        while FLAGS.read() & TRANSMITTER_FULL != 0 {}
        DATA.write(u32::from(*first));
        let room = rest.iter().take_while(|byte| {
            let room = FLAGS.read() & TRANSMITTER_FULL == 0;
            if room {
                DATA.write(u32::from(**byte));
            }
            room
        });
        Ok(1 + room.count())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
