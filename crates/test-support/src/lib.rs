//! What the tests of `ksim` and `ksync` share. The root has thin wrappers over the raw routines, so that tests read as what they test.
//!
//! They look safe and are not: an object must outlive the machine's last use of it. Tests keep to that by joining their threads.
#![expect(
    missing_docs,
    missing_debug_implementations,
    clippy::len_without_is_empty,
    clippy::macro_metavars_in_unsafe,
    clippy::missing_safety_doc,
    clippy::new_without_default,
    clippy::not_unsafe_ptr_arg_deref,
    reason = "this is for the tests alone, which do what drivers must not"
)]

pub mod documents;
pub mod driver;
pub mod io;
pub mod owned;
pub mod threads;

use ksim::{BugCheck, Machine, Outcome};
use ksync_sys::*;
use std::cell::{RefCell, UnsafeCell};
use std::ptr::{null, null_mut};
use std::rc::Rc;

/// Calls a raw routine.
#[macro_export]
macro_rules! raw {
    ($call:expr) => {{
        // SAFETY: tests keep what they pass alive until the machine has stopped; what else is wrong about a call is what they test.
        unsafe { $call }
    }};
}

pub const MS: i64 = 10_000;
pub const SECOND: i64 = 1_000 * MS;

/// Memory of an object, which does not move.
#[derive(Debug)]
pub struct Place<T>(Box<UnsafeCell<T>>);

impl<T> Place<T> {
    pub fn zeroed() -> Self {
        // SAFETY: only used for structures of NT, for all of which zero is valid.
        Self(Box::new(UnsafeCell::new(unsafe { std::mem::zeroed() })))
    }

    pub fn ptr(&self) -> *mut T {
        self.0.get()
    }

    pub fn object(&self) -> PVOID {
        self.0.get().cast()
    }

    pub fn read(&self) -> T
    where
        T: Copy,
    {
        // SAFETY: the place is initialised and nobody else runs meanwhile.
        unsafe { self.0.get().read() }
    }
}

macro_rules! place {
    ($name:ident, $structure:ty) => {
        #[derive(Debug)]
        pub struct $name(Place<$structure>);

        impl std::ops::Deref for $name {
            type Target = Place<$structure>;
            fn deref(&self) -> &Place<$structure> {
                &self.0
            }
        }
    };
}

place!(Event, KEVENT);
place!(Semaphore, KSEMAPHORE);
place!(Mutex, KMUTANT);
place!(Timer, KTIMER);
place!(SpinLock, KSPIN_LOCK);
place!(FastMutex, FAST_MUTEX);
place!(GuardedMutex, KGUARDED_MUTEX);
place!(Queue, KQUEUE);
place!(QueueHandle, KLOCK_QUEUE_HANDLE);

impl Event {
    pub fn new(kind: EVENT_TYPE, state: bool) -> Self {
        let event = Self(Place::zeroed());
        raw!(KeInitializeEvent(event.ptr(), kind, state.into()));
        event
    }

    pub fn notification() -> Self {
        Self::new(NotificationEvent, false)
    }

    pub fn synchronization() -> Self {
        Self::new(SynchronizationEvent, false)
    }

    pub fn set(&self) -> i32 {
        raw!(KeSetEvent(self.ptr(), 0, FALSE))
    }

    pub fn set_boosting(&self, increment: i32) -> i32 {
        raw!(KeSetEvent(self.ptr(), increment, FALSE))
    }

    pub fn pulse(&self) -> i32 {
        raw!(KePulseEvent(self.ptr(), 0, FALSE))
    }

    pub fn reset(&self) -> i32 {
        raw!(KeResetEvent(self.ptr()))
    }

    pub fn state(&self) -> i32 {
        raw!(KeReadStateEvent(self.ptr()))
    }
}

impl Semaphore {
    pub fn new(count: i32, limit: i32) -> Self {
        let semaphore = Self(Place::zeroed());
        raw!(KeInitializeSemaphore(semaphore.ptr(), count, limit));
        semaphore
    }

    pub fn release(&self, by: i32) -> i32 {
        raw!(KeReleaseSemaphore(self.ptr(), 0, by, FALSE))
    }

    pub fn state(&self) -> i32 {
        raw!(KeReadStateSemaphore(self.ptr()))
    }
}

