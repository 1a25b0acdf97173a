//! KEVENT.

use crate::exports::ke::wait::{after_release, check_wait_next};
use crate::exports::{ANY, DISPATCHER, exports};
use crate::irql::APC_LEVEL;
use ksync_sys::{BOOLEAN, EVENT_TYPE, KEVENT, KPRIORITY, LONG, NotificationEvent};

exports! {
    [ANY] silent fn KeInitializeEvent(call; Event: *mut KEVENT, Type: EVENT_TYPE, State: BOOLEAN) {
        call.operate(|kernel| {
            kernel.retire_fast_mutex_around(Event as usize)?;
            // SAFETY: the caller passes memory for a KEVENT.
            unsafe { kernel.initialize_event(Event, Type == NotificationEvent, State != 0) }.map(drop)
        });
    }

    [DISPATCHER.rule(0x2_0016)] visible(access Event) fn KeSetEvent(call; Event: *mut KEVENT, Increment: KPRIORITY, Wait: BOOLEAN) -> LONG {
        check_wait_next(call, Wait, APC_LEVEL);
        call.operate(|kernel| {
            let id = kernel.event_at(Event)?;
            let previous = kernel.set_event(id, Increment)?;
            after_release(kernel, Wait);
            Ok(previous)
        })
    }

    [DISPATCHER] visible(among_waiters Event) fn KePulseEvent(call; Event: *mut KEVENT, Increment: KPRIORITY, Wait: BOOLEAN) -> LONG {
        check_wait_next(call, Wait, APC_LEVEL);
        call.operate(|kernel| {
            let id = kernel.event_at(Event)?;
            let previous = kernel.pulse_event(id, Increment)?;
            after_release(kernel, Wait);
            Ok(previous)
        })
    }

    [DISPATCHER] visible(access Event) fn KeResetEvent(call; Event: *mut KEVENT) -> LONG {
        call.operate(|kernel| {
            let id = kernel.event_at(Event)?;
            Ok(kernel.reset_event(id))
        })
    }

    [DISPATCHER] visible(access Event) fn KeClearEvent(call; Event: *mut KEVENT) {
        call.operate(|kernel| {
            let id = kernel.event_at(Event)?;
            kernel.reset_event(id);
            Ok(())
        });
    }

    [DISPATCHER] visible(read Event) fn KeReadStateEvent(call; Event: *const KEVENT) -> LONG {
        call.operate(|kernel| {
            let id = kernel.event_at(Event)?;
            Ok(kernel.read_state(id))
        })
    }
}
