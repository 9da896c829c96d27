//! Why the chip was reset.

use forebay_shared::message::ResetCause;

use crate::uart::Register;

const RESET_CAUSE: Register = Register(0x400f_e05c);

/// Why the chip was reset, by its register, which keeps all reasons since it was cleared.
pub(crate) fn cause() -> ResetCause {
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
