//! Timer objects.

use super::{Mode, Use, ZW_PASSIVE, create, give, open};
use crate::engine::ob::Type;
use crate::exports::exports;
use ksync_sys::{
    ACCESS_MASK, BOOLEAN, HANDLE, KTIMER, LARGE_INTEGER, LONG, NTSTATUS, NotificationTimer, OBJECT_ATTRIBUTES,
    PTIMER_APC_ROUTINE, PVOID, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_INFO_CLASS, STATUS_INVALID_PARAMETER,
    STATUS_INVALID_PARAMETER_4, STATUS_INVALID_PARAMETER_6, STATUS_SUCCESS, STATUS_TIMER_RESUME_IGNORED, SynchronizationTimer,
    TIMER_MODIFY_STATE, TIMER_SET_COALESCABLE_TIMER_INFO, TIMER_SET_INFORMATION_CLASS, TIMER_TYPE, TimerSetCoalescableTimer,
    ULONG,
};

exports! {
    [ZW_PASSIVE] visible fn ZwCreateTimer(
        call; TimerHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        TimerType: TIMER_TYPE
    ) -> NTSTATUS {
        if TimerType != NotificationTimer && TimerType != SynchronizationTimer {
            return STATUS_INVALID_PARAMETER_4;
        }
        create(call, Type::Timer, (TimerHandle, DesiredAccess, ObjectAttributes), |kernel, timer: *mut KTIMER| {
            // SAFETY: the memory is fresh, and a KTIMER's.
            unsafe { kernel.initialize_timer(timer, TimerType == NotificationTimer) }
        })
    }

    [ZW_PASSIVE] visible fn ZwOpenTimer(
        call; TimerHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES
    ) -> NTSTATUS {
        open(call, Type::Timer, (TimerHandle, DesiredAccess, ObjectAttributes))
    }

    [ZW_PASSIVE] visible fn ZwSetTimer(
        call; TimerHandle: HANDLE, DueTime: *const LARGE_INTEGER, TimerApcRoutine: PTIMER_APC_ROUTINE, TimerContext: PVOID,
        ResumeTimer: BOOLEAN, Period: LONG, PreviousState: *mut BOOLEAN
    ) -> NTSTATUS {
        let Ok(period) = u32::try_from(Period) else { return STATUS_INVALID_PARAMETER_6 };
        // SAFETY: the caller passes a valid pointer.
        let due = unsafe { DueTime.read() };
        let timer = Use::new(Mode::Kernel, TimerHandle, TIMER_MODIFY_STATE, Type::Timer);
        let set = timer.operate(call, |kernel, id| {
            let signaled = kernel.objects[id].signal_state() != 0;
            kernel.set_timer_of_handle(id, due, period, 0, TimerApcRoutine.map(|routine| (routine, TimerContext)))?;
            Ok(signaled)
        });
        match set {
            Ok(signaled) => {
                give(PreviousState, BOOLEAN::from(signaled));
                // The machine does not sleep, so that there is nothing to wake it from.
                if ResumeTimer != 0 { STATUS_TIMER_RESUME_IGNORED } else { STATUS_SUCCESS }
            }
            Err(status) => status,
        }
    }

    [ZW_PASSIVE] visible fn ZwSetTimerEx(
        call; TimerHandle: HANDLE, TimerSetInformationClass: TIMER_SET_INFORMATION_CLASS, TimerSetInformation: PVOID,
        TimerSetInformationLength: ULONG
    ) -> NTSTATUS {
        if TimerSetInformationClass != TimerSetCoalescableTimer {
            return STATUS_INVALID_INFO_CLASS;
        }
        if TimerSetInformationLength as usize != size_of::<TIMER_SET_COALESCABLE_TIMER_INFO>() {
            return STATUS_INFO_LENGTH_MISMATCH;
        }
        let information = TimerSetInformation.cast::<TIMER_SET_COALESCABLE_TIMER_INFO>();
        call.check_pointer(information);
        // SAFETY: the caller passes a structure of that length.
        let information = unsafe { information.read() };
        // Both are milliseconds that a LONG holds.
        if i32::try_from(information.Period).is_err() || i32::try_from(information.TolerableDelay).is_err() {
            return STATUS_INVALID_PARAMETER;
        }
        let routine = information.TimerApcRoutine.map(|routine| (routine, information.TimerContext));
        let timer = Use::new(Mode::Kernel, TimerHandle, TIMER_MODIFY_STATE, Type::Timer);
        let set = timer.operate(call, |kernel, id| {
            let signaled = kernel.objects[id].signal_state() != 0;
            kernel.set_timer_of_handle(id, information.DueTime, information.Period, information.TolerableDelay, routine)?;
            Ok(signaled)
        });
        match set {
            Ok(signaled) => {
                give(information.PreviousState, BOOLEAN::from(signaled));
                // As in ZwSetTimer.
                if information.WakeContext.is_null() { STATUS_SUCCESS } else { STATUS_TIMER_RESUME_IGNORED }
            }
            Err(status) => status,
        }
    }

    [ZW_PASSIVE] visible fn ZwCancelTimer(call; TimerHandle: HANDLE, CurrentState: *mut BOOLEAN) -> NTSTATUS {
        let cancelled = Use::new(Mode::Kernel, TimerHandle, TIMER_MODIFY_STATE, Type::Timer).operate(call, |kernel, id| {
            kernel.cancel_timer_of_handle(id)?;
            Ok(kernel.objects[id].signal_state() != 0)
        });
        match cancelled {
            Ok(signaled) => {
                give(CurrentState, BOOLEAN::from(signaled));
                STATUS_SUCCESS
            }
            Err(status) => status,
        }
    }
}
