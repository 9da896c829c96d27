//! What a reset leaves as it is: a piece of memory, and the reason.

use core::mem::MaybeUninit;

use cortex_m::singleton;
use forebay_firmware::ring::{KEPT_BYTES, Memory};
use forebay_shared::message::ResetCause;

use crate::RING_BYTES;
use crate::uart::Register;

const BYTES: usize = RING_BYTES + KEPT_BYTES;

// The start-up code neither clears nor fills this section.
#[unsafe(link_section = ".uninit.ring")]
static mut RAM: MaybeUninit<[u8; BYTES]> = MaybeUninit::uninit();

/// The one way to this memory.
pub(crate) struct Ram(*mut u8);

impl Ram {
    /// The memory, the first time.
    pub(crate) fn take() -> Option<Self> {
        singleton!(: () = ()).map(|()| Self((&raw mut RAM).cast()))
    }
}

impl Memory for Ram {
    const BYTES: usize = BYTES;

    fn read(&self, at: usize) -> u8 {
        // SAFETY: it lies within the memory, which nothing else reaches, and whatever is there is read as it is.
        if at < BYTES { unsafe { self.0.add(at).read_volatile() } } else { 0 }
    }

    fn write(&mut self, at: usize, byte: u8) {
        if at < BYTES {
            // SAFETY: it lies within the memory, which nothing else reaches.
            unsafe { self.0.add(at).write_volatile(byte) }
        }
    }
}

const RESET_CAUSE: Register = Register(0x400f_e05c);

/// Why the chip was reset, by its register, which keeps all reasons since it was cleared.
pub(crate) fn reset_cause() -> ResetCause {
    let causes = RESET_CAUSE.read();
    RESET_CAUSE.write(0);
    match causes {
        causes if causes & 0b0010 != 0 => ResetCause::POWER_ON,
        causes if causes & 0b0100 != 0 => ResetCause::BROWN_OUT,
        causes if causes & 0b1000 != 0 => ResetCause::WATCHDOG,
        causes if causes & 0b1_0000 != 0 => ResetCause::SOFTWARE,
        causes if causes & 0b0001 != 0 => ResetCause::PIN,
        _ => ResetCause::UNKNOWN,
    }
}
