//! `rdtsc` and `rdtscp`: the driver sees virtual time, and a run is the same each time.
//!
//! Linux can make the instructions fault for a thread. That is asked for while a machine has an image in which they seem to occur. It concerns everything that the thread executes:
//! where the host's own code reads the counter, as its clocks do, the read is done for it.

use super::guarded;
use crate::image::file::File;
use ksync_sys::KeQueryPerformanceCounter;
use std::arch::x86_64::{__rdtscp, _rdtsc};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far the counter goes in 100 ns: at 1 GHz.
const CYCLES: u64 = 100;

const READ: [u8; 2] = [0x0f, 0x31];
const READ_WITH_PROCESSOR: [u8; 3] = [0x0f, 0x01, 0xf9];

/// The counter faults somewhere in the process, or did. A thread inherits that from the one that starts it.
static EVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static TRAPPED: Cell<bool> = const { Cell::new(false) };
}

/// While this is there, reads of the counter fault on the OS thread that made it.
#[derive(Debug)]
pub(crate) struct Trap(());

impl Trap {
    /// None where the host cannot do it: drivers then read its counter.
    pub(super) fn set() -> Option<Self> {
        EVER.store(true, Ordering::Relaxed);
        let set = control(libc::PR_TSC_SIGSEGV);
        TRAPPED.set(set);
        set.then_some(Self(()))
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        TRAPPED.set(false);
        control(libc::PR_TSC_ENABLE);
    }
}

fn control(what: i32) -> bool {
    // SAFETY: the call changes nothing but whether two instructions fault on this thread, for which there is a handler.
    unsafe { libc::prctl(libc::PR_SET_TSC, what, 0, 0, 0) == 0 }
}

/// True when the bytes of such an instruction are somewhere in the code of an image.
pub(super) fn occurs(file: &File) -> bool {
    let code = file.sections.iter().filter(|section| section.executable);
    code.filter_map(|section| file.slice(section.start, section.size)).any(|bytes| {
        bytes.windows(2).any(|window| window == READ) || bytes.windows(3).any(|window| window == READ_WITH_PROCESSOR)
    })
}

/// What a driver reads.
pub(super) fn virtual_counter() -> u64 {
    // SAFETY: the routine may be called by anybody, and takes null. It lets time pass for who waits for that.
    let time = unsafe { KeQueryPerformanceCounter(null_mut()) };
    (time as u64).wrapping_mul(CYCLES)
}

/// What the host's own code reads at `rip`: the counter, the processor's number for `rdtscp`, and the length of the instruction. None if it is none of the two.
pub(super) fn for_host(rip: u64) -> Option<(u64, Option<u32>, u64)> {
    if !EVER.load(Ordering::Relaxed) {
        return None;
    }
    let mut bytes = [0; 3];
    // SAFETY: what is written is this function's own.
    unsafe { guarded::copy(bytes.as_mut_ptr(), rip as *const u8, READ.len()) }.ok()?;
    let with_processor = bytes[..2] == READ_WITH_PROCESSOR[..2];
    if with_processor {
        // SAFETY: as above.
        unsafe { guarded::copy(bytes.as_mut_ptr(), rip as *const u8, bytes.len()) }.ok()?;
    }
    if bytes[..2] != READ && bytes != READ_WITH_PROCESSOR {
        return None;
    }
    control(libc::PR_TSC_ENABLE);
    let mut processor = 0;
    let counter = if with_processor {
        // SAFETY: the instruction was there to be executed, and faults no more.
        unsafe { __rdtscp(&raw mut processor) }
    } else {
        // SAFETY: as above.
        unsafe { _rdtsc() }
    };
    if TRAPPED.get() {
        control(libc::PR_TSC_SIGSEGV);
    }
    Some((counter, with_processor.then_some(processor), if with_processor { 3 } else { 2 }))
}
