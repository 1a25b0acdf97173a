//! Cancel-safe queues.

use ksync_sys::*;
use std::cell::Cell;
use std::ptr::null_mut;
use test_support::io::*;
use test_support::*;

/// A queue as drivers have it: the library's structure at the beginning, then the requests and their lock.
#[repr(C)]
struct Queue {
    csq: IO_CSQ,
    requests: Vec<*mut IRP>,
    lock: KSPIN_LOCK,
    /// With which context a request is refused.
    refused: usize,
    cancelled: usize,
    /// The contexts of the insertions.
    contexts: Vec<usize>,
}

/// The queue that a routine is passed.
fn queue<'a>(csq: *mut IO_CSQ) -> &'a mut Queue {
    // SAFETY: the tests' queues begin with it, and one routine runs at a time: they are called under the lock, or touch what the others do not.
    unsafe { &mut *csq.cast() }
}

unsafe extern "system-unwind" fn insert(csq: *mut IO_CSQ, irp: *mut IRP) {
    queue(csq).requests.push(irp);
}

unsafe extern "system-unwind" fn insert_ex(csq: *mut IO_CSQ, irp: *mut IRP, context: PVOID) -> NTSTATUS {
    let queue = queue(csq);
    queue.contexts.push(context as usize);
    if queue.refused == context as usize {
        return STATUS_DEVICE_BUSY;
    }
    queue.requests.push(irp);
    STATUS_SUCCESS
}

unsafe extern "system-unwind" fn remove(csq: *mut IO_CSQ, irp: *mut IRP) {
    queue(csq).requests.retain(|&queued| queued != irp);
}

unsafe extern "system-unwind" fn peek(csq: *mut IO_CSQ, irp: *mut IRP, _context: PVOID) -> *mut IRP {
    let requests = &queue(csq).requests;
    let next = if irp.is_null() { 0 } else { 1 + requests.iter().position(|&queued| queued == irp).expect("it is queued") };
    requests.get(next).copied().unwrap_or(null_mut())
}

unsafe extern "system-unwind" fn acquire(csq: *mut IO_CSQ, irql: *mut KIRQL) {
    let lock = &raw mut queue(csq).lock;
    raw!(irql.write(KeAcquireSpinLockRaiseToDpc(lock)));
}

unsafe extern "system-unwind" fn release(csq: *mut IO_CSQ, irql: KIRQL) {
    let lock = &raw mut queue(csq).lock;
    raw!(KeReleaseSpinLock(lock, irql));
}

unsafe extern "system-unwind" fn complete_cancelled(csq: *mut IO_CSQ, irp: *mut IRP) {
    queue(csq).cancelled += 1;
    complete(irp, STATUS_CANCELLED, 0);
}

fn new_queue() -> Box<Queue> {
    // SAFETY: the structure is plain data, for all of which zero is valid.
    let csq = unsafe { std::mem::zeroed() };
    Box::new(Queue { csq, requests: Vec::new(), lock: 0, refused: 1, cancelled: 0, contexts: Vec::new() })
}

fn initialize_ex(queue: &mut Queue) -> NTSTATUS {
    raw!(IoCsqInitializeEx(
        &mut queue.csq,
        Some(insert_ex),
        Some(remove),
        Some(peek),
        Some(acquire),
        Some(release),
        Some(complete_cancelled)
    ))
}

fn initialize_plain(queue: &mut Queue) -> NTSTATUS {
    raw!(IoCsqInitialize(
        &mut queue.csq,
        Some(insert),
        Some(remove),
        Some(peek),
        Some(acquire),
        Some(release),
        Some(complete_cancelled)
    ))
}

thread_local! {
    static QUEUE: Cell<*mut Queue> = const { Cell::new(null_mut()) };
    static CONTEXT: Cell<*mut IO_CSQ_IRP_CONTEXT> = const { Cell::new(null_mut()) };
    static INSERTED: Cell<usize> = const { Cell::new(0) };
}

