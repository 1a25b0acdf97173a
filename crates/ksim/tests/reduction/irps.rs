//! Requests (IRPs): sent, kept by their driver in a queue of its own or in a cancel-safe one, completed, cancelled, and waited for.

use crate::{LONG_RUNS, MOST, Search, Seen, Words, apart, compare, compare_if_small, few, perform, search};
use ksync_sys::atomic::{AtomicBool, Ordering};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::null_mut;
use test_support::io::{BUFFERED, Sample, complete, location};
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// One of two requests, if nobody has sent it before, to the driver's own queue.
    Send(usize),
    /// Likewise to the cancel-safe queue.
    SendSafe(usize),
    /// Likewise for who completes it at once.
    SendThrough(usize),
    /// The driver completes the request that has been in its queue longest.
    Serve,
    ServeSafe,
    /// The cancel-safe queue gives this request back, and the driver completes it.
    Recall(usize),
    Cancel(usize),
    /// Waits for the event that the request's completion routine sets.
    Await(usize),
    Poll(usize),
    /// A word is changed under the cancel spin lock.
    Locked(usize),
    /// A request that the I/O manager builds for this thread, and the end of that.
    Control,
    /// Likewise, through a filter whose completion routine looks at a word.
    Filtered(usize),
    /// A request of the system's own, through an open file, that its sender waits for.
    Read,
    /// Likewise one that its sender cancels.
    ReadAndCancel,
}

fn which() -> std::ops::Range<usize> {
    0..2
}

fn word_step() -> impl Strategy<Value = Step> {
    prop_oneof![which().prop_map(Step::Load), which().prop_map(Step::Store)]
}

fn queue_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => which().prop_map(Step::Send),
        3 => Just(Step::Serve),
        3 => which().prop_map(Step::Cancel),
        1 => which().prop_map(Step::Await),
        1 => which().prop_map(Step::Poll),
        1 => which().prop_map(Step::Locked),
    ]
}

fn safe_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => which().prop_map(Step::SendSafe),
        2 => Just(Step::ServeSafe),
        2 => which().prop_map(Step::Recall),
        3 => which().prop_map(Step::Cancel),
        1 => which().prop_map(Step::Poll),
        1 => which().prop_map(Step::Locked),
    ]
}

fn through_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => which().prop_map(Step::SendThrough),
        2 => which().prop_map(Step::Await),
        2 => which().prop_map(Step::Poll),
        1 => which().prop_map(Step::Cancel),
    ]
}

fn system_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Control),
        3 => which().prop_map(Step::Filtered),
        3 => Just(Step::Read),
        2 => Just(Step::ReadAndCancel),
        5 => Just(Step::Serve),
        1 => which().prop_map(Step::Locked),
    ]
}

type Program = Vec<Vec<Step>>;

