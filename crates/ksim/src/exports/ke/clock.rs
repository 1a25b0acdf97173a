//! Time (rule 57).

use crate::engine::kernel::{Check, Kernel};
use crate::engine::spinning;
use crate::engine::thread::FREE_CLOCK_READS;
use crate::exports::{ANY, exports};
use crate::machine::Call;
use ksync_sys::{LARGE_INTEGER, ULONG, ULONGLONG};

/// By how many 100 ns units it then moves at each look: a millisecond.
const READ_COST: u64 = 10_000;

/// Stands for the clock in footprints.
const CLOCK: *const u8 = std::ptr::without_provenance(spinning::CLOCK);

/// Looks at the clock. It stands still while anything runs, so that a loop that only waits for a time to come would
/// never end: such a loop makes time pass.
fn look<R>(call: Call, what: impl FnOnce(&Kernel) -> R) -> R {
    call.operate(|kernel| {
        pass_time(kernel)?;
        Ok(what(kernel))
    })
}

fn pass_time(kernel: &mut Kernel) -> Check<()> {
    let Some(tid) = kernel.current_thread() else { return Ok(()) };
    let operations = kernel.trace.pushed();
    let thread = kernel.thread(tid);
    if thread.last_operation == operations {
        thread.idle_clock_reads += 1;
    } else {
        thread.last_operation = operations;
        thread.idle_clock_reads = 0;
    }
    if thread.idle_clock_reads > FREE_CLOCK_READS {
        kernel.clock.advance_by(READ_COST);
        kernel.expire()?;
    }
    Ok(())
}

exports! {
    [ANY] visible(read CLOCK) fn KeQueryInterruptTime(call) -> ULONGLONG {
        look(call, |kernel| kernel.clock.interrupt_time())
    }

    [ANY] visible(read CLOCK) fn KeQueryInterruptTimePrecise(call; QpcTimeStamp: *mut ULONGLONG) -> ULONGLONG {
        let time = look(call, |kernel| kernel.clock.precise_interrupt_time());
        // SAFETY: the caller passes a valid pointer.
        unsafe { QpcTimeStamp.write(time) };
        time
    }

    [ANY] visible(read CLOCK) fn KeQueryUnbiasedInterruptTime(call) -> ULONGLONG {
        look(call, |kernel| kernel.clock.interrupt_time())
    }

    [ANY] visible(read CLOCK) fn KeQueryUnbiasedInterruptTimePrecise(call; QpcTimeStamp: *mut ULONGLONG) -> ULONGLONG {
        // The machine does not sleep, and the counter is the clock.
        let time = look(call, |kernel| kernel.clock.precise_interrupt_time());
        // SAFETY: the caller passes a valid pointer.
        unsafe { QpcTimeStamp.write(time) };
        time
    }

    [ANY] visible(read CLOCK) fn KeQuerySystemTime(call; CurrentTime: *mut LARGE_INTEGER) {
        let time = look(call, |kernel| kernel.clock.system_time());
        // SAFETY: the caller passes a valid pointer.
        unsafe { CurrentTime.write(time) };
    }

    [ANY] visible(read CLOCK) fn KeQuerySystemTimePrecise(call; CurrentTime: *mut LARGE_INTEGER) {
        let time = look(call, |kernel| kernel.clock.precise_system_time());
        // SAFETY: the caller passes a valid pointer.
        unsafe { CurrentTime.write(time) };
    }

    [ANY] visible(read CLOCK) fn KeQueryTickCount(call; CurrentCount: *mut LARGE_INTEGER) {
        let ticks = look(call, |kernel| kernel.clock.tick_count());
        // SAFETY: the caller passes a valid pointer.
        unsafe { CurrentCount.write(ticks as LARGE_INTEGER) };
    }

    [ANY] silent fn KeQueryTimeIncrement(call) -> ULONG {
        call.read(|kernel| kernel.clock.increment())
    }

    [ANY] visible(read CLOCK) fn KeQueryPerformanceCounter(call; PerformanceFrequency: *mut LARGE_INTEGER) -> LARGE_INTEGER {
        if !PerformanceFrequency.is_null() {
            // The counter is the interrupt clock itself: 10 MHz, as on current Windows.
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { PerformanceFrequency.write(10_000_000) };
        }
        look(call, |kernel| kernel.clock.precise_interrupt_time() as LARGE_INTEGER)
    }

    [ANY] visible(access CLOCK) fn KeStallExecutionProcessor(call; MicroSeconds: ULONG) {
        call.operate(|kernel| {
            kernel.clock.advance_by(u64::from(MicroSeconds) * 10);
            kernel.check_dispatch_time(u64::from(MicroSeconds) * 10)?;
            kernel.expire()
        });
    }
}
