//! The few calls of the system that no crate in the tree offers safely. All `unsafe` code of the gateway is here.
#![expect(unsafe_code, reason = "each call says why it is sound; everything else in this crate may not")]

use std::os::fd::{BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};

use rustix::ioctl::{Getter, ioctl, opcode};

/// Whether the kernel says that something keeps the wall clock right.
pub(crate) fn is_clock_synchronised() -> bool {
    // SAFETY: `timex` is a plain C structure of integers, for which all zeroes is a valid value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, exclusively borrowed `timex`; with `modes` 0 the kernel only fills it in.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

/// Has the C library's allocator (glibc) share two arenas among all threads, and give back at once what large buffers took.
/// Left alone it has an arena for each thread, of which each keeps what it ever needed, and after one large buffer it keeps
/// every later one of that size too. Call it before there is a second thread; an allocator without these settings goes on as
/// it is.
pub(crate) fn spare_memory() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in
        [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, LARGE_BYTES), (libc::M_TRIM_THRESHOLD, LARGE_BYTES)]
    {
        // SAFETY: the call stores a number in the allocator, under its own lock.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// A buffer that is no part of an arena, and what an arena keeps at its end: glibc's own values, before it changes them.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 128 * 1024;

/// The descriptor of a port, which `serialport` gives away as a number only.
pub(crate) fn descriptor_of(port: serialport::TTYPort) -> OwnedFd {
    // SAFETY: the port gives up its descriptor, which nobody else closes.
    unsafe { OwnedFd::from_raw_fd(port.into_raw_fd()) }
}

/// Whether a terminal is marked as somebody's own (TIOCGEXCL).
pub(crate) fn is_exclusive(port: BorrowedFd<'_>) -> bool {
    const TIOCGEXCL: rustix::ioctl::Opcode = opcode::read::<i32>(b'T', 0x40);
    // SAFETY: the call writes one int, which is what `Getter` has room for.
    unsafe { ioctl(port, Getter::<TIOCGEXCL, i32>::new()) }.is_ok_and(|exclusive| exclusive != 0)
}
