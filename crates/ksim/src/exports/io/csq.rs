//! Cancel-safe queues: the driver keeps the requests, under its own lock; the I/O manager sees to it that who removes one owns it.

use super::cancel::release_lock;
use crate::engine::layout::exchange_cancel_routine;
use crate::exports::{ANY, IO_DISPATCH, exports};
use crate::machine::{Call, current};
use ksync_sys::{
    DEVICE_OBJECT, IO_CSQ, IO_CSQ_ACQUIRE_LOCK, IO_CSQ_COMPLETE_CANCELED_IRP, IO_CSQ_INSERT_IRP, IO_CSQ_INSERT_IRP_EX,
    IO_CSQ_IRP_CONTEXT, IO_CSQ_PEEK_NEXT_IRP, IO_CSQ_RELEASE_LOCK, IO_CSQ_REMOVE_IRP, IRP, IRP_DRIVER_CONTEXT, IoMarkIrpPending,
    NTSTATUS, PVOID, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, ULONG,
};
use std::mem::offset_of;
use std::ptr::null_mut;

/// The kinds of the structures, as the WDK numbers them.
const TYPE_CONTEXT: ULONG = 1;
const TYPE_QUEUE: ULONG = 2;
const TYPE_QUEUE_EX: ULONG = 3;

/// Where a request in a queue keeps its queue, or its context: the last of the four pointers that are its driver's.
fn slot(irp: *mut IRP) -> *mut PVOID {
    irp.wrapping_byte_add(offset_of!(IRP, Tail) + offset_of!(IRP_DRIVER_CONTEXT, DriverContext)).cast::<PVOID>().wrapping_add(3)
}

/// How a queue inserts: with a status only where it was initialised by `IoCsqInitializeEx`.
#[derive(Clone, Copy)]
enum Insert {
    Plain(IO_CSQ_INSERT_IRP),
    Ex(IO_CSQ_INSERT_IRP_EX),
}

/// A queue's routines, all of which `IoCsqInitialize` has checked.
#[derive(Clone, Copy)]
struct Queue {
    csq: *mut IO_CSQ,
    insert: Insert,
    remove: IO_CSQ_REMOVE_IRP,
    peek: IO_CSQ_PEEK_NEXT_IRP,
    acquire: IO_CSQ_ACQUIRE_LOCK,
    release: IO_CSQ_RELEASE_LOCK,
    complete: IO_CSQ_COMPLETE_CANCELED_IRP,
}

impl Queue {
    /// The queue at `csq`. None if it is not initialised.
    ///
    /// # Safety
    /// The pointer is valid.
    unsafe fn at(csq: *mut IO_CSQ) -> Option<Self> {
        // SAFETY: by this function's contract.
        let value = unsafe { csq.read() };
        Some(Self {
            csq,
            insert: match value.CsqInsertIrp? {
                insert if value.Type == TYPE_QUEUE_EX => {
                    // SAFETY: IoCsqInitializeEx has stored a routine of that type, and pointers to functions are alike.
                    let insert = unsafe { std::mem::transmute::<IO_CSQ_INSERT_IRP, IO_CSQ_INSERT_IRP_EX>(insert) };
                    Insert::Ex(insert)
                }
                insert => Insert::Plain(insert),
            },
            remove: value.CsqRemoveIrp?,
            peek: value.CsqPeekNextIrp?,
            acquire: value.CsqAcquireLock?,
            release: value.CsqReleaseLock?,
            complete: value.CsqCompleteCanceledIrp?,
        })
    }

    fn lock(self) -> u8 {
        let mut irql = 0;
        // SAFETY: the driver vouched for its routines.
        unsafe { crate::image::call(self.acquire, (self.csq, &raw mut irql)) };
        irql
    }

    fn unlock(self, irql: u8) {
        // SAFETY: as above.
        unsafe { crate::image::call(self.release, (self.csq, irql)) };
    }

    /// Inserts a request, with the lock held.
    fn insert(self, irp: *mut IRP, context: PVOID) -> NTSTATUS {
        match self.insert {
            Insert::Plain(routine) => {
                // SAFETY: as above.
                unsafe { crate::image::call(routine, (self.csq, irp)) };
                STATUS_SUCCESS
            }
            // SAFETY: as above.
            Insert::Ex(routine) => unsafe { crate::image::call(routine, (self.csq, irp, context)) },
        }
    }