impl Mutex {
    /// A KMUTEX.
    pub fn new() -> Self {
        let mutex = Self(Place::zeroed());
        raw!(KeInitializeMutex(mutex.ptr(), 0));
        mutex
    }

    /// An Nt mutant.
    pub fn mutant(owned: bool) -> Self {
        let mutex = Self(Place::zeroed());
        raw!(KeInitializeMutant(mutex.ptr(), owned.into()));
        mutex
    }

    pub fn release(&self) -> i32 {
        raw!(KeReleaseMutex(self.ptr(), FALSE))
    }

    pub fn state(&self) -> i32 {
        raw!(KeReadStateMutex(self.ptr()))
    }
}

impl Timer {
    pub fn new(kind: TIMER_TYPE) -> Self {
        let timer = Self(Place::zeroed());
        raw!(KeInitializeTimerEx(timer.ptr(), kind));
        timer
    }

    pub fn notification() -> Self {
        Self::new(NotificationTimer)
    }

    pub fn synchronization() -> Self {
        Self::new(SynchronizationTimer)
    }

    pub fn set(&self, due: i64) -> bool {
        raw!(KeSetTimer(self.ptr(), due, null_mut())) != 0
    }

    pub fn set_with(&self, due: i64, period: i32, dpc: *mut KDPC) -> bool {
        raw!(KeSetTimerEx(self.ptr(), due, period, dpc)) != 0
    }

    pub fn cancel(&self) -> bool {
        raw!(KeCancelTimer(self.ptr())) != 0
    }

    pub fn state(&self) -> bool {
        raw!(KeReadStateTimer(self.ptr())) != 0
    }
}

impl SpinLock {
    pub fn new() -> Self {
        let lock = Self(Place::zeroed());
        raw!(KeInitializeSpinLock(lock.ptr()));
        lock
    }

    pub fn acquire(&self) -> KIRQL {
        raw!(KeAcquireSpinLockRaiseToDpc(self.ptr()))
    }

    pub fn release(&self, old: KIRQL) {
        raw!(KeReleaseSpinLock(self.ptr(), old));
    }

    pub fn with<R>(&self, code: impl FnOnce() -> R) -> R {
        let old = self.acquire();
        let result = code();
        self.release(old);
        result
    }
}

impl FastMutex {
    pub fn new() -> Self {
        let mutex = Self(Place::zeroed());
        raw!(ExInitializeFastMutex(mutex.ptr()));
        mutex
    }

    pub fn acquire(&self) {
        raw!(ExAcquireFastMutex(self.ptr()));
    }

    pub fn release(&self) {
        raw!(ExReleaseFastMutex(self.ptr()));
    }

    pub fn try_acquire(&self) -> bool {
        raw!(ExTryToAcquireFastMutex(self.ptr())) != 0
    }
}

impl GuardedMutex {
    pub fn new() -> Self {
        let mutex = Self(Place::zeroed());
        raw!(KeInitializeGuardedMutex(mutex.ptr()));
        mutex
    }

    pub fn acquire(&self) {
        raw!(KeAcquireGuardedMutex(self.ptr()));
    }

    pub fn release(&self) {
        raw!(KeReleaseGuardedMutex(self.ptr()));
    }
}

impl Queue {
    pub fn new(maximum: u32) -> Self {
        let queue = Self(Place::zeroed());
        raw!(KeInitializeQueue(queue.ptr(), maximum));
        queue
    }

    pub fn insert(&self, entry: &Place<LIST_ENTRY>) -> i32 {
        raw!(KeInsertQueue(self.ptr(), entry.ptr()))
    }

    pub fn remove(&self) -> *mut LIST_ENTRY {
        raw!(KeRemoveQueue(self.ptr(), KernelMode, null()))
    }

    /// Removes with a timeout, relative in 100 ns; 0 polls.
    pub fn remove_within(&self, time: i64) -> *mut LIST_ENTRY {
        let timeout = -time;
        raw!(KeRemoveQueue(self.ptr(), KernelMode, &timeout))
    }
}

impl QueueHandle {
    pub fn new() -> Self {
        Self(Place::zeroed())
    }

