//! The few calls of the system that no crate in the tree offers safely. All `unsafe` code of the gateway is here.
#![expect(unsafe_code, reason = "each call says why it is sound; everything else in this crate may not")]

use std::os::fd::{BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::{ptr, slice};

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

/// Gives up the pages of the program's own file that were read so far: what only the start needed stays away, and what is
/// needed again comes back from the page cache. So the start's half of the program does not count as in use for weeks, and
/// is the first that the kernel takes when memory is short.
pub(crate) fn let_go_of_start() {
    // SAFETY: the callback neither unwinds nor keeps what it is given.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of_program), ptr::null_mut()) };
}

/// Lets go of one object's segments, and ends the iteration with it: the program comes first, before its libraries, which
/// other processes have in use too.
///
/// # Safety
/// `object` points to what `dl_iterate_phdr` tells of an object that is loaded.
unsafe extern "C" fn let_go_of_program(
    object: *mut libc::dl_phdr_info,
    _bytes: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    let page = rustix::param::page_size();
    // SAFETY: the caller vouches for the object, and the linker for as many headers as the object says.
    let (base, segments) = unsafe {
        let object = &*object;
        (object.dlpi_addr as usize, slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    for segment in segments.iter().filter(|it| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_W == 0) {
        let start = base.wrapping_add(segment.p_vaddr as usize);
        let first = start & !(page - 1);
        let bytes = start - first + segment.p_memsz as usize;
        // SAFETY: a segment that is never written, not even by the linker, holds what the file does, so that its pages
        // read the same when they come back. Where the call fails, nothing has changed.
        unsafe { libc::madvise(first as *mut libc::c_void, bytes, libc::MADV_DONTNEED) };
    }
    1
}

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
