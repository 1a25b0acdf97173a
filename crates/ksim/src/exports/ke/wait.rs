//! Waits.

use crate::engine::kernel::{Check, Executing, Kernel};
use crate::engine::wait::{Begun, Timeout, WaitRequest};
use crate::exports::{ANY, BLOCKING, exports};
use crate::irql::{DISPATCH_LEVEL, irql_name};
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{
    BOOLEAN, KPROCESSOR_MODE, KWAIT_BLOCK, KWAIT_REASON, LARGE_INTEGER, MAXIMUM_WAIT_OBJECTS, NTSTATUS, PVOID, STATUS_KERNEL_APC,
    STATUS_SUCCESS, STATUS_TIMEOUT, THREAD_WAIT_OBJECTS, ULONG, UserMode, WAIT_TYPE, WaitAll,
};
use smallvec::SmallVec;

/// Reads a timeout that a driver passed.
pub(crate) fn read_timeout(call: Call, timeout: *const LARGE_INTEGER) -> Timeout {
    if timeout.is_null() {
        return Timeout::Never;
    }
    // SAFETY: the caller of the wait passes null or a valid pointer.
    let value = unsafe { timeout.read() };
    if value == 0 {
        return Timeout::Poll;
    }
    Timeout::Until(call.read(|kernel| kernel.clock.due(value)))
}

/// A time that a driver passed, as it is.
pub(crate) fn time(pointer: *const LARGE_INTEGER) -> Option<LARGE_INTEGER> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller of a wait passes null or a valid pointer.
    Some(unsafe { pointer.read() })
}

/// True for a wait that an alert or an APC ends.
fn is_ended_by_others(mode: KPROCESSOR_MODE, alertable: BOOLEAN) -> bool {
    mode == UserMode || alertable != 0
}

/// What a wait for several objects names, as far as footprints go: more are as good as none.
fn addresses(count: ULONG, objects: *const PVOID) -> SmallVec<[usize; 2]> {
    if count > 2 || objects.is_null() {
        return SmallVec::new();
    }
    // SAFETY: the caller of the wait passes an array of so many pointers.
    (0..count as usize).map(|index| unsafe { *objects.wrapping_add(index) }.addr()).collect()
}

/// Checks that a wait is allowed here (rule 16). One that follows a release with Wait = TRUE returns to the level before that (rule 3).
#[inline]
fn check_wait(kernel: &mut Kernel, object: u64, timeout: Timeout) -> Check<()> {
    if let Executing::Thread(tid) = kernel.executing {
        let thread = &kernel.threads[tid as usize];
        if kernel.irql() < DISPATCH_LEVEL && !thread.runs_dpcs && thread.wait.next_irql.is_none() {
            return Ok(());
        }
    }
    restore_level(kernel)?;
    check_wait_level(kernel, object, timeout)
}

#[inline(never)]
fn check_wait_level(kernel: &mut Kernel, object: u64, timeout: Timeout) -> Check<()> {
    let irql = kernel.irql();
    if irql < DISPATCH_LEVEL {
        let threaded = kernel.current_thread().filter(|&tid| kernel.threads[tid as usize].runs_dpcs);
        return match threaded {
            Some(tid) if timeout != Timeout::Poll => Err(Violation::boxed(
                codes::ATTEMPTED_SWITCH_FROM_DPC,
                [kernel.threads[tid as usize].address() as u64, object, 0, 0],
                "a threaded DPC routine waited: it may run at DISPATCH_LEVEL on another machine",
            )),
            _ => Ok(()),
        };
    }
    if timeout == Timeout::Poll && irql == DISPATCH_LEVEL {
        return Ok(());
    }
    if kernel.in_dpc() {
        let (thread, dpc) = (kernel.current_thread().map_or(0, |tid| kernel.threads[tid as usize].address() as u64), object);
        return Err(Violation::boxed(
            codes::ATTEMPTED_SWITCH_FROM_DPC,
            [thread, dpc, 0, 0],
            "a DPC routine waited: the thread that it interrupted would be switched away under it",
        ));
    }
    let (sub_code, limit) = match (irql, timeout) {
        (DISPATCH_LEVEL, Timeout::Never) => (codes::verifier::WAIT_AT_DISPATCH_FOREVER, 0),
        (DISPATCH_LEVEL, _) => (codes::verifier::WAIT_AT_DISPATCH_TIMED, 1),
        _ => (codes::verifier::WAIT_ABOVE_DISPATCH, 1),
    };
    Err(Violation::boxed_owned(
        codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
        [sub_code, u64::from(irql), object, limit],
        format!("a wait at {}: only a wait with a zero timeout may be at DISPATCH_LEVEL", irql_name(irql)),
    ))
}