    pub fn acquire(&self, lock: &SpinLock) {
        raw!(KeAcquireInStackQueuedSpinLock(lock.ptr(), self.ptr()));
    }

    pub fn release(&self) {
        raw!(KeReleaseInStackQueuedSpinLock(self.ptr()));
    }
}

/// Calls of a DPC routine: its object and its two arguments.
type DpcClosure<'a> = Box<dyn Fn(*mut KDPC, usize, usize) + 'a>;

/// A DPC that runs a closure.
pub struct Dpc<'a> {
    place: Place<KDPC>,
    _closure: Box<DpcClosure<'a>>,
}

unsafe extern "system-unwind" fn dpc_routine(dpc: *mut KDPC, context: PVOID, argument1: PVOID, argument2: PVOID) {
    // SAFETY: the context is the closure of a live `Dpc`.
    let closure = unsafe { &*context.cast::<DpcClosure<'_>>() };
    closure(dpc, argument1 as usize, argument2 as usize);
}

impl<'a> Dpc<'a> {
    pub fn new(closure: impl Fn() + 'a) -> Self {
        Self::with_arguments(move |_, _, _| closure())
    }

    pub fn with_arguments(closure: impl Fn(*mut KDPC, usize, usize) + 'a) -> Self {
        let closure: Box<DpcClosure<'a>> = Box::new(Box::new(closure));
        let place = Place::zeroed();
        let context = (&raw const *closure).cast_mut().cast();
        raw!(KeInitializeDpc(place.ptr(), Some(dpc_routine), context));
        Self { place, _closure: closure }
    }

    pub fn threaded(closure: impl Fn() + 'a) -> Self {
        let closure: Box<DpcClosure<'a>> = Box::new(Box::new(move |_, _, _| closure()));
        let place = Place::zeroed();
        let context = (&raw const *closure).cast_mut().cast();
        raw!(KeInitializeThreadedDpc(place.ptr(), Some(dpc_routine), context));
        Self { place, _closure: closure }
    }

    pub fn ptr(&self) -> *mut KDPC {
        self.place.ptr()
    }

    pub fn queue(&self) -> bool {
        self.queue_with(0, 0)
    }

    pub fn queue_with(&self, argument1: usize, argument2: usize) -> bool {
        raw!(KeInsertQueueDpc(self.ptr(), argument1 as PVOID, argument2 as PVOID)) != 0
    }

    pub fn remove(&self) -> bool {
        raw!(KeRemoveQueueDpc(self.ptr())) != 0
    }

    pub fn importance(self, importance: KDPC_IMPORTANCE) -> Self {
        raw!(KeSetImportanceDpc(self.ptr(), importance));
        self
    }

    pub fn on(self, processor: u8) -> Self {
        raw!(KeSetTargetProcessorDpc(self.ptr(), processor as i8));
        self
    }
}

type KernelClosure<'a> = Box<dyn FnMut(&mut PKNORMAL_ROUTINE) + 'a>;
type NormalClosure<'a> = Box<dyn FnMut() + 'a>;

struct ApcRoutines<'a> {
    kernel: KernelClosure<'a>,
    normal: Option<NormalClosure<'a>>,
}

/// A kernel APC that runs closures.
pub struct Apc<'a> {
    place: Place<KAPC>,
    _routines: Box<ApcRoutines<'a>>,
}

unsafe extern "system-unwind" fn apc_kernel(
    apc: *mut KAPC,
    normal: *mut PKNORMAL_ROUTINE,
    _context: *mut PVOID,
    _argument1: *mut PVOID,
    _argument2: *mut PVOID,
) {
    // SAFETY: the registry holds the routines of live `Apc`s only.
    let routines = unsafe { &mut *ApcRegistry::find(apc) };
    // SAFETY: the kernel passes a pointer to its copy.
    (routines.kernel)(unsafe { &mut *normal });
}

