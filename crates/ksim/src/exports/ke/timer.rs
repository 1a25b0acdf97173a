//! KTIMER (rules 50 to 55).

use crate::exports::{DISPATCHER, exports};
use ksync_sys::{BOOLEAN, KDPC, KTIMER, LARGE_INTEGER, LONG, NotificationTimer, TIMER_TYPE, ULONG};

exports! {
    [DISPATCHER] silent fn KeInitializeTimer(call; Timer: *mut KTIMER) {
        // SAFETY: the caller passes memory for a KTIMER.
        call.operate(|kernel| unsafe { kernel.initialize_timer(Timer, true) });
    }

    [DISPATCHER] silent fn KeInitializeTimerEx(call; Timer: *mut KTIMER, Type: TIMER_TYPE) {
        // SAFETY: the caller passes memory for a KTIMER.
        call.operate(|kernel| unsafe { kernel.initialize_timer(Timer, Type == NotificationTimer) });
    }

    [DISPATCHER] visible(set_timer Timer, DueTime) fn KeSetTimer(call; Timer: *mut KTIMER, DueTime: LARGE_INTEGER, Dpc: *mut KDPC) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let id = kernel.timer_at(Timer)?;
            kernel.set_timer(id, DueTime, 0, 0, Dpc)
        }))
    }

    [DISPATCHER] visible(set_timer Timer, DueTime) fn KeSetTimerEx(
        call; Timer: *mut KTIMER, DueTime: LARGE_INTEGER, Period: LONG, Dpc: *mut KDPC
    ) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let id = kernel.timer_at(Timer)?;
            kernel.set_timer(id, DueTime, u32::try_from(Period).unwrap_or(0), 0, Dpc)
        }))
    }

    [DISPATCHER] visible(set_timer_within Timer, DueTime, TolerableDelay) fn KeSetCoalescableTimer(
        call; Timer: *mut KTIMER, DueTime: LARGE_INTEGER, Period: ULONG, TolerableDelay: ULONG, Dpc: *mut KDPC
    ) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let id = kernel.timer_at(Timer)?;
            kernel.set_timer(id, DueTime, Period, TolerableDelay, Dpc)
        }))
    }

    [DISPATCHER] visible(access Timer) fn KeCancelTimer(call; Timer: *mut KTIMER) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let id = kernel.timer_at(Timer)?;
            Ok(kernel.cancel_timer(id))
        }))
    }

    [DISPATCHER] visible(read Timer) fn KeReadStateTimer(call; Timer: *const KTIMER) -> BOOLEAN {
        call.operate(|kernel| {
            let id = kernel.timer_at(Timer)?;
            Ok(BOOLEAN::from(kernel.read_state(id) != 0))
        })
    }
}