/// Checks a Wait = TRUE of a release (rule 3).
#[inline(always)]
pub(crate) fn check_wait_next(call: Call, wait: BOOLEAN, highest: u8) {
    if wait != 0 && !call.is_dying() {
        check_waiting_next(call, highest);
    }
}

#[inline(never)]
fn check_waiting_next(call: Call, highest: u8) {
    // The rule is that of the routine's other levels: IrqlKeSetEvent has one routine only.
    let (routine, verifier) = call.export.map_or(("a release", 0), |export| (export.name, export.irql.verifier));
    let range = crate::exports::at_most(highest).rule(verifier);
    let (irql, on) = call.read(|kernel| (kernel.irql(), kernel.config.rules.has_level(verifier)));
    if irql > highest && on {
        call.fail(range.violation(&format!("{routine} with Wait = TRUE"), irql));
    }
}

/// After a release with Wait = TRUE: the level stays raised until the wait that must come next (rule 3).
pub(crate) fn after_release(kernel: &mut Kernel, wait: BOOLEAN) {
    if wait == 0 {
        return;
    }
    let tid = kernel.this_thread();
    let irql = kernel.irql();
    kernel.thread(tid).wait.next_irql = Some(irql);
    kernel.change_level(DISPATCH_LEVEL);
}

/// A wait that follows a release with Wait = TRUE returns to the level before that release.
#[inline(never)]
fn restore_level(kernel: &mut Kernel) -> Check<()> {
    if kernel.in_dpc() {
        return Ok(());
    }
    let tid = kernel.this_thread();
    match kernel.thread(tid).wait.next_irql.take() {
        Some(irql) => kernel.set_irql(irql),
        None => Ok(()),
    }
}

/// Waits until it is over, running kernel APCs in between (rule 18). `begin` puts the objects into place and begins.
#[inline]
pub(crate) fn wait(call: Call, mut begin: impl FnMut(&mut Kernel) -> Check<Begun>) -> NTSTATUS {
    if call.is_dying() {
        return STATUS_SUCCESS;
    }
    loop {
        let begun = call.operate(&mut begin);
        let status = match begun {
            Begun::Done(status) => status,
            Begun::Blocked => call.read(|kernel| {
                let tid = kernel.this_thread();
                kernel.thread(tid).wait.status
            }),
        };
        if status != STATUS_KERNEL_APC {
            return status;
        }
    }
}

/// What nearly all calls of KeWaitForSingleObject ask for.
const FOR_EVER: WaitRequest = WaitRequest { reason: "KeWaitForSingleObject", ..WaitRequest::FOR_EVER };

/// A wait while a panic unwinds, which does not last: what is free is taken, so that it can be released.
#[cold]
fn take_if_free(call: Call, object: PVOID) {
    let request = WaitRequest { timeout: Timeout::Poll, ..FOR_EVER };
    call.operate(|kernel| begin_wait(kernel, object, &request));
}

/// Begins a wait for one object.
#[inline(never)]
fn begin_wait(kernel: &mut Kernel, object: PVOID, request: &WaitRequest) -> Check<Begun> {
    check_wait(kernel, object as u64, request.timeout)?;
    let id = kernel.object_of_kind(object.cast_const(), "dispatcher object", |kind| kind.is_waitable())?;
    let number = kernel.objects[id].number;
    kernel.record(Operation::BeginWait, number, 1);
    if kernel.in_dpc() {
        return kernel.poll_in_dpc(&[id], *request);
    }
    if request.user_mode {
        kernel.check_user_wait(kernel.this_thread(), object as usize)?;
    }
    kernel.begin_single_wait(id, request)
}

/// A wait as a driver asks for it, with the thread's own wait blocks.
pub(crate) fn wait_request(wait_type: WAIT_TYPE, mode: KPROCESSOR_MODE, alertable: BOOLEAN, timeout: Timeout) -> WaitRequest {
    WaitRequest {
        all: wait_type == WaitAll,
        alertable: alertable != 0,
        user_mode: mode == UserMode,
        timeout,
        expired: STATUS_TIMEOUT,
        blocks: std::ptr::null_mut(),
        reason: "KeWaitForSingleObject",
    }
}