/// Runs `code` with a driver whose device puts each request into the queue, with the insertion context that is in [`INSERTED`].
fn with_device(queue: &mut Queue, code: impl FnOnce(&Sample)) {
    QUEUE.set(queue);
    CONTEXT.set(null_mut());
    let sample = Sample::load("sample");
    sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
        let csq = QUEUE.get().cast::<IO_CSQ>();
        match raw!(IoCsqInsertIrpEx(csq, irp, CONTEXT.get(), INSERTED.get() as PVOID)) {
            STATUS_SUCCESS => STATUS_PENDING,
            status => {
                assert_eq!(location(irp).Control & SL_PENDING_RETURNED, 0, "a request that is refused is not pending");
                complete(irp, status, 0)
            }
        }
    });
    code(&sample);
    sample.unload();
}

#[test]
fn insertions_with_a_status_queue_or_refuse() {
    explore(|| {
        let mut queue = new_queue();
        assert_eq!(initialize_ex(&mut queue), STATUS_SUCCESS);
        let csq = &raw mut queue.csq;
        with_device(&mut queue, |sample| {
            let mut context = IO_CSQ_IRP_CONTEXT { Type: 9, Irp: 9 as *mut IRP, Csq: null_mut() };
            CONTEXT.set(&raw mut context);
            INSERTED.set(1);
            assert_eq!(sample.open().device_control(BUFFERED, &[], 0).status, STATUS_DEVICE_BUSY);
            assert!(raw!(CONTEXT.get().read()).Irp.is_null(), "the context names no request");
            assert!(raw!(IoCsqRemoveIrp(csq, CONTEXT.get())).is_null());
            INSERTED.set(2);
            let handle = sample.open();
            let sender = spawn(|| assert_eq!(handle.device_control(BUFFERED, &[], 0).status, STATUS_SUCCESS));
            sleep(MS);
            let irp = raw!(IoCsqRemoveIrp(csq, CONTEXT.get()));
            assert!(!irp.is_null());
            assert_ne!(location(irp).Control & SL_PENDING_RETURNED, 0);
            succeed(irp);
            sender.join();
            drop(handle);
        });
        assert_eq!(queue.contexts, [1, 2]);
        assert_eq!((queue.requests.len(), queue.cancelled), (0, 0));
    });
}

#[test]
fn what_is_queued_with_a_status_is_cancelled_too() {
    explore(|| {
        let mut queue = new_queue();
        assert_eq!(initialize_ex(&mut queue), STATUS_SUCCESS);
        let csq = &raw mut queue.csq;
        with_device(&mut queue, |sample| {
            INSERTED.set(3);
            let handle = sample.open();
            let sender = spawn(|| {
                let status = handle.device_control(BUFFERED, &[], 0).status;
                assert!(status == STATUS_CANCELLED || status == STATUS_SUCCESS, "{status:#x}");
            });
            sleep(MS);
            let first = queue_front();
            let canceller = spawn(|| {
                if !first.is_null() {
                    raw!(IoCancelIrp(first));
                }
            });
            // Whoever gets it completes it, once. It stays while the other one may look at it.
            let irp = raw!(IoCsqRemoveNextIrp(csq, null_mut()));
            canceller.join();
            if !irp.is_null() {
                succeed(irp);
            }
            sender.join();
            drop(handle);
        });
        assert!(queue.requests.is_empty() && queue.cancelled <= 1);
    });
}

fn queue_front() -> *mut IRP {
    queue(QUEUE.get().cast()).requests.first().copied().unwrap_or(null_mut())
}

#[test]
fn a_queue_without_a_status_takes_all_by_either_name() {
    explore(|| {
        let mut queue = new_queue();
        assert_eq!(initialize_plain(&mut queue), STATUS_SUCCESS);
        let csq = &raw mut queue.csq;
        with_device(&mut queue, |sample| {
            INSERTED.set(1);
            let handle = sample.open();
            let sender = spawn(|| assert_eq!(handle.device_control(BUFFERED, &[], 0).status, STATUS_SUCCESS));
            sleep(MS);
            let irp = raw!(IoCsqRemoveNextIrp(csq, null_mut()));
            assert!(!irp.is_null());
            assert!(raw!(IoCsqRemoveNextIrp(csq, null_mut())).is_null());
            succeed(irp);
            sender.join();
            drop(handle);
        });
        assert!(queue.contexts.is_empty());
    });
}

#[test]
fn a_queue_needs_all_its_routines() {
    run(|| {
        let mut queue = new_queue();
        let status = raw!(IoCsqInitializeEx(&mut queue.csq, None, Some(remove), Some(peek), Some(acquire), Some(release), None));
        assert_eq!(status, STATUS_INVALID_PARAMETER);
    });
}
