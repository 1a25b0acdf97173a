//! Processors, their groups, and affinity.
//!
//! The routines that know no group are for group 0, as in Windows 7 and later.

use crate::engine::kernel::Kernel;
use crate::exports::{ANY, BLOCKING, PASSIVE, exports};
use ksync_sys::{
    ALL_PROCESSOR_GROUPS, GROUP_AFFINITY, INVALID_PROCESSOR_INDEX, KAFFINITY, KE_PROCESSOR_CHANGE_ADD_EXISTING,
    KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT, KeProcessorAddCompleteNotify, KeProcessorAddFailureNotify, KeProcessorAddStartNotify,
    NTSTATUS, PPROCESSOR_CALLBACK_FUNCTION, PROCESSOR_CALLBACK_FUNCTION, PROCESSOR_NUMBER, PVOID, STATUS_INVALID_PARAMETER,
    STATUS_SUCCESS, ULONG, USHORT,
};
use std::ptr::null_mut;

/// How many processors a group has, or all have.
fn count(kernel: &Kernel, group: USHORT) -> ULONG {
    let groups = &kernel.config.groups;
    ULONG::from(if group == ALL_PROCESSOR_GROUPS { groups.processors() } else { groups.size(group) })
}

/// Confines the running thread to some processors. Returns the confinement before; if no processor was named nothing is changed, and the result is 0.
fn confine(kernel: &mut Kernel, processors: u64) -> u64 {
    if processors == 0 {
        return 0;
    }
    let tid = kernel.this_thread();
    let before = kernel.thread(tid).system_affinity.replace(processors);
    kernel.set_affinity(tid, processors);
    before.unwrap_or(0)
}

/// Goes back to a confinement before; 0 is none.
fn revert(kernel: &mut Kernel, processors: u64) {
    let tid = kernel.this_thread();
    let thread = kernel.thread(tid);
    thread.system_affinity = (processors != 0).then_some(processors);
    let affinity = if processors == 0 { thread.user_affinity } else { processors };
    kernel.set_affinity(tid, affinity);
}

/// Tells a routine of a processor. Returns what it says to that.
fn tell(routine: PROCESSOR_CALLBACK_FUNCTION, context: PVOID, change: KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT) -> NTSTATUS {
    let (mut change, mut status) = (change, STATUS_SUCCESS);
    // SAFETY: the driver vouches for its routine; what it is passed lives until it returns.
    unsafe { crate::image::call(routine, (context, &raw mut change, &raw mut status)) };
    status
}

