//! A static that the start-up code neither clears nor fills.
#![expect(unsafe_code, reason = "what is read was there before the program began")]

use core::mem::MaybeUninit;

use super::Memory;

/// A chip's memory that outlives a reset, such as cortex-m-rt's section `.uninit`.
#[derive(Debug)]
pub struct Uninit<const N: usize>(*mut u8);

impl<const N: usize> Uninit<N> {
    /// The memory behind a static's address.
    ///
    /// # Safety
    ///
    /// It must be there as long as the program runs, and nothing else may reach it.
    pub const unsafe fn new(memory: *mut MaybeUninit<[u8; N]>) -> Self {
        Self(memory.cast())
    }
}

// SAFETY: by the contract of `new`, whoever has it is the only one that reaches the memory.
unsafe impl<const N: usize> Send for Uninit<N> {}

impl<const N: usize> Memory for Uninit<N> {
    const BYTES: usize = N;

    fn read(&self, at: usize) -> u8 {
        // SAFETY: it lies within the memory, which is there. That a byte of it may never have been written in this life
        // of the program is why the static is in a section of its own: no compiler knows what is in there.
        if at < N { unsafe { self.0.add(at).read_volatile() } } else { 0 }
    }

    fn write(&mut self, at: usize, byte: u8) {
        if at < N {
            // SAFETY: it lies within the memory, which is there and is reached by nothing else.
            unsafe { self.0.add(at).write_volatile(byte) }
        }
    }
}