unsafe extern "system-unwind" fn apc_normal(context: PVOID, _argument1: PVOID, _argument2: PVOID) {
    // SAFETY: the context is the routines of a live `Apc`.
    let routines = unsafe { &mut *context.cast::<ApcRoutines<'_>>() };
    if let Some(normal) = &mut routines.normal {
        normal();
    }
}

/// A thread ended with the APC in its queue. The memory stays the `Apc`'s.
unsafe extern "system-unwind" fn apc_rundown(_apc: *mut KAPC) {}

/// The routines of APCs by their address: a special APC has no context.
struct ApcRegistry;

thread_local! {
    static APCS: RefCell<Vec<(*mut KAPC, *mut ApcRoutines<'static>)>> = const { RefCell::new(Vec::new()) };
}

impl ApcRegistry {
    fn find(apc: *mut KAPC) -> *mut ApcRoutines<'static> {
        APCS.with_borrow(|apcs| apcs.iter().rev().find(|(known, _)| *known == apc).map(|(_, routines)| *routines))
            .expect("the APC was made by Apc::new")
    }
}

impl<'a> Apc<'a> {
    /// A special kernel APC for a thread.
    pub fn special(thread: PVOID, kernel: impl FnMut() + 'a) -> Self {
        let mut kernel = kernel;
        Self::new(thread, KernelMode, Box::new(move |_| kernel()), None)
    }

    /// A normal kernel APC for a thread.
    pub fn normal(thread: PVOID, normal: impl FnMut() + 'a) -> Self {
        Self::new(thread, KernelMode, Box::new(|_| {}), Some(Box::new(normal)))
    }

    /// A user APC for a thread, which does nothing.
    pub fn user(thread: PVOID) -> Self {
        Self::new(thread, UserMode, Box::new(|_| {}), Some(Box::new(|| {})))
    }

    pub fn new(thread: PVOID, mode: KPROCESSOR_MODE, kernel: KernelClosure<'a>, normal: Option<NormalClosure<'a>>) -> Self {
        let special = normal.is_none();
        let mut routines = Box::new(ApcRoutines { kernel, normal });
        let place = Place::<KAPC>::zeroed();
        let context: *mut ApcRoutines<'a> = &raw mut *routines;
        APCS.with_borrow_mut(|apcs| apcs.push((place.ptr(), context.cast())));
        let normal: PKNORMAL_ROUTINE = if special { None } else { Some(apc_normal) };
        raw!(KeInitializeApc(
            place.ptr(),
            thread.cast(),
            OriginalApcEnvironment,
            Some(apc_kernel),
            Some(apc_rundown),
            normal,
            mode,
            context.cast()
        ));
        Self { place, _routines: routines }
    }

    pub fn ptr(&self) -> *mut KAPC {
        self.place.ptr()
    }

    pub fn insert(&self) -> bool {
        raw!(KeInsertQueueApc(self.ptr(), null_mut(), null_mut(), 0)) != 0
    }
}

impl Drop for Apc<'_> {
    fn drop(&mut self) {
        let place = self.place.ptr();
        APCS.with_borrow_mut(|apcs| apcs.retain(|(known, _)| *known != place));
    }
}

/// A thread, referenced.
#[derive(Debug)]
#[must_use = "a thread that is not joined keeps its reference"]
pub struct Thread {
    object: PVOID,
}

type ThreadClosure<'a> = Box<dyn FnOnce() + 'a>;

unsafe extern "system-unwind" fn thread_routine(context: PVOID) {
    // SAFETY: `spawn` made the context from a box, for this one call.
    let closure = unsafe { Box::from_raw(context.cast::<ThreadClosure<'_>>()) };
    closure();
}

/// What a thread is given to run.
fn context<'a>(code: impl FnOnce() + 'a) -> PVOID {
    let closure: Box<ThreadClosure<'a>> = Box::new(Box::new(code));
    Box::into_raw(closure).cast()
}

/// Starts a system thread, which ends before what it borrows goes. Its handle is the caller's.
pub fn spawn_with_handle<'a>(code: impl FnOnce() + 'a) -> HANDLE {
    let (mut handle, context, kernel) = (null_mut(), context(code), attributes(OBJ_KERNEL_HANDLE));
    let status = raw!(PsCreateSystemThread(&mut handle, 0, &kernel, null_mut(), null_mut(), Some(thread_routine), context));
    assert_eq!(status, STATUS_SUCCESS);
    handle
}

