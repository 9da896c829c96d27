//! How deep the stack gets, by painting what is below it.

use core::ptr::addr_of_mut;

const PAINT: u32 = 0xc0de_fade;

/// What the stack of this function and the one that paints may take at most, which is not painted.
const OWN_BYTES: usize = 256;

unsafe extern "C" {
    /// Where the statics end, from the linker's script.
    static mut __sheap: u32;
}

/// Runs `work`, and says how many bytes of stack it took, to within 256.
///
/// No interrupt may come meanwhile.
#[inline(never)]
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let bottom = addr_of_mut!(__sheap);
    let here = cortex_m::register::msp::read() as usize;
    let words = (here - bottom as usize - OWN_BYTES) / size_of::<u32>();
    for index in 0..words {
        // SAFETY: between the end of the statics and the stack pointer lies nothing, and no interrupt comes.
        unsafe { bottom.add(index).write_volatile(PAINT) }
    }
    let result = work();
    // SAFETY: as above; what is read was written above, or by the calls that are over.
    let intact = (0..words).take_while(|index| unsafe { bottom.add(*index).read_volatile() } == PAINT);
    let depth = here - bottom as usize - intact.count() * size_of::<u32>();
    (result, depth)
}
