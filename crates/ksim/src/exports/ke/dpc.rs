//! KDPC (rules 41 to 46).

use crate::exports::{ANY, IrqlRange, PASSIVE, at_most, exports};
use crate::irql::DISPATCH_LEVEL;
use ksync_sys::{
    BOOLEAN, CCHAR, KDPC, KDPC_IMPORTANCE, NTSTATUS, PKDEFERRED_ROUTINE, PROCESSOR_NUMBER, PVOID, STATUS_INVALID_PARAMETER,
    STATUS_SUCCESS,
};

/// Where a DPC routine may be waited for.
const WAITING: IrqlRange = at_most(DISPATCH_LEVEL);

exports! {
    [ANY] silent fn KeInitializeDpc(
        call; Dpc: *mut KDPC, DeferredRoutine: PKDEFERRED_ROUTINE, DeferredContext: PVOID
    ) {
        // SAFETY: the caller passes memory for a KDPC.
        call.operate(|kernel| unsafe { kernel.initialize_dpc(Dpc, DeferredRoutine, DeferredContext, false) });
    }

    [ANY] silent fn KeInitializeThreadedDpc(
        call; Dpc: *mut KDPC, DeferredRoutine: PKDEFERRED_ROUTINE, DeferredContext: PVOID
    ) {
        // SAFETY: the caller passes memory for a KDPC.
        call.operate(|kernel| unsafe { kernel.initialize_dpc(Dpc, DeferredRoutine, DeferredContext, true) });
    }

    [ANY] visible(queue_dpc Dpc) fn KeInsertQueueDpc(
        call; Dpc: *mut KDPC, SystemArgument1: PVOID, SystemArgument2: PVOID
    ) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let id = kernel.dpc_at(Dpc)?;
            kernel.insert_dpc(id, SystemArgument1, SystemArgument2)
        }))
    }

    [ANY] visible(remove_dpc Dpc) fn KeRemoveQueueDpc(call; Dpc: *mut KDPC) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let id = kernel.dpc_at(Dpc)?;
            Ok(kernel.remove_dpc(id))
        }))
    }

    [ANY] visible fn KeRemoveQueueDpcEx(call; Dpc: *mut KDPC, WaitIfActive: BOOLEAN) -> BOOLEAN {
        let waits = WaitIfActive != 0;
        let (id, removed) = call.operate(|kernel| {
            let level = kernel.irql();
            if waits && !WAITING.contains(level) {
                return Err(WAITING.violation("KeRemoveQueueDpcEx, which waits,", level));
            }
            let id = kernel.dpc_at(Dpc)?;
            Ok((id, kernel.remove_dpc(id)))
        });
        while waits && !call.is_dying() && !call.operate(|kernel| kernel.dpc_has_returned(id)) {}
        BOOLEAN::from(removed)
    }

    [PASSIVE] visible fn KeFlushQueuedDpcs(call) {
        // A kernel APC may end a turn of the wait early.
        let last = call.read(|kernel| kernel.dpcs.inserted);
        while !call.is_dying() && !call.operate(|kernel| kernel.flush_dpcs(last)) {}
    }

    [ANY] visible(access Dpc) fn KeSetImportanceDpc(call; Dpc: *mut KDPC, Importance: KDPC_IMPORTANCE) {
        call.operate(|kernel| {
            let id = kernel.dpc_at(Dpc)?;
            kernel.set_dpc_importance(id, Importance);
            Ok(())
        });
    }

    [ANY] visible(access Dpc) fn KeSetTargetProcessorDpc(call; Dpc: *mut KDPC, Number: CCHAR) {
        call.operate(|kernel| {
            let id = kernel.dpc_at(Dpc)?;
            // The number is one of group 0, whatever the caller's group.
            let number = PROCESSOR_NUMBER { Group: 0, Number: Number as u8, Reserved: 0 };
            let target = kernel.config.groups.cpu(number).ok_or(number.Number);
            kernel.set_dpc_target(id, target);
            Ok(())
        });
    }

    [ANY] visible(access Dpc) fn KeSetTargetProcessorDpcEx(call; Dpc: *mut KDPC, ProcNumber: *mut PROCESSOR_NUMBER) -> NTSTATUS {
        // SAFETY: the caller passes a valid pointer.
        let number = unsafe { ProcNumber.read() };
        call.operate(|kernel| {
            let id = kernel.dpc_at(Dpc)?;
            let Some(cpu) = kernel.config.groups.cpu(number) else { return Ok(STATUS_INVALID_PARAMETER) };
            kernel.set_dpc_target(id, Ok(cpu));
            Ok(STATUS_SUCCESS)
        })
    }
}
