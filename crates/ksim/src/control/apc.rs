//! APCs, alerts and the end of a thread, as other parts of a system bring them about.

use super::{call, thread_with_id};
use crate::engine::layout::{self, ApcParts};
use ksync_sys::{KAPC, KernelMode, PKNORMAL_ROUTINE, PVOID, UserMode};

/// On whose behalf a thread is alerted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessorMode {
    /// The kernel's. Such an alert ends every alertable wait.
    Kernel,
    /// A user's. Such an alert ends alertable waits in user mode.
    User,
}

/// What holds an APC back, and where it runs (rules 21 and 25).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApcKind {
    /// Runs at APC_LEVEL, as soon as the thread runs below that level and outside guarded regions. I/O completes by such ones.
    SpecialKernel,
    /// Runs at PASSIVE_LEVEL. Critical regions hold it back too, and a system thread starts inside one, which ends with the thread.
    NormalKernel,
    /// Runs when the thread returns from a system call ([`system_call`](crate::system_call)) in which an alertable wait in user mode found it. A thread that ends
    /// drops it.
    User,
}

/// An APC that runs a closure once.
#[repr(C)]
struct Queued {
    apc: KAPC,
    kind: ApcKind,
    code: Option<Box<dyn FnOnce()>>,
}

impl Queued {
    /// Takes the APC apart.
    ///
    /// # Safety
    /// The pointer is to the APC of a `Queued` that [`queue_apc`] gave up, and is in no queue and not used any more.
    unsafe fn reclaim(apc: *mut KAPC) -> Box<Self> {
        // SAFETY: by this function's contract; the APC is the first field.
        unsafe { Box::from_raw(apc.cast::<Self>()) }
    }
}

unsafe extern "system-unwind" fn kernel_routine(
    apc: *mut KAPC,
    _normal: *mut PKNORMAL_ROUTINE,
    _context: *mut PVOID,
    _argument1: *mut PVOID,
    _argument2: *mut PVOID,
) {
    // SAFETY: the APC is a live `Queued`'s.
    let kind = unsafe { (*apc.cast::<Queued>()).kind };
    if kind == ApcKind::SpecialKernel {
        // SAFETY: it was taken off its queue, and has no normal routine that would come after this one.
        let queued = unsafe { Queued::reclaim(apc) };
        if let Some(code) = queued.code {
            code();
        }
    }
}

unsafe extern "system-unwind" fn normal_routine(context: PVOID, _argument1: PVOID, _argument2: PVOID) {
    // SAFETY: the context is the APC itself, which was taken off its queue, and this is the last that is done with it.
    let queued = unsafe { Queued::reclaim(context.cast()) };
    if let Some(code) = queued.code {
        code();
    }
}

unsafe extern "system-unwind" fn rundown_routine(apc: *mut KAPC) {
    // SAFETY: it was taken off the queue of a thread that ends, and nothing more is done with it.
    drop(unsafe { Queued::reclaim(apc) });
}

/// Queues an APC that runs `code` in the thread with that id. False if the thread takes no APCs any more; `code` is dropped then.
///
/// # Examples
/// ```
/// use ksim::{ApcKind, Machine};
/// use std::{cell::Cell, rc::Rc};
///
/// Machine::new().run(|| {
///     let ran = Rc::new(Cell::new(false));
///     let seen = Rc::clone(&ran);
///     let id = unsafe { ksync_sys::PsGetCurrentThreadId() } as usize;
///     assert!(ksim::queue_apc(id, ApcKind::SpecialKernel, move || seen.set(true)));
///     assert!(ran.get()); // nothing holds it back here
/// }).expect_clean();
/// ```
///
/// # Panics
/// If no machine runs on this thread, or there is no such thread.
pub fn queue_apc(id: usize, kind: ApcKind, code: impl FnOnce() + 'static) -> bool {
    let call = call("queue_apc");
    let tid = thread_with_id(call, id);
    let thread = call.read(|kernel| kernel.threads[tid as usize].address()) as *mut _;
    let parts = ApcParts {
        thread,
        environment: ksync_sys::OriginalApcEnvironment,
        kernel: Some(kernel_routine),
        rundown: Some(rundown_routine),
        normal: if kind == ApcKind::SpecialKernel { None } else { Some(normal_routine) },
        mode: if kind == ApcKind::User { UserMode } else { KernelMode },
        context: std::ptr::null_mut(),
    };
    let queued = Box::into_raw(Box::new(Queued { apc: layout::apc(parts), kind, code: Some(Box::new(code)) }));
    // SAFETY: the box was given up just now; the field is its own.
    let apc = unsafe { &raw mut (*queued).apc };
    if kind != ApcKind::SpecialKernel {
        // SAFETY: as above; nobody else has the APC yet.
        unsafe { (*apc).NormalContext = apc.cast() };
    }
    let inserted = call.operate(|kernel| kernel.insert_apc(apc, 0));
    if !inserted {
        // SAFETY: it is in no queue.
        drop(unsafe { Queued::reclaim(apc) });
    }
    inserted
}

/// Alerts the thread with that id. True if it was alerted in that mode already (rule 17).
///
/// # Panics
/// If no machine runs on this thread, or there is no such thread.
pub fn alert_thread(id: usize, mode: ProcessorMode) -> bool {
    let call = call("alert_thread");
    let tid = thread_with_id(call, id);
    call.operate(|kernel| kernel.alert_thread(tid, mode == ProcessorMode::User))
}

/// Asks the thread with that id to end, as the end of its process does: its waits in user mode end with STATUS_USER_APC, alertable or not, and
/// PsIsThreadTerminating says so (rule 17). The thread itself has to come to its end.
///
/// # Panics
/// If no machine runs on this thread, or there is no such thread.
pub fn request_termination(id: usize) {
    let call = call("request_termination");
    let tid = thread_with_id(call, id);
    call.operate(|kernel| {
        kernel.request_termination(tid);
        Ok(())
    });
}
