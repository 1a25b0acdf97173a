//! KAPC: asynchronous procedure calls, and alerts (rules 17, 18, 25).

use crate::engine::layout::{self, ApcParts};
use crate::exports::{ANY, DISPATCHER, PASSIVE, exports};
use crate::image::call as call_driver;
use crate::irql::{APC_LEVEL, PASSIVE_LEVEL};
use crate::machine::{Call, MachineCell};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    BOOLEAN, KAPC, KAPC_ENVIRONMENT, KPRIORITY, KPROCESSOR_MODE, KTHREAD, PKKERNEL_ROUTINE, PKNORMAL_ROUTINE, PKRUNDOWN_ROUTINE,
    PVOID, UserMode,
};

/// Runs a kernel APC that was taken off the running thread's queue.
///
/// The APC may come between the end of a wait and the look at what it came to, and may wait itself: the outer wait's result is kept.
pub(crate) fn deliver(cell: &MachineCell, apc: *mut KAPC) {
    let call = cell.call();
    let (status, entry) = call.read(|kernel| {
        let tid = kernel.this_thread();
        let wait = &kernel.thread(tid).wait;
        (wait.status, wait.entry)
    });
    run(call, apc);
    call.read(|kernel| {
        let tid = kernel.this_thread();
        let wait = &mut kernel.thread(tid).wait;
        (wait.status, wait.entry) = (status, entry);
    });
}

/// Where a system call returns to user mode: runs the user APCs that a wait was broken off for.
pub(crate) fn deliver_user_apcs(call: Call) {
    while let Some(apc) = call.operate(|kernel| Ok(kernel.take_user_apc())) {
        run(call, apc);
    }
}

/// The end of the running thread, before anything else of it: kernel APCs that the region held back that it started in are delivered, user APCs are
/// run down, and no others come.
pub(crate) fn run_down(call: Call) {
    call.operate(|kernel| {
        kernel.leave_start_region();
        Ok(())
    });
    while let Some(apc) = call.operate(|kernel| Ok(kernel.take_apc_of_ending_thread())) {
        // SAFETY: an APC is valid until it has been run or run down.
        match unsafe { (*apc).RundownRoutine } {
            // SAFETY: the driver vouched for the routine when it initialised the APC.
            Some(rundown) => unsafe { call_driver(rundown, (apc,)) },
            // Without a routine NT takes the APC for a block of pool.
            None => call.operate(|kernel| kernel.free_pool(apc as usize, 0)),
        }
    }
}

fn run(call: Call, apc: *mut KAPC) {
    // SAFETY: a queued APC is valid until its kernel routine has been called.
    let value = unsafe { apc.read() };
    let (mut normal, mut context) = (value.NormalRoutine, value.NormalContext);
    let (mut argument1, mut argument2) = (value.SystemArgument1, value.SystemArgument2);
    // The routine of a user APC runs in user mode, where normal kernel APCs interrupt it.
    let user = value.ApcMode == UserMode;
    call.read(|kernel| kernel.change_level(APC_LEVEL));
    if let Some(kernel_routine) = value.KernelRoutine {
        // SAFETY: the driver vouched for the routine when it initialised the APC.
        unsafe {
            let arguments = (apc, &raw mut normal, &raw mut context, &raw mut argument1, &raw mut argument2);
            call_driver(kernel_routine, arguments)
        };
    }
    call.operate(|kernel| {
        let irql = kernel.irql();
        if irql != APC_LEVEL {
            let routine = value.KernelRoutine.map_or(0, |routine| routine as usize as u64);
            return Err(Violation::boxed(
                codes::IRQL_UNEXPECTED_VALUE,
                [u64::from(irql) << 16 | u64::from(APC_LEVEL) << 8, routine, apc as u64, 0],
                "an APC's kernel routine returned at another IRQL than it was called at",
            ));
        }
        // The level falls without a look for further APCs yet: those come after the normal routine.
        kernel.change_level(PASSIVE_LEVEL);
        let tid = kernel.this_thread();
        kernel.thread(tid).apc.in_progress |= normal.is_some() && !user;
        Ok(())
    });
    let Some(routine) = normal else { return };
    // SAFETY: as for the kernel routine.
    unsafe { call_driver(routine, (context, argument1, argument2)) };
    call.operate(|kernel| {
        let tid = kernel.this_thread();
        if !user {
            kernel.thread(tid).apc.in_progress = false;
        }
        Ok(())
    });
}

exports! {
    [ANY] silent fn KeInitializeApc(
        call; Apc: *mut KAPC, Thread: *mut KTHREAD, Environment: KAPC_ENVIRONMENT, KernelRoutine: PKKERNEL_ROUTINE,
        RundownRoutine: PKRUNDOWN_ROUTINE, NormalRoutine: PKNORMAL_ROUTINE, ProcessorMode: KPROCESSOR_MODE, NormalContext: PVOID
    ) {
        call.read(|_| {
            let value = layout::apc(ApcParts {
                thread: Thread,
                environment: Environment,
                kernel: KernelRoutine,
                rundown: RundownRoutine,
                normal: NormalRoutine,
                mode: ProcessorMode,
                context: NormalContext,
            });
            // SAFETY: the caller passes memory for a KAPC.
            unsafe { Apc.write(value) };
        });
    }

    [DISPATCHER] visible fn KeInsertQueueApc(
        call; Apc: *mut KAPC, SystemArgument1: PVOID, SystemArgument2: PVOID, Increment: KPRIORITY
    ) -> BOOLEAN {
        call.check_pointer(Apc);
        // SAFETY: the caller passes an initialised APC, which is not queued: a queued one keeps its arguments.
        if unsafe { (*Apc).Inserted } == 0 {
            // SAFETY: as above.
            unsafe { (*Apc).SystemArgument1 = SystemArgument1 };
            // SAFETY: as above.
            unsafe { (*Apc).SystemArgument2 = SystemArgument2 };
        }
        BOOLEAN::from(call.operate(|kernel| kernel.insert_apc(Apc, Increment)))
    }

    [DISPATCHER] visible fn KeRemoveQueueApc(call; Apc: *mut KAPC) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| kernel.remove_apc(Apc)))
    }

    [DISPATCHER] visible fn KeAlertThread(call; Thread: *mut KTHREAD, AlertMode: KPROCESSOR_MODE) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            kernel.alert_thread(tid, AlertMode == UserMode)
        }))
    }

    [PASSIVE] visible fn KeTestAlertThread(call; AlertMode: KPROCESSOR_MODE) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| Ok(kernel.test_alert(AlertMode == UserMode))))
    }
}