/// Starts a system thread. It must be joined before what it borrows goes.
pub fn spawn<'a>(code: impl FnOnce() + 'a) -> Thread {
    // Not by the other: reports name who has called this.
    let (mut handle, context, kernel) = (null_mut(), context(code), attributes(OBJ_KERNEL_HANDLE));
    let status = raw!(PsCreateSystemThread(&mut handle, 0, &kernel, null_mut(), null_mut(), Some(thread_routine), context));
    assert_eq!(status, STATUS_SUCCESS);
    let mut object = null_mut();
    assert_eq!(raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), KernelMode, &mut object, null_mut())), STATUS_SUCCESS);
    assert_eq!(raw!(ZwClose(handle)), STATUS_SUCCESS);
    Thread { object }
}

impl Thread {
    pub fn object(&self) -> PVOID {
        self.object
    }

    pub fn priority(&self) -> i32 {
        raw!(KeQueryPriorityThread(self.object.cast()))
    }

    pub fn set_priority(&self, priority: i32) -> i32 {
        raw!(KeSetPriorityThread(self.object.cast(), priority))
    }

    pub fn alert(&self, mode: KPROCESSOR_MODE) -> bool {
        raw!(KeAlertThread(self.object.cast(), mode)) != 0
    }

    pub fn join(self) {
        assert_eq!(wait(self.object), STATUS_SUCCESS);
        raw!(ObfDereferenceObject(self.object));
    }
}

pub fn join_all(threads: impl IntoIterator<Item = Thread>) {
    for thread in threads {
        thread.join();
    }
}

pub fn current_thread() -> PVOID {
    raw!(KeGetCurrentThread()).cast()
}

pub fn set_own_priority(priority: i32) -> i32 {
    raw!(KeSetPriorityThread(KeGetCurrentThread(), priority))
}

pub fn own_priority() -> i32 {
    raw!(KeQueryPriorityThread(KeGetCurrentThread()))
}

pub fn irql() -> KIRQL {
    raw!(KeGetCurrentIrql())
}

pub fn raise(to: KIRQL) -> KIRQL {
    raw!(KfRaiseIrql(to))
}

pub fn lower(to: KIRQL) {
    raw!(KeLowerIrql(to));
}

pub fn at<R>(level: KIRQL, code: impl FnOnce() -> R) -> R {
    let old = raise(level);
    let result = code();
    lower(old);
    result
}

pub fn now() -> i64 {
    raw!(KeQueryInterruptTime()) as i64
}

pub fn system_time() -> i64 {
    let mut time = 0;
    raw!(KeQuerySystemTime(&mut time));
    time
}

pub fn processor() -> u32 {
    raw!(KeGetCurrentProcessorNumberEx(null_mut()))
}

/// Waits for ever.
pub fn wait(object: PVOID) -> NTSTATUS {
    raw!(KeWaitForSingleObject(object, Executive, KernelMode, FALSE, null()))
}

/// Waits for a time in 100 ns units: negative is relative, 0 polls.
pub fn wait_until(object: PVOID, timeout: i64) -> NTSTATUS {
    raw!(KeWaitForSingleObject(object, Executive, KernelMode, FALSE, &timeout))
}

pub fn poll(object: PVOID) -> NTSTATUS {
    wait_until(object, 0)
}

/// Waits alertably or in user mode, or both.
pub fn wait_mode(object: PVOID, mode: KPROCESSOR_MODE, alertable: bool, timeout: Option<i64>) -> NTSTATUS {
    let pointer = timeout.as_ref().map_or(null(), |timeout| timeout as *const i64);
    raw!(KeWaitForSingleObject(object, Executive, mode, alertable.into(), pointer))
}

pub fn wait_many(objects: &[PVOID], kind: WAIT_TYPE, timeout: Option<i64>) -> NTSTATUS {
    let pointer = timeout.as_ref().map_or(null(), |timeout| timeout as *const i64);
    let count = objects.len() as u32;
    if objects.len() <= THREAD_WAIT_OBJECTS as usize {
        return raw!(KeWaitForMultipleObjects(count, objects.as_ptr(), kind, Executive, KernelMode, FALSE, pointer, null_mut()));
    }
    let blocks = Place::<[KWAIT_BLOCK; 64]>::zeroed();
    raw!(KeWaitForMultipleObjects(count, objects.as_ptr(), kind, Executive, KernelMode, FALSE, pointer, blocks.ptr().cast()))
}

