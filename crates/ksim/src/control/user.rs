//! What user programs do: processes, system calls, and the services that NT does not export to drivers.

use super::call;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::ob::{Attributes, Creation, HandleUse, Type};
use crate::engine::object::{Kind, ObjId};
use crate::exports::ke::apc::deliver_user_apcs;
use crate::irql::PASSIVE_LEVEL;
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    KMUTANT, KSEMAPHORE, MUTANT_ALL_ACCESS, MUTANT_INCREMENT, NTSTATUS, SEMAPHORE_ALL_ACCESS, SEMAPHORE_MODIFY_STATE,
    STATUS_INVALID_PARAMETER, STATUS_MUTANT_NOT_OWNED, STATUS_SEMAPHORE_LIMIT_EXCEEDED,
};

/// Creates a user process beside the system process, for tests of what drivers do in one. Returns its id.
///
/// # Panics
/// If no machine runs on this thread.
pub fn create_process() -> usize {
    call("create_process").operate(|kernel| {
        let process = kernel.create_process();
        Ok(kernel.ob.processes[process as usize].client_id as usize)
    })
}

/// Runs `code` as if the running thread belonged to the process with that id: its handles are the process' handles.
///
/// # Panics
/// If no machine runs on this thread, or there is no such process.
pub fn in_process<R>(id: usize, code: impl FnOnce() -> R) -> R {
    let call = call("in_process");
    let enter = |process: u32| {
        call.operate(|kernel| {
            let tid = kernel.this_thread();
            Ok(std::mem::replace(&mut kernel.threads[tid as usize].process, process))
        })
    };
    let process = call
        .read(|kernel| kernel.ob.processes.iter().position(|process| process.client_id as usize == id))
        .unwrap_or_else(|| panic!("there is no process with id {id}"));
    let before = enter(process as u32);
    let result = code();
    enter(before);
    result
}

/// Runs `code` as a system call of a user's: the previous mode is the user's, and no region is entered. Where the call returns to user mode,
/// the IRQL and the regions are checked as NT does, and the user APCs run that a wait was broken off for.
///
/// # Examples
/// ```
/// use ksim::{ApcKind, Machine};
/// use ksync_sys::*;
///
/// Machine::new().run(|| {
///     let id = unsafe { PsGetCurrentThreadId() } as usize;
///     let ran = std::rc::Rc::new(std::cell::Cell::new(false));
///     let seen = ran.clone();
///     ksim::queue_apc(id, ApcKind::User, move || seen.set(true));
///     ksim::system_call(|| {
///         let second = -10_000_000;
///         let status = unsafe { KeDelayExecutionThread(UserMode, TRUE, &second) };
///         assert_eq!((status, ran.get()), (STATUS_USER_APC, false));
///     });
///     assert!(ran.get());
/// }).expect_clean();
/// ```
///
/// # Panics
/// If no machine runs on this thread, or `code` is called from a DPC.
pub fn system_call<R>(code: impl FnOnce() -> R) -> R {
    let call = call("system_call");
    let (user_before, regions) = call.operate(|kernel| {
        let tid = kernel.this_thread();
        let thread = kernel.thread(tid);
        let user_before = std::mem::replace(&mut thread.user_mode_before, true);
        let regions = (thread.apc.kernel_disable, thread.apc.special_disable);
        (thread.apc.kernel_disable, thread.apc.special_disable) = (0, 0);
        kernel.attention = true;
        Ok((user_before, regions))
    });
    let result = code();
    call.operate(check_return);
    deliver_user_apcs(call);
    call.operate(|kernel| {
        let tid = kernel.this_thread();
        let thread = kernel.thread(tid);
        thread.user_mode_before = user_before;
        (thread.apc.kernel_disable, thread.apc.special_disable) = regions;
        Ok(())
    });
    result
}

/// What NT checks where a system call returns (rule 22 and bug check 0x4A).
fn check_return(kernel: &mut Kernel) -> Check<()> {
    let irql = kernel.irql();
    if irql != PASSIVE_LEVEL {
        return Err(Violation::boxed(
            codes::IRQL_GT_ZERO_AT_SYSTEM_SERVICE,
            [0, u64::from(irql), 0, 0],
            "a system call returned to user mode above PASSIVE_LEVEL",
        ));
    }
    let tid = kernel.this_thread();
    let apc = &kernel.thread(tid).apc;
    let (normal, special) = (apc.kernel_disable, apc.special_disable);
    if (normal, special) != (0, 0) {
        let combined = u64::from(special as u16) << 16 | u64::from(normal as u16);
        return Err(Violation::boxed(
            codes::APC_INDEX_MISMATCH,
            [0, 0, combined, 0],
            "a system call returned to user mode inside a critical or guarded region",
        ));
    }
    Ok(())
}