exports! {
    [ANY] silent fn KeGetCurrentProcessorNumberEx(call; ProcNumber: *mut PROCESSOR_NUMBER) -> ULONG {
        let (cpu, number) = call.read(|kernel| (kernel.cpu, kernel.config.groups.number(kernel.cpu)));
        if !ProcNumber.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { ProcNumber.write(number) };
        }
        ULONG::from(cpu)
    }

    [ANY] silent fn KeQueryActiveProcessorCount(call; ActiveProcessors: *mut KAFFINITY) -> ULONG {
        let (count, mask) = call.read(|kernel| (count(kernel, 0), kernel.config.groups.active(0)));
        if !ActiveProcessors.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { ActiveProcessors.write(mask) };
        }
        count
    }

    [ANY] silent fn KeQueryActiveProcessorCountEx(call; GroupNumber: USHORT) -> ULONG {
        call.read(|kernel| count(kernel, GroupNumber))
    }

    [ANY] silent fn KeQueryMaximumProcessorCountEx(call; GroupNumber: USHORT) -> ULONG {
        call.read(|kernel| count(kernel, GroupNumber))
    }

    [ANY] silent fn KeQueryActiveGroupCount(call) -> USHORT {
        call.read(|kernel| kernel.config.groups.count())
    }

    [ANY] silent fn KeQueryMaximumGroupCount(call) -> USHORT {
        call.read(|kernel| kernel.config.groups.count())
    }

    [ANY] silent fn KeQueryGroupAffinity(call; GroupNumber: USHORT) -> KAFFINITY {
        call.read(|kernel| kernel.config.groups.active(GroupNumber))
    }

    [ANY] silent fn KeQueryActiveProcessors(call) -> KAFFINITY {
        call.read(|kernel| kernel.config.groups.active(0))
    }

    [ANY] silent fn KeGetProcessorNumberFromIndex(call; ProcIndex: ULONG, ProcNumber: *mut PROCESSOR_NUMBER) -> NTSTATUS {
        match u8::try_from(ProcIndex) {
            Ok(cpu) if call.read(|kernel| cpu < kernel.config.processors) => {
                let number = call.read(|kernel| kernel.config.groups.number(cpu));
                // SAFETY: the caller passes a valid pointer.
                unsafe { ProcNumber.write(number) };
                STATUS_SUCCESS
            }
            _ => STATUS_INVALID_PARAMETER,
        }
    }

    [ANY] silent fn KeGetProcessorIndexFromNumber(call; ProcNumber: *const PROCESSOR_NUMBER) -> ULONG {
        // SAFETY: the caller passes a valid pointer.
        let number = unsafe { ProcNumber.read() };
        call.read(|kernel| kernel.config.groups.cpu(number)).map_or(INVALID_PROCESSOR_INDEX, ULONG::from)
    }

    [BLOCKING] visible fn KeSetSystemAffinityThreadEx(call; Affinity: KAFFINITY) -> KAFFINITY {
        call.operate(|kernel| {
            let processors = kernel.config.groups.flat(0, Affinity);
            let before = confine(kernel, processors);
            // What cannot be said in processors of group 0 is nothing.
            Ok((before & kernel.config.groups.all_of(0)) as KAFFINITY)
        })
    }

    [BLOCKING] visible fn KeRevertToUserAffinityThreadEx(call; Affinity: KAFFINITY) {
        call.operate(|kernel| {
            let processors = kernel.config.groups.flat(0, Affinity);
            revert(kernel, processors);
            Ok(())
        });
    }

    [BLOCKING] visible fn KeSetSystemGroupAffinityThread(
        call; Affinity: *const GROUP_AFFINITY, PreviousAffinity: *mut GROUP_AFFINITY
    ) {
        // SAFETY: the caller passes a valid pointer.
        let wanted = unsafe { Affinity.read() };
        let before = call.operate(|kernel| {
            // A structure that is not valid, which one whose reserved words are not zero is too, changes nothing.
            let valid = wanted.Reserved == [0; 3];
            let processors = if valid { kernel.config.groups.flat(wanted.Group, wanted.Mask) } else { 0 };
            let before = confine(kernel, processors);
            Ok(kernel.config.groups.affinity(before))
        });
        if !PreviousAffinity.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { PreviousAffinity.write(before) };
        }
    }

    [BLOCKING] visible fn KeRevertToUserGroupAffinityThread(call; PreviousAffinity: *const GROUP_AFFINITY) {
        // SAFETY: the caller passes a valid pointer.
        let wanted = unsafe { PreviousAffinity.read() };
        call.operate(|kernel| {
            let processors = kernel.config.groups.flat(wanted.Group, wanted.Mask);
            revert(kernel, processors);
            Ok(())
        });
    }

    [PASSIVE] visible fn KeRegisterProcessorChangeCallback(
        call; CallbackFunction: PPROCESSOR_CALLBACK_FUNCTION, CallbackContext: PVOID, Flags: ULONG
    ) -> PVOID {
        let Some(routine) = CallbackFunction else { return null_mut() };
        let existing = if Flags & KE_PROCESSOR_CHANGE_ADD_EXISTING == 0 { 0 } else { call.read(|kernel| kernel.config.processors) };
        let told = |cpu: u8, state, status| {
            let number = call.read(|kernel| kernel.config.groups.number(cpu));
            let change = KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT { State: state, NtNumber: cpu.into(), Status: status, ProcNumber: number };
            tell(routine, CallbackContext, change)
        };
        for cpu in 0..existing {
            let status = told(cpu, KeProcessorAddStartNotify, STATUS_SUCCESS);
            if status < 0 {
                told(cpu, KeProcessorAddFailureNotify, status);
                return null_mut();
            }
            // What the routine says is of no account any more.
            told(cpu, KeProcessorAddCompleteNotify, STATUS_SUCCESS);
        }
        call.operate(|kernel| Ok(kernel.register_processor_callback())) as PVOID
    }

    [PASSIVE] visible fn KeDeregisterProcessorChangeCallback(call; CallbackHandle: PVOID) {
        call.operate(|kernel| kernel.deregister_processor_callback(CallbackHandle));
    }
}
