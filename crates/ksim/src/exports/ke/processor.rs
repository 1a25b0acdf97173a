//! Processors and affinity.

use crate::exports::{ANY, BLOCKING, exports};
use ksync_sys::{GROUP_AFFINITY, KAFFINITY, NTSTATUS, PROCESSOR_NUMBER, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, ULONG, USHORT};

/// The number that means all processor groups.
const ALL_GROUPS: USHORT = 0xffff;

fn number(cpu: u8) -> PROCESSOR_NUMBER {
    PROCESSOR_NUMBER { Group: 0, Number: cpu, Reserved: 0 }
}

exports! {
    [ANY] silent fn KeGetCurrentProcessorNumberEx(call; ProcNumber: *mut PROCESSOR_NUMBER) -> ULONG {
        let cpu = call.read(|kernel| kernel.cpu);
        if !ProcNumber.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { ProcNumber.write(number(cpu)) };
        }
        ULONG::from(cpu)
    }

    [ANY] silent fn KeQueryActiveProcessorCount(call; ActiveProcessors: *mut KAFFINITY) -> ULONG {
        let (count, mask) = call.read(|kernel| (kernel.config.processors, kernel.all_processors()));
        if !ActiveProcessors.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { ActiveProcessors.write(mask as KAFFINITY) };
        }
        ULONG::from(count)
    }

    [ANY] silent fn KeQueryActiveProcessorCountEx(call; GroupNumber: USHORT) -> ULONG {
        if GroupNumber == 0 || GroupNumber == ALL_GROUPS { call.read(|kernel| ULONG::from(kernel.config.processors)) } else { 0 }
    }

    [ANY] silent fn KeQueryMaximumProcessorCountEx(call; GroupNumber: USHORT) -> ULONG {
        if GroupNumber == 0 || GroupNumber == ALL_GROUPS { call.read(|kernel| ULONG::from(kernel.config.processors)) } else { 0 }
    }

    [ANY] silent fn KeQueryActiveProcessors(call) -> KAFFINITY {
        call.read(|kernel| kernel.all_processors()) as KAFFINITY
    }

    [ANY] silent fn KeGetProcessorNumberFromIndex(call; ProcIndex: ULONG, ProcNumber: *mut PROCESSOR_NUMBER) -> NTSTATUS {
        match u8::try_from(ProcIndex) {
            Ok(cpu) if call.read(|kernel| cpu < kernel.config.processors) => {
                // SAFETY: the caller passes a valid pointer.
                unsafe { ProcNumber.write(number(cpu)) };
                STATUS_SUCCESS
            }
            _ => STATUS_INVALID_PARAMETER,
        }
    }

    [ANY] silent fn KeGetProcessorIndexFromNumber(call; ProcNumber: *const PROCESSOR_NUMBER) -> ULONG {
        // SAFETY: the caller passes a valid pointer.
        let number = unsafe { ProcNumber.read() };
        let exists = number.Group == 0 && call.read(|kernel| number.Number < kernel.config.processors);
        if exists { ULONG::from(number.Number) } else { ULONG::MAX }
    }

    [BLOCKING] visible fn KeSetSystemAffinityThreadEx(call; Affinity: KAFFINITY) -> KAFFINITY {
        call.operate(|kernel| {
            let tid = kernel.this_thread();
            let wanted = Affinity as u64 & kernel.all_processors();
            if wanted == 0 {
                return Ok(0);
            }
            let before = kernel.thread(tid).system_affinity.replace(wanted);
            kernel.set_affinity(tid, wanted);
            Ok(before.unwrap_or(0) as KAFFINITY)
        })
    }

    [BLOCKING] visible fn KeRevertToUserAffinityThreadEx(call; Affinity: KAFFINITY) {
        call.operate(|kernel| {
            let tid = kernel.this_thread();
            let wanted = Affinity as u64 & kernel.all_processors();
            kernel.thread(tid).system_affinity = (wanted != 0).then_some(wanted);
            let all = kernel.all_processors();
            kernel.set_affinity(tid, if wanted == 0 { all } else { wanted });
            Ok(())
        });
    }

    [BLOCKING] visible fn KeSetSystemGroupAffinityThread(
        call; Affinity: *const GROUP_AFFINITY, PreviousAffinity: *mut GROUP_AFFINITY
    ) {
        // SAFETY: the caller passes a valid pointer.
        let wanted = unsafe { Affinity.read() };
        let before = call.operate(|kernel| {
            let tid = kernel.this_thread();
            let mask = if wanted.Group == 0 { wanted.Mask as u64 & kernel.all_processors() } else { 0 };
            if mask == 0 {
                return Ok(0);
            }
            let before = kernel.thread(tid).system_affinity.replace(mask);
            kernel.set_affinity(tid, mask);
            Ok(before.unwrap_or(0))
        });
        if !PreviousAffinity.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { PreviousAffinity.write(GROUP_AFFINITY { Mask: before as KAFFINITY, Group: 0, Reserved: [0; 3] }) };
        }
    }

    [BLOCKING] visible fn KeRevertToUserGroupAffinityThread(call; PreviousAffinity: *const GROUP_AFFINITY) {
        // SAFETY: the caller passes a valid pointer.
        let wanted = unsafe { PreviousAffinity.read() };
        call.operate(|kernel| {
            let tid = kernel.this_thread();
            let mask = wanted.Mask as u64 & kernel.all_processors();
            kernel.thread(tid).system_affinity = (mask != 0).then_some(mask);
            let all = kernel.all_processors();
            kernel.set_affinity(tid, if mask == 0 { all } else { mask });
            Ok(())
        });
    }
}
