//! What the firmware and the machine that emulates it say to each other, by semihosting.

use core::cell::Cell;
use core::panic::PanicInfo;

use cortex_m_semihosting::debug::{EXIT_FAILURE, EXIT_SUCCESS, exit};
use cortex_m_semihosting::{hprintln, nr, syscall};
use forebay_firmware::device::Counters;

/// What the firmware did.
#[derive(Default)]
pub(crate) struct Report {
    /// Rows of `climate`.
    pub(crate) climate: u32,
    /// Rows of `pulse`.
    pub(crate) pulse: u32,
    /// Rows of `pulse` that found the queue to the main loop full.
    pub(crate) lost_rows: u32,
    /// Received bytes that found theirs full.
    pub(crate) lost_bytes: u32,
    /// What the device counted.
    pub(crate) counters: Counters,
    /// Rows that were ever numbered, also before a reset. The others are counted since then.
    pub(crate) numbered: u32,
}

/// The command line's last word, if it is a number other than 0.
pub(crate) fn seconds() -> Option<u32> {
    let mut line = [0; 64];
    // The call changes the block, through a pointer that the compiler takes for one to read from.
    let block = [Cell::new(line.as_mut_ptr() as usize), Cell::new(line.len())];
    // SAFETY: the call writes a text of at most the given length into `line`, and its length into the block.
    let failed = unsafe { syscall(nr::GET_CMDLINE, &block) } != 0;
    let text = core::str::from_utf8(line.get(..block[1].get())?).ok()?;
    let number = text.trim_end_matches('\0').rsplit(' ').next()?.parse().ok()?;
    (!failed && number != 0).then_some(number)
}

/// Says what was done, as one line of JSON, and ends the emulation.
pub(crate) fn end(report: &Report) -> ! {
    let Report { climate, pulse, lost_rows, lost_bytes, counters, numbered } = report;
    hprintln!(
        "{{\"climate\":{climate},\"pulse\":{pulse},\"lost_rows\":{lost_rows},\"lost_bytes\":{lost_bytes},\
         \"numbered\":{numbered},\"evicted_rows\":{},\"repeated_blocks\":{},\"bad_frames\":{}}}",
        counters.evicted_rows,
        counters.repeated_blocks,
        counters.bad_frames
    );
    leave(EXIT_SUCCESS)
}

/// Says why it cannot go on, and ends the emulation.
pub(crate) fn fail(reason: &str) -> ! {
    hprintln!("the firmware cannot go on: {reason}");
    leave(EXIT_FAILURE)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hprintln!("{info}");
    leave(EXIT_FAILURE)
}

fn leave(status: cortex_m_semihosting::debug::ExitStatus) -> ! {
    loop {
        exit(status);
    }
}