pub fn wait_any(objects: &[PVOID]) -> NTSTATUS {
    wait_many(objects, WaitAny, None)
}

pub fn wait_all(objects: &[PVOID]) -> NTSTATUS {
    wait_many(objects, WaitAll, None)
}

/// Object attributes, without a name.
pub fn attributes(flags: u32) -> OBJECT_ATTRIBUTES {
    let mut attributes = std::mem::MaybeUninit::uninit();
    raw!(InitializeObjectAttributes(attributes.as_mut_ptr(), null_mut(), flags, null_mut(), null_mut()));
    // SAFETY: the routine fills all of it in.
    unsafe { attributes.assume_init() }
}

/// Calls `code` with object attributes that have a name.
pub fn named<R>(name: &str, flags: u32, code: impl FnOnce(*const OBJECT_ATTRIBUTES) -> R) -> R {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let bytes = (units.len() * 2) as u16;
    let mut string = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_mut_ptr() };
    let mut attributes = attributes(flags);
    attributes.ObjectName = &mut string;
    code(&attributes)
}

/// The identifier of the running thread.
pub fn own_id() -> usize {
    raw!(PsGetCurrentThreadId()) as usize
}

/// Sleeps for a time in 100 ns units.
pub fn sleep(time: i64) -> NTSTATUS {
    let interval = -time;
    raw!(KeDelayExecutionThread(KernelMode, FALSE, &interval))
}

/// Lets every other thread go on until it blocks: time only moves when all processors are idle.
pub fn settle() {
    sleep(1);
}

pub fn flush_dpcs() {
    raw!(KeFlushQueuedDpcs());
}

pub fn leave_start_region() {
    raw!(KeLeaveCriticalRegion());
}

pub fn enter_start_region() {
    raw!(KeEnterCriticalRegion());
}

pub const TAG: u32 = u32::from_le_bytes(*b"Test");

pub fn allocate(bytes: usize) -> PVOID {
    raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED, bytes, TAG))
}

pub fn free(memory: PVOID) {
    raw!(ExFreePoolWithTag(memory, TAG));
}

/// What threads did, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub fn push(&self, what: impl ToString) {
        self.0.borrow_mut().push(what.to_string());
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut())
    }

    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Runs on one processor and expects a clean end.
#[track_caller]
pub fn run(code: impl FnOnce()) -> Outcome {
    Machine::new().run(code).expect_clean()
}

/// Runs with several seeds on several numbers of processors, and expects clean ends.
#[track_caller]
pub fn explore(code: impl Fn()) {
    explore_on(&[1, 2, 4], code);
}

#[track_caller]
pub fn explore_on(processors: &[u8], code: impl Fn()) {
    for &processors in processors {
        for seed in 0..12 {
            let outcome = Machine::new().processors(processors).seed(seed).run(&code);
            assert!(outcome.is_completed() && outcome.left().is_empty(), "{processors} processors: {outcome}");
        }
    }
}

/// Runs on one processor and expects a bug check.
#[track_caller]
pub fn crash(code: u32, body: impl FnOnce()) -> BugCheck {
    Machine::new().run(body).expect_bug_check(code)
}

/// Starts threads that wait on an object one after another, so that they are in its list in this order.
pub fn waiters(count: usize, log: &Log, object: PVOID) -> Vec<Thread> {
    (0..count)
        .map(|index| {
            let thread = spawn(move || {
                assert_eq!(wait(object), STATUS_SUCCESS);
                log.push(index);
            });
            settle();
            thread
        })
        .collect()
}

/// Runs a test of this program again, alone in a process of its own that may end as it likes. Returns what it said on standard error, and the signal that ended it. `None` in that process.
///
/// # Panics
/// If the program cannot be run.
#[cfg(unix)]
#[must_use]
pub fn alone(test: &str) -> Option<(String, Option<i32>)> {
    use std::os::unix::process::ExitStatusExt;
    const VARIABLE: &str = "KSIM_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        return None;
    }
    let program = std::env::current_exe().expect("this program has a file");
    let output = std::process::Command::new(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, "1")
        .output()
        .expect("the program can be run");
    Some((String::from_utf8_lossy(&output.stderr).into_owned(), output.status.signal()))
}