exports! {
    [ANY] visible(wait Object, time(Timeout), is_ended_by_others(WaitMode, Alertable)) fn KeWaitForSingleObject(
        call; Object: PVOID, _WaitReason: KWAIT_REASON, WaitMode: KPROCESSOR_MODE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER
    ) -> NTSTATUS {
        if call.is_dying() {
            take_if_free(call, Object);
            return STATUS_SUCCESS;
        }
        if Timeout.is_null() && Alertable == 0 && WaitMode != UserMode {
            return wait(call, |kernel| match kernel.begin_plain_wait(Object as usize, &FOR_EVER) {
                Some(begun) => Ok(begun),
                None => begin_wait(kernel, Object, &FOR_EVER),
            });
        }
        let timeout = read_timeout(call, Timeout);
        let request = wait_request(ksync_sys::WaitAny, WaitMode, Alertable, timeout);
        let status = wait(call, |kernel| begin_wait(kernel, Object, &request));
        if timeout != Timeout::Never || request.alertable || request.user_mode {
            call.read(|kernel| kernel.note_wait(std::iter::once(Object as usize), status, true));
        }
        status
    }

    [ANY] visible(wait_for_several &addresses(Count, Object), time(Timeout), is_ended_by_others(WaitMode, Alertable)) fn KeWaitForMultipleObjects(
        call; Count: ULONG, Object: *const PVOID, WaitType: WAIT_TYPE, _WaitReason: KWAIT_REASON, WaitMode: KPROCESSOR_MODE,
        Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER, WaitBlockArray: *mut KWAIT_BLOCK
    ) -> NTSTATUS {
        let timeout = read_timeout(call, Timeout);
        let limit = if WaitBlockArray.is_null() { THREAD_WAIT_OBJECTS } else { MAXIMUM_WAIT_OBJECTS };
        let mut request = wait_request(WaitType, WaitMode, Alertable, timeout);
        request.blocks = WaitBlockArray;
        request.reason = "KeWaitForMultipleObjects";
        let all = request.all;
        let status = wait(call, |kernel| {
            restore_level(kernel)?;
            if Count as usize > limit as usize || Count == 0 {
                return Err(Violation::boxed_owned(
                    codes::MAXIMUM_WAIT_OBJECTS_EXCEEDED,
                    [u64::from(Count), 0, 0, 0],
                    format!("a wait named {Count} objects: 1 to {limit} are allowed here"),
                ));
            }
            check_wait_level(kernel, Object as u64, timeout)?;
            let mut objects = Vec::with_capacity(Count as usize);
            for index in 0..Count as usize {
                // SAFETY: the caller passes an array of `Count` pointers.
                let object = unsafe { *Object.wrapping_add(index) };
                let id = kernel.object_of_kind(object.cast_const(), "dispatcher object", |kind| kind.is_waitable())?;
                let number = kernel.objects[id].number;
                kernel.record(Operation::BeginWait, number, u64::from(Count));
                objects.push(id);
            }
            if kernel.in_dpc() {
                return kernel.poll_in_dpc(&objects, request);
            }
            let tid = kernel.this_thread();
            if request.user_mode {
                for &id in &objects {
                    let address = kernel.objects[id].address;
                    kernel.check_user_wait(tid, address)?;
                }
                kernel.check_user_wait(tid, WaitBlockArray as usize)?;
            }
            kernel.thread(tid).wait.objects = objects;
            kernel.begin_wait(request)
        });
        call.read(|kernel| {
            // SAFETY: as above.
            let objects = (0..Count as usize).map(|index| unsafe { *Object.wrapping_add(index) } as usize);
            kernel.note_wait(objects, status, all);
        });
        status
    }

    [BLOCKING.rule(0x2_000f)] visible(delay time(Interval).unwrap_or(0), is_ended_by_others(WaitMode, Alertable)) fn KeDelayExecutionThread(
        call; WaitMode: KPROCESSOR_MODE, Alertable: BOOLEAN, Interval: *const LARGE_INTEGER
    ) -> NTSTATUS {
        // SAFETY: the caller passes a valid pointer; null is not allowed here.
        let interval = unsafe { Interval.read() };
        let due = call.read(|kernel| kernel.clock.due(interval));
        let mut request = wait_request(ksync_sys::WaitAny, WaitMode, Alertable, Timeout::Until(due));
        request.expired = STATUS_SUCCESS;
        request.reason = "KeDelayExecutionThread";
        wait(call, |kernel| {
            kernel.record(Operation::Delay, 0, interval as u64);
            let tid = kernel.this_thread();
            kernel.thread(tid).wait.objects.clear();
            let begun = kernel.begin_wait(request)?;
            if begun == Begun::Done(STATUS_SUCCESS) {
                // A delay that is over at once still lets others of the same priority run.
                kernel.end_quantum();
            }
            Ok(begun)
        })
    }
}