    /// Takes a request out whose cancel routine the caller has got back, with the lock held.
    fn take(self, irp: *mut IRP) {
        // SAFETY: as above.
        unsafe { crate::image::call(self.remove, (self.csq, irp)) };
        forget(irp);
    }
}

/// A request has left its queue: its context, if it has one, says so.
fn forget(irp: *mut IRP) {
    // SAFETY: the request is in a queue, and its slot holds the queue or a context.
    let held = unsafe { slot(irp).replace(null_mut()) };
    // SAFETY: as above. Both begin with their kind.
    if unsafe { held.cast::<ULONG>().read() } == TYPE_CONTEXT {
        // SAFETY: as above.
        unsafe { (*held.cast::<IO_CSQ_IRP_CONTEXT>()).Irp = null_mut() };
    }
}

/// The cancel routine of the requests in a queue.
unsafe extern "system-unwind" fn cancelled(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    let call = Call { cell: current("a cancel routine"), export: None };
    // SAFETY: the I/O manager passes the request that is cancelled.
    release_lock(call, unsafe { (*irp).CancelIrql });
    // SAFETY: the request is in a queue, and its slot holds the queue or a context. Both begin with their kind.
    let held = unsafe { slot(irp).read() };
    // SAFETY: as above.
    let csq = if unsafe { held.cast::<ULONG>().read() } == TYPE_CONTEXT {
        // SAFETY: as above.
        unsafe { (*held.cast::<IO_CSQ_IRP_CONTEXT>()).Csq }
    } else {
        held.cast::<IO_CSQ>()
    };
    // SAFETY: a queue outlives its requests.
    let Some(queue) = (unsafe { Queue::at(csq) }) else { return };
    let irql = queue.lock();
    queue.take(irp);
    queue.unlock(irql);
    // SAFETY: the driver vouched for its routines.
    unsafe { crate::image::call(queue.complete, (csq, irp)) };
}

/// Fills a queue in.
fn initialize(csq: *mut IO_CSQ, queue: IO_CSQ) -> NTSTATUS {
    // SAFETY: the caller of the export passes memory for a queue.
    unsafe { csq.write(queue) };
    // SAFETY: as above.
    if unsafe { Queue::at(csq) }.is_some() { STATUS_SUCCESS } else { STATUS_INVALID_PARAMETER }
}

/// Inserts a request. The status is the queue's, if its routine has one: a request that is refused is as it was.
fn insert(call: Call, csq: *mut IO_CSQ, irp: *mut IRP, context: *mut IO_CSQ_IRP_CONTEXT, insert_context: PVOID) -> NTSTATUS {
    call.operate(|kernel| kernel.irp_at(irp));
    // SAFETY: the caller passes a valid queue.
    let Some(queue) = (unsafe { Queue::at(csq) }) else { return STATUS_INVALID_PARAMETER };
    if !context.is_null() {
        let value = IO_CSQ_IRP_CONTEXT { Type: TYPE_CONTEXT, Irp: irp, Csq: csq };
        // SAFETY: the caller passes null or memory for a context.
        unsafe { context.write(value) };
    }
    let held = if context.is_null() { csq.cast() } else { context.cast() };
    // SAFETY: the caller owns the request.
    unsafe { slot(irp).write(held) };
    let irql = queue.lock();
    let status = queue.insert(irp, insert_context);
    if status < STATUS_SUCCESS {
        forget(irp);
        queue.unlock(irql);
        return status;
    }
    // SAFETY: the caller owned the request, and nobody else takes it out before the lock is released.
    unsafe { IoMarkIrpPending(irp) };
    // SAFETY: as above.
    unsafe { exchange_cancel_routine(irp, Some(cancelled)) };
    // Cancelled before it had a routine: then nobody else will see to it.
    // SAFETY: the lock is held, so that nobody has removed the request yet.
    if unsafe { (*irp).Cancel } != 0
        // SAFETY: as above.
        && unsafe { exchange_cancel_routine(irp, None) }.is_some()
    {
        queue.take(irp);
        queue.unlock(irql);
        // SAFETY: the driver vouched for its routines.
        unsafe { crate::image::call(queue.complete, (csq, irp)) };
    } else {
        queue.unlock(irql);
    }
    status
}