fn of(step: BoxedStrategy<Step>) -> impl Strategy<Value = Program> {
    let step = prop_oneof![1 => word_step(), 3 => step];
    prop_oneof![
        4 => prop::collection::vec(prop::collection::vec(step.clone(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(step, 1..=1), 3),
    ]
}

/// A cancel-safe queue of the driver's.
#[repr(C)]
struct Safe {
    csq: IO_CSQ,
    lock: SpinLock,
    requests: RefCell<VecDeque<*mut IRP>>,
}

fn safe<'a>(csq: *mut IO_CSQ) -> &'a Safe {
    // SAFETY: the only cancel-safe queue is the beginning of a `Safe`, which outlives its requests.
    unsafe { &*csq.cast_const().cast::<Safe>() }
}

unsafe extern "system-unwind" fn insert(csq: *mut IO_CSQ, irp: *mut IRP) {
    safe(csq).requests.borrow_mut().push_back(irp);
}

unsafe extern "system-unwind" fn remove(csq: *mut IO_CSQ, irp: *mut IRP) {
    safe(csq).requests.borrow_mut().retain(|&queued| queued != irp);
}

unsafe extern "system-unwind" fn peek(csq: *mut IO_CSQ, irp: *mut IRP, _context: PVOID) -> *mut IRP {
    let requests = safe(csq).requests.borrow();
    let next = requests.iter().position(|&queued| queued == irp).map_or(0, |place| place + 1);
    requests.get(next).copied().unwrap_or(null_mut())
}

unsafe extern "system-unwind" fn acquire(csq: *mut IO_CSQ, irql: *mut KIRQL) {
    let old = safe(csq).lock.acquire();
    raw!(irql.write(old));
}

unsafe extern "system-unwind" fn release(csq: *mut IO_CSQ, irql: KIRQL) {
    safe(csq).lock.release(irql);
}

unsafe extern "system-unwind" fn complete_cancelled(_csq: *mut IO_CSQ, irp: *mut IRP) {
    complete(irp, STATUS_CANCELLED, 0);
}

/// A request, and what its sender knows of it.
struct Request {
    irp: *mut IRP,
    sent: AtomicBool,
    result: Cell<i64>,
    done: Event,
    context: Place<IO_CSQ_IRP_CONTEXT>,
}

unsafe extern "system-unwind" fn completed(_device: *mut DEVICE_OBJECT, irp: *mut IRP, context: PVOID) -> NTSTATUS {
    // SAFETY: the requests outlive their way.
    let request = unsafe { &*context.cast_const().cast::<Request>() };
    let status = raw!((*irp).IoStatus);
    request.result.set(100 + raw!(status.u.Status) as u32 as i64 + ((status.Information as i64) << 32));
    request.done.set();
    STATUS_MORE_PROCESSING_REQUIRED
}

struct Shared {
    words: Words,
    requests: [Request; 2],
    lock: SpinLock,
    queue: RefCell<VecDeque<*mut IRP>>,
    safe: Safe,
}

/// What the device's extension leads to.
fn shared<'a>(device: *mut DEVICE_OBJECT) -> &'a Shared {
    let extension = raw!((*device).DeviceExtension).cast::<*const Shared>();
    // SAFETY: it is set before anything is sent, and outlives all requests.
    unsafe { &*raw!(extension.read()) }
}

unsafe extern "system-unwind" fn cancelled(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    let shared = shared(device);
    raw!(IoReleaseCancelSpinLock((*irp).CancelIrql));
    shared.lock.with(|| shared.queue.borrow_mut().retain(|&queued| queued != irp));
    complete(irp, STATUS_CANCELLED, 0);
}

/// The driver keeps a request.
fn keep(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let shared = shared(device);
    raw!(IoMarkIrpPending(irp));
    let is_cancelled = shared.lock.with(|| {
        raw!(IoSetCancelRoutine(irp, Some(cancelled)));
        // If its routine is gone by now, that is about to complete it.
        let is_cancelled = raw!((*irp).Cancel) != 0 && raw!(IoSetCancelRoutine(irp, None)).is_some();
        if !is_cancelled {
            shared.queue.borrow_mut().push_back(irp);
        }
        is_cancelled
    });
    if is_cancelled {
        complete(irp, STATUS_CANCELLED, 0);
    }
    STATUS_PENDING
}

impl Shared {
    fn new() -> Self {
        let request = || Request {
            irp: raw!(IoAllocateIrp(1, FALSE)),
            sent: AtomicBool::new(false),
            result: Cell::default(),
            done: Event::notification(),
            context: Place::zeroed(),
        };
        Self {
            words: Words::default(),
            requests: [request(), request()],
            lock: SpinLock::new(),
            queue: RefCell::default(),
            safe: Safe { csq: Place::zeroed().read(), lock: SpinLock::new(), requests: RefCell::default() },
        }
    }

    fn initialize(&mut self) {
        let status = raw!(IoCsqInitialize(
            &mut self.safe.csq,
            Some(insert),
            Some(remove),
            Some(peek),
            Some(acquire),
            Some(release),
            Some(complete_cancelled)
        ));
        assert_eq!(status, STATUS_SUCCESS);
    }

    fn csq(&self) -> *mut IO_CSQ {
        (&raw const self.safe.csq).cast_mut()
    }

    fn send(&self, device: *mut DEVICE_OBJECT, which: usize, major: u8) -> i64 {
        let request = &self.requests[which];
        if request.sent.swap(true, Ordering::SeqCst) {
            return -1;
        }
        let next = raw!(IoGetNextIrpStackLocation(request.irp));
        raw!((*next).MajorFunction = major);
        let context = (&raw const *request).cast_mut().cast();
        raw!(IoSetCompletionRoutine(request.irp, Some(completed), context, TRUE, TRUE, TRUE));
        raw!(IofCallDriver(device, request.irp)).into()
    }

    /// The driver completes the first request of its queue whose cancel routine it gets back.
    fn serve(&self) -> i64 {
        let mut queue = self.lock.with(|| {
            let mut queue = self.queue.borrow_mut();
            let place = queue.iter().position(|&irp| raw!(IoSetCancelRoutine(irp, None)).is_some());
            place.and_then(|place| queue.remove(place))
        });
        self.complete(queue.take().unwrap_or(null_mut()))
    }

    fn complete(&self, irp: *mut IRP) -> i64 {
        if irp.is_null() {
            return -1;
        }
        let value = self.words.load(1);
        complete(irp, STATUS_SUCCESS, value as usize);
        value
    }

    fn perform(&self, sample: &Sample, filters: &[*mut DEVICE_OBJECT], step: Step, file: &ksim::DeviceHandle) -> i64 {
        let words = &self.words;
        let device = sample.device();
        match step {
            Step::Load(which) => words.load(which),
            Step::Store(which) => words.store(which),
            Step::Send(which) => self.send(device, which, IRP_MJ_READ),
            Step::SendSafe(which) => self.send(device, which, IRP_MJ_WRITE),
            Step::SendThrough(which) => self.send(device, which, IRP_MJ_INTERNAL_DEVICE_CONTROL),
            Step::Serve => self.serve(),
            Step::ServeSafe => self.complete(raw!(IoCsqRemoveNextIrp(self.csq(), null_mut()))),
            Step::Recall(which) => self.complete(raw!(IoCsqRemoveIrp(self.csq(), self.requests[which].context.ptr()))),
            Step::Cancel(which) => raw!(IoCancelIrp(self.requests[which].irp)).into(),
            Step::Await(which) => {
                wait(self.requests[which].done.object());
                self.requests[which].result.get()
            }
            Step::Poll(which) => {
                let is_done = poll(self.requests[which].done.object()) == STATUS_SUCCESS;
                if is_done { self.requests[which].result.get() } else { -1 }
            }
            Step::Locked(which) => {
                let mut irql = 0;
                raw!(IoAcquireCancelSpinLock(&mut irql));
                let value = words.double(which);
                raw!(IoReleaseCancelSpinLock(irql));
                value
            }
            Step::Control | Step::Filtered(_) => {
                let device = if let Step::Filtered(which) = step { filters[which] } else { device };
                let (event, mut status) = (Event::notification(), Place::<IO_STATUS_BLOCK>::zeroed().read());
                let irp = raw!(IoBuildDeviceIoControlRequest(
                    BUFFERED,
                    device,
                    null_mut(),
                    0,
                    null_mut(),
                    0,
                    0,
                    event.ptr(),
                    &mut status
                ));
                let is_pending = raw!(IofCallDriver(device, irp)) == STATUS_PENDING;
                let is_early = event.state() != 0;
                if is_pending {
                    wait(event.object());
                }
                i64::from(is_early) + 10 * raw!(status.u.Status) as u32 as i64 + ((status.Information as i64) << 32)
            }
            Step::Read => {
                let result = file.read(0);
                result.status as u32 as i64 + ((result.information as i64) << 32)
            }
            Step::ReadAndCancel => {
                let request = file.begin_read(0);
                let is_cancelled = request.cancel();
                let result = request.wait();
                i64::from(is_cancelled) + 10 * result.status as u32 as i64 + ((result.information as i64) << 40)
            }
        }
    }
}

/// What a filter's device extension holds.
struct Filter {
    below: *mut DEVICE_OBJECT,
    shared: *const Shared,
    /// Whether its completion routine changes the word that it looks at.
    changes: bool,
}

unsafe extern "system-unwind" fn passed(_device: *mut DEVICE_OBJECT, irp: *mut IRP, context: PVOID) -> NTSTATUS {
    // SAFETY: the context is a device's extension, and the device outlives its requests.
    let filter = unsafe { &*context.cast_const().cast::<Filter>() };
    if raw!((*irp).PendingReturned) != 0 {
        raw!(IoMarkIrpPending(irp));
    }
    // SAFETY: it outlives the devices.
    let words = unsafe { &(*filter.shared).words };
    if filter.changes {
        words.double(0);
    } else {
        words.load(0);
    }
    STATUS_SUCCESS
}

/// A driver of two devices over another's, each of which passes requests on to that and sees them come back.
fn filters(below: &Sample, shared: &Shared) -> (Sample, Vec<*mut DEVICE_OBJECT>) {
    let filter = Sample::try_load("filter", size_of::<Filter>() as ULONG).expect("the driver loads");
    let mut second = null_mut();
    let driver = raw!((*filter.device()).DriverObject);
    let first = filter.device();
    let size = size_of::<Filter>() as ULONG;
    assert_eq!(raw!(IoCreateDevice(driver, size, null_mut(), FILE_DEVICE_UNKNOWN, 0, FALSE, &mut second)), STATUS_SUCCESS);
    // They pass on without being attached, so that two may do so beside each other.
    for (device, changes) in [(first, false), (second, true)] {
        let extension = raw!((*device).DeviceExtension).cast::<Filter>();
        raw!(extension.write(Filter { below: below.device(), shared, changes }));
        raw!((*device).StackSize = (*below.device()).StackSize + 1);
    }
    filter.on(IRP_MJ_DEVICE_CONTROL, |device, irp| {
        let extension = raw!((*device).DeviceExtension).cast::<Filter>();
        raw!(IoCopyCurrentIrpStackLocationToNext(irp));
        raw!(IoSetCompletionRoutine(irp, Some(passed), extension.cast(), TRUE, TRUE, TRUE));
        raw!(IofCallDriver((*extension).below, irp))
    });
    (filter, vec![first, second])
}

fn run(program: &Program) -> Seen {
    let mut shared = Shared::new();
    shared.initialize();
    let shared = &shared;
    let sample = Sample::try_load("sample", 8).expect("the driver loads");
    let extension = raw!((*sample.device()).DeviceExtension).cast::<*const Shared>();
    raw!(extension.write(shared));
    sample.on(IRP_MJ_READ, keep);
    sample.on(IRP_MJ_DEVICE_CONTROL, keep);
    sample.on(IRP_MJ_WRITE, |device, irp| {
        let shared = self::shared(device);
        let request = shared.requests.iter().find(|request| request.irp == irp).expect("it is one of the two");
        raw!(IoCsqInsertIrp(shared.csq(), irp, request.context.ptr()));
        STATUS_PENDING
    });
    sample.on(IRP_MJ_INTERNAL_DEVICE_CONTROL, |device, irp| {
        assert_eq!(location(irp).MajorFunction, IRP_MJ_INTERNAL_DEVICE_CONTROL);
        let value = self::shared(device).words.load(1);
        complete(irp, STATUS_SUCCESS, value as usize)
    });
    let file = sample.open();
    let is_filtered = program.iter().flatten().any(|step| matches!(step, Step::Filtered(_)));
    let (filter, filters) = is_filtered.then(|| filters(&sample, shared)).unzip();
    let filters = filters.unwrap_or_default();
    let results = perform(program, |step, _, _| shared.perform(&sample, &filters, step, &file));
    while shared.serve() != -1 {}
    while shared.complete(raw!(IoCsqRemoveNextIrp(shared.csq(), null_mut()))) != -1 {}
    let mut end = shared.words.both();
    end.extend(shared.requests.iter().map(|request| request.result.get()));
    drop(file);
    shared.requests.iter().for_each(|request| raw!(IoFreeIrp(request.irp)));
    if let Some(filter) = filter {
        filter.unload();
    }
    sample.unload();
    (results, end)
}

fn check_all(program: &Program) {
    compare(program.len(), || run(program));
}

fn check(program: &Program) {
    compare_if_small(program.len(), LONG_RUNS, || run(program));
}

unsafe extern "system-unwind" fn completes(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    raw!(IoReleaseCancelSpinLock((*irp).CancelIrql));
    complete(irp, STATUS_CANCELLED, 0);
}

/// A driver that looks whether its request is cancelled, gives it a cancel routine, and does not look again, keeps for ever what is cancelled in between.
#[test]
fn a_cancellation_between_the_look_and_the_routine_is_found() {
    let losses = |looks_again: bool| {
        let run = move || {
            let shared = Shared::new();
            let sample = Sample::load("sample");
            sample.on(IRP_MJ_READ, move |_, irp| {
                raw!(IoMarkIrpPending(irp));
                let mut is_cancelled = raw!((*irp).Cancel) != 0;
                if !is_cancelled {
                    raw!(IoSetCancelRoutine(irp, Some(completes)));
                    is_cancelled = looks_again && raw!((*irp).Cancel) != 0 && raw!(IoSetCancelRoutine(irp, None)).is_some();
                }
                if is_cancelled {
                    complete(irp, STATUS_CANCELLED, 0);
                }
                STATUS_PENDING
            });
            let (device, request) = (sample.device(), &shared.requests[0]);
            let sends = spawn(|| _ = shared.send(device, 0, IRP_MJ_READ));
            let cancels = spawn(|| _ = raw!(IoCancelIrp(request.irp)));
            join_all([sends, cancels]);
            wait(request.done.object());
            shared.requests.iter().for_each(|request| raw!(IoFreeIrp(request.irp)));
            sample.unload();
            (Vec::new(), vec![request.result.get()])
        };
        search(2, &run, Search::Exhaustive, MOST, 1).0.failures()
    };
    assert_eq!(losses(true), 0);
    assert!(losses(false) > 0);
}

/// The end of a request comes after its completion routines, and what those do is no part of it.
#[test]
fn a_request_ends_behind_its_completion_routines() {
    check_all(&vec![vec![Step::Filtered(0)], vec![Step::Serve]]);
    check_all(&vec![vec![Step::Filtered(0), Step::ReadAndCancel], vec![Step::Serve]]);
}

/// To send a request depends on what touches it: requests of different senders need a single execution, where the driver does nothing that they share.
#[test]
fn sends_are_independent() {
    let run = || {
        let shared = Shared::new();
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_READ, |_, irp| {
            raw!(IoMarkIrpPending(irp));
            STATUS_PENDING
        });
        let device = sample.device();
        let shared_by_all = &shared;
        join_all([0, 1].map(|which| spawn(move || apart(|| _ = shared_by_all.send(device, which, IRP_MJ_READ)))));
        for request in &shared.requests {
            complete(request.irp, STATUS_SUCCESS, 0);
            raw!(IoFreeIrp(request.irp));
        }
        sample.unload();
        (Vec::new(), Vec::new())
    };
    assert_eq!(search(2, &run, Search::Exhaustive, MOST, 1).0.executions(), 1);
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_queued_requests(program in of(queue_step().boxed())) {
        check(&program);
    }

    #[test]
    fn nothing_is_missed_of_cancel_safe_queues(program in of(safe_step().boxed())) {
        check(&program);
    }

    #[test]
    fn nothing_is_missed_of_requests_completed_at_once(program in of(through_step().boxed())) {
        check(&program);
    }

    #[test]
    fn nothing_is_missed_of_the_system_s_requests(program in of(system_step().boxed())) {
        check(&program);
    }
}

/// Who is about to wait for the end of a request does more than wait where the APC that ends it is pending.
#[test]
fn a_pending_apc_ends_a_wait() {
    check_all(&vec![vec![Step::Control], vec![Step::Serve], vec![Step::Control]]);
}