/// Makes an object in the table of the running thread's process. Returns the handle.
fn create<T>(
    call: Call,
    (object_type, access): (Type, u32),
    init: impl FnOnce(&mut Kernel, *mut T) -> Check<()>,
) -> Result<usize, NTSTATUS> {
    let creation = Creation { object_type, bytes: size_of::<T>(), access, attributes: Attributes::default() };
    call.operate(|kernel| kernel.create_object(creation, |kernel, memory| init(kernel, memory as *mut T)))
        .map(|(handle, _)| handle)
}

/// Does something to the object of a user's handle.
fn operate<R>(
    call: Call,
    (handle, access, object_type): (usize, u32, Type),
    operation: impl FnOnce(&mut Kernel, ObjId) -> Check<Result<R, NTSTATUS>>,
) -> Result<R, NTSTATUS> {
    call.operate(|kernel| {
        let request = HandleUse { handle, user_mode: true, access, object_type: Some(object_type) };
        let id = match kernel.reference_handle(request)? {
            Ok(id) => id,
            Err(status) => return Ok(Err(status)),
        };
        let result = operation(kernel, id)?;
        kernel.dereference_object(id, 1)?;
        Ok(result)
    })
}

/// Creates a mutant for the process that the running thread is in, as `NtCreateMutant` does, which drivers cannot call. Returns the handle, which the driver under test
/// may be given, and which `ZwClose` closes.
///
/// # Errors
/// A status, if there is no memory.
///
/// # Panics
/// If no machine runs on this thread.
pub fn create_mutant(owned: bool) -> Result<usize, NTSTATUS> {
    create(call("create_mutant"), (Type::Mutant, MUTANT_ALL_ACCESS), |kernel, mutant: *mut KMUTANT| {
        // SAFETY: the memory is fresh, and a KMUTANT's.
        unsafe { kernel.initialize_mutant(mutant, false, owned) }
    })
}

/// Releases a mutant once, as `NtReleaseMutant` does. Returns the previous state.
///
/// # Errors
/// A status, if the running thread does not own it, or the handle is none.
///
/// # Panics
/// If no machine runs on this thread.
pub fn release_mutant(handle: usize) -> Result<i32, NTSTATUS> {
    operate(call("release_mutant"), (handle, 0, Type::Mutant), |kernel, id| {
        let owner = match &kernel.objects[id].kind {
            Kind::Mutant(state) => state.owner,
            _ => None,
        };
        if owner.is_none() || owner != kernel.current_thread() {
            return Ok(Err(STATUS_MUTANT_NOT_OWNED));
        }
        kernel.release_mutant(id, MUTANT_INCREMENT).map(Ok)
    })
}

/// Creates a semaphore for the process that the running thread is in, as `NtCreateSemaphore` does, which drivers cannot call. Returns the handle.
///
/// # Errors
/// A status, if there is no memory or the numbers are none of a semaphore.
///
/// # Panics
/// If no machine runs on this thread.
pub fn create_semaphore(count: i32, limit: i32) -> Result<usize, NTSTATUS> {
    if limit <= 0 || !(0..=limit).contains(&count) {
        return Err(STATUS_INVALID_PARAMETER);
    }
    create(call("create_semaphore"), (Type::Semaphore, SEMAPHORE_ALL_ACCESS), |kernel, semaphore: *mut KSEMAPHORE| {
        // SAFETY: the memory is fresh, and a KSEMAPHORE's.
        unsafe { kernel.initialize_semaphore(semaphore, count, limit) }
    })
}

/// Adds to a semaphore, as `NtReleaseSemaphore` does. Returns the previous count.
///
/// # Errors
/// A status, if that would pass the limit, or the handle is none.
///
/// # Panics
/// If no machine runs on this thread.
pub fn release_semaphore(handle: usize, adjustment: i32) -> Result<i32, NTSTATUS> {
    if adjustment <= 0 {
        return Err(STATUS_INVALID_PARAMETER);
    }
    operate(call("release_semaphore"), (handle, SEMAPHORE_MODIFY_STATE, Type::Semaphore), |kernel, id| {
        let memory = kernel.objects[id].address as *const KSEMAPHORE;
        // SAFETY: a registered semaphore's memory is valid.
        let limit = unsafe { (*memory).Limit };
        if kernel.objects[id].signal_state().checked_add(adjustment).is_none_or(|count| count > limit) {
            return Ok(Err(STATUS_SEMAPHORE_LIMIT_EXCEEDED));
        }
        kernel.release_semaphore(id, 0, adjustment).map(Ok)
    })
}