exports! {
    [ANY] silent fn IoCsqInitialize(
        call; Csq: *mut IO_CSQ, CsqInsertIrp: Option<IO_CSQ_INSERT_IRP>, CsqRemoveIrp: Option<IO_CSQ_REMOVE_IRP>,
        CsqPeekNextIrp: Option<IO_CSQ_PEEK_NEXT_IRP>, CsqAcquireLock: Option<IO_CSQ_ACQUIRE_LOCK>,
        CsqReleaseLock: Option<IO_CSQ_RELEASE_LOCK>, CsqCompleteCanceledIrp: Option<IO_CSQ_COMPLETE_CANCELED_IRP>
    ) -> NTSTATUS {
        let _ = call;
        let queue = IO_CSQ {
            Type: TYPE_QUEUE,
            CsqInsertIrp,
            CsqRemoveIrp,
            CsqPeekNextIrp,
            CsqAcquireLock,
            CsqReleaseLock,
            CsqCompleteCanceledIrp,
            ReservePointer: null_mut(),
        };
        initialize(Csq, queue)
    }

    [ANY] silent fn IoCsqInitializeEx(
        call; Csq: *mut IO_CSQ, CsqInsertIrp: Option<IO_CSQ_INSERT_IRP_EX>, CsqRemoveIrp: Option<IO_CSQ_REMOVE_IRP>,
        CsqPeekNextIrp: Option<IO_CSQ_PEEK_NEXT_IRP>, CsqAcquireLock: Option<IO_CSQ_ACQUIRE_LOCK>,
        CsqReleaseLock: Option<IO_CSQ_RELEASE_LOCK>, CsqCompleteCanceledIrp: Option<IO_CSQ_COMPLETE_CANCELED_IRP>
    ) -> NTSTATUS {
        let _ = call;
        // SAFETY: pointers to functions are alike; the queue's type says of what type this one is.
        let insert = |routine| unsafe { std::mem::transmute::<IO_CSQ_INSERT_IRP_EX, IO_CSQ_INSERT_IRP>(routine) };
        let queue = IO_CSQ {
            Type: TYPE_QUEUE_EX,
            CsqInsertIrp: CsqInsertIrp.map(insert),
            CsqRemoveIrp,
            CsqPeekNextIrp,
            CsqAcquireLock,
            CsqReleaseLock,
            CsqCompleteCanceledIrp,
            ReservePointer: null_mut(),
        };
        initialize(Csq, queue)
    }

    [IO_DISPATCH] visible(access Irp) fn IoCsqInsertIrp(call; Csq: *mut IO_CSQ, Irp: *mut IRP, Context: *mut IO_CSQ_IRP_CONTEXT) {
        insert(call, Csq, Irp, Context, null_mut());
    }

    [IO_DISPATCH] visible(access Irp) fn IoCsqInsertIrpEx(
        call; Csq: *mut IO_CSQ, Irp: *mut IRP, Context: *mut IO_CSQ_IRP_CONTEXT, InsertContext: PVOID
    ) -> NTSTATUS {
        insert(call, Csq, Irp, Context, InsertContext)
    }

    [IO_DISPATCH] visible(read Csq) fn IoCsqRemoveIrp(call; Csq: *mut IO_CSQ, Context: *mut IO_CSQ_IRP_CONTEXT) -> *mut IRP {
        let _ = call;
        // SAFETY: the caller passes a valid queue.
        let Some(queue) = (unsafe { Queue::at(Csq) }) else { return null_mut() };
        let irql = queue.lock();
        // SAFETY: the caller passes the context of an insertion.
        let irp = unsafe { (*Context).Irp };
        // SAFETY: with the lock held, a request that its context names is in the queue.
        let owned = !irp.is_null() && unsafe { exchange_cancel_routine(irp, None) }.is_some();
        if owned {
            queue.take(irp);
        }
        queue.unlock(irql);
        if owned { irp } else { null_mut() }
    }

    [IO_DISPATCH] visible(read Csq) fn IoCsqRemoveNextIrp(call; Csq: *mut IO_CSQ, PeekContext: PVOID) -> *mut IRP {
        let _ = call;
        // SAFETY: the caller passes a valid queue.
        let Some(queue) = (unsafe { Queue::at(Csq) }) else { return null_mut() };
        let irql = queue.lock();
        let mut irp = null_mut();
        loop {
            // SAFETY: the driver vouched for its routines.
            irp = unsafe { crate::image::call(queue.peek, (Csq, irp, PeekContext)) };
            // One whose cancel routine is gone is being cancelled, and is passed over.
            // SAFETY: the lock is held, so that the request is in the queue.
            if irp.is_null() || unsafe { exchange_cancel_routine(irp, None) }.is_some() {
                break;
            }
        }
        if !irp.is_null() {
            queue.take(irp);
        }
        queue.unlock(irql);
        irp
    }
}
