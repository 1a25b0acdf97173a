//! Processors, their groups, and affinity.
//!
//! The routines that know no group are for group 0, as in Windows 7 and later.

use crate::engine::kernel::Kernel;
use crate::exports::{ANY, BLOCKING, exports};
use ksync_sys::{
    ALL_PROCESSOR_GROUPS, GROUP_AFFINITY, INVALID_PROCESSOR_INDEX, KAFFINITY, NTSTATUS, PROCESSOR_NUMBER,
    STATUS_INVALID_PARAMETER, STATUS_SUCCESS, ULONG, USHORT,
};

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
}
