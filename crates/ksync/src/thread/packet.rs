//! What a thread and its handle share.
//!
//! # States
//! A packet is made by [`spawn`] and is in a [`List`] until it is freed. The thread writes its result into it and then does not touch it any more. Nobody
//! frees a packet before its thread has ended, so the thread needs no reference to it.
//!
//! ```text
//!            join                    (waits, frees)
//! spawned ---------> gone
//!    |     abandon              sweep or wait_for_all, when the thread has ended
//!    +-------------> abandoned -----------------------------------------------> gone
//!    |     forget               unload
//!    +-------------> forgotten --------> ended, and leaked
//! ```

use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::{self, NonNull};

use ksync_sys as sys;

use crate::driver::list::{List, Node};
use crate::error::{NtError, Result, check};
use crate::handle::ObjectHandle;
use crate::irql::{self, Irql};
use crate::object::{ProcessObject, ThreadObject};
use crate::pool::KBox;
use crate::thread::SpawnError;
use crate::time::Timeout;
use crate::wait::{self, Dispatchable};

/// The greatest number of UTF-16 code units of a thread's name.
pub(crate) const LONGEST_NAME: usize = 64;

/// How a thread is created.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings<'a> {
    pub(crate) own: Own,
    pub(crate) name: Option<&'a str>,
    /// The process that it belongs to, if that is not the system process.
    pub(crate) process: Option<&'a ProcessObject>,
}

/// What a thread sets of itself when it starts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    pub(crate) priority: Option<i32>,
    /// A group, and processors of it.
    pub(crate) affinity: Option<(u16, usize)>,
}

impl Settings<'_> {
    /// Checks them.
    fn check(&self) -> Result {
        if self.name.is_some_and(|name| name.encode_utf16().count() > LONGEST_NAME) {
            return Err(NtError::INVALID_PARAMETER);
        }
        self.own.check()
    }

    /// Names a thread, for debuggers. A system that knows no names refuses, which is nobody's concern.
    ///
    /// The level is `PASSIVE_LEVEL`.
    fn give_name(&self, thread: sys::HANDLE) {
        let Some(name) = self.name else { return };
        let mut units = [0; LONGEST_NAME];
        let mut length = 0;
        for (place, unit) in units.iter_mut().zip(name.encode_utf16()) {
            *place = unit;
            length += 2;
        }
        let string = sys::UNICODE_STRING { Length: length, MaximumLength: length, Buffer: units.as_mut_ptr() };
        // CAST: 16.
        let size = size_of_val(&string) as u32;
        let string = (&raw const string).cast_mut().cast();
        // SAFETY: the string is a local variable, and so is its text. The caller has opened the handle, and is at `PASSIVE_LEVEL`.
        let _ = unsafe { sys::ZwSetInformationThread(thread, sys::ThreadNameInformation, string, size) };
    }
}

impl Own {
    /// Checks the numbers.
    fn check(self) -> Result {
        if let Some(priority) = self.priority
            && !(1..=sys::HIGH_PRIORITY).contains(&priority)
        {
            return Err(NtError::INVALID_PARAMETER);
        }
        if let Some((group, affinity)) = self.affinity {
            // SAFETY: the routine may be called anywhere.
            let active = unsafe { sys::KeQueryGroupAffinity(group) };
            if affinity & active == 0 {
                return Err(NtError::INVALID_PARAMETER);
            }
        }
        Ok(())
    }

    /// Applies them to the current thread, which has just started.
    fn apply(self) {
        // SAFETY: the routine may be called anywhere.
        let thread = unsafe { sys::KeGetCurrentThread() };
        if let Some(priority) = self.priority {
            // SAFETY: the thread is the current one, and a thread starts at `PASSIVE_LEVEL`. The priority was checked.
            unsafe { sys::KeSetPriorityThread(thread, priority) };
        }
        if let Some((group, mask)) = self.affinity {
            let affinity = sys::GROUP_AFFINITY { Mask: mask, Group: group, Reserved: [0; 3] };
            // SAFETY: the affinity is a local variable that names an active processor, which was checked. A thread starts at `PASSIVE_LEVEL`.
            unsafe { sys::KeSetSystemGroupAffinityThread(&raw const affinity, ptr::null_mut()) };
        }
    }
}

/// The part of a packet that does not depend on the result's type.
///
/// # Invariants
/// - `thread` is set before anybody but the spawner can see the packet, and never changes.
/// - `ended` and `abandoned` are touched under the list's lock.
/// - `free` is the function that frees this packet.
#[repr(C)]
pub(crate) struct Header {
    node: Node,
    /// The list that the packet is in.
    list: *const List,
    thread: MaybeUninit<ThreadObject>,
    /// No handle is left: whoever finds the thread ended frees the packet.
    abandoned: Cell<bool>,
    /// The thread is known to have ended.
    ended: Cell<bool>,
    /// Its result has been dropped, or is being dropped, by [`drop_results`]. Touched under the list's lock.
    emptied: Cell<bool>,
    empty: unsafe fn(NonNull<Header>),
    free: unsafe fn(NonNull<Header>),
}

/// A packet with room for the result.
#[repr(C)]
pub(crate) struct Packet<T> {
    header: Header,
    /// Written by the thread, and read by others after it has ended.
    result: UnsafeCell<Option<T>>,
}

/// All of a packet, as it is allocated.
#[repr(C)]
struct Block<F, T> {
    packet: Packet<T>,
    own: Own,
    /// Set when the packet is complete, and the thread may begin: a thread that ended before it was referenced could not be referenced everywhere
    /// (Wine refuses it).
    gate: UnsafeCell<MaybeUninit<sys::KEVENT>>,
    /// Taken by the thread at its start.
    closure: UnsafeCell<ManuallyDrop<F>>,
}

/// Starts a thread. The packet is in `list`.
///
/// # Safety
/// - Whatever `closure` and its result borrow outlives the packet.
/// - `list` outlives the packet, and the packet is joined, abandoned, or seen to by [`wait_for_all`] before the code of `closure` goes away.
pub(crate) unsafe fn spawn<F, T>(
    settings: Settings<'_>,
    closure: F,
    list: *const List,
) -> Result<NonNull<Packet<T>>, SpawnError<F>>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    if let Err(error) = super::check_level().and_then(|()| settings.check()) {
        return Err(SpawnError { error, closure });
    }
    let memory = match KBox::<Block<F, T>>::new_uninit() {
        Ok(memory) => memory,
        Err(error) => return Err(SpawnError { error, closure }),
    };
    let header = Header {
        node: Node::new(),
        list,
        thread: MaybeUninit::uninit(),
        abandoned: Cell::new(false),
        ended: Cell::new(false),
        emptied: Cell::new(false),
        empty: empty::<T>,
        free: free::<F, T>,
    };
    let block = KBox::into_raw(memory.write(Block {
        packet: Packet { header, result: UnsafeCell::new(None) },
        own: settings.own,
        gate: UnsafeCell::new(MaybeUninit::uninit()),
        closure: UnsafeCell::new(ManuallyDrop::new(closure)),
    }));
    // SAFETY: the block is valid; the place is only pointed to.
    let gate: *mut sys::KEVENT = unsafe { &raw mut (*block).gate }.cast();
    // SAFETY: the place is nonpaged memory for an event, which stays where it is until the packet is freed. The cell and the wrapper have its layout.
    unsafe { sys::KeInitializeEvent(gate, sys::NotificationEvent, sys::FALSE) };
    let handle = match create(start::<F, T>, block.cast(), settings.process) {
        Ok(handle) => handle,
        Err(error) => {
            // SAFETY: the block was given up for this pointer above, and no thread was started that could use it.
            let block = unsafe { KBox::from_raw(block) }.into_inner();
            let closure = ManuallyDrop::into_inner(block.closure.into_inner());
            return Err(SpawnError { error, closure });
        }
    };
    settings.give_name(handle);
    let thread = reference(handle);
    // SAFETY: the handle was opened by `create`, and is closed once, here, at `PASSIVE_LEVEL`, which `check_level` found.
    let _ = unsafe { sys::ZwClose(handle) };
    // SAFETY: the block is valid. The thread uses its closure and its result, and not this field.
    let slot = unsafe { &raw mut (*block).packet.header.thread };
    // SAFETY: as above; nobody else sees the packet before it is in the list.
    unsafe { slot.write(MaybeUninit::new(thread)) };
    // SAFETY: by this function's contract the list is alive.
    let list = unsafe { &*list };
    // The level is `PASSIVE_LEVEL`, where lists can be locked.
    if let Some(mut list) = list.lock() {
        // SAFETY: the node is new, and the packet stays in its place until it is freed, which takes it out first.
        unsafe { list.insert(block.cast()) };
    }
    // SAFETY: the event was initialised above. The packet is not freed before its handle, which is made of what this returns, is gone.
    unsafe { sys::KeSetEvent(gate, 0, sys::FALSE) };
    // SAFETY: pointers of boxes are never null.
    Ok(unsafe { NonNull::new_unchecked(block.cast()) })
}

/// Creates a thread of a process, or of the system process.
fn create(routine: sys::KSTART_ROUTINE, context: *mut c_void, process: Option<&ProcessObject>) -> Result<sys::HANDLE> {
    let process = process.map(|process| process.open(sys::PROCESS_ALL_ACCESS)).transpose()?;
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: the attributes are a local variable. There is no name and no directory.
    unsafe {
        sys::InitializeObjectAttributes(
            attributes.as_mut_ptr(),
            ptr::null_mut(),
            sys::OBJ_KERNEL_HANDLE,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    let mut handle = ptr::null_mut();
    // SAFETY: handle and attributes are local variables, the latter initialised. The process' handle is open throughout the call; a null one is the system process. The caller has
    // checked the level, and passes a context that is valid for the routine.
    let status = unsafe {
        sys::PsCreateSystemThread(
            &raw mut handle,
            sys::THREAD_ALL_ACCESS,
            attributes.as_ptr(),
            process.as_ref().map_or(ptr::null_mut(), ObjectHandle::as_raw),
            ptr::null_mut(),
            Some(routine),
            context,
        )
    };
    check(status).map(|_| handle)
}

/// The thread that a handle, which was opened just now, stands for.
///
/// With a kernel handle that is open and ours this cannot fail. If it did, there would be a thread that nobody could ever wait for, so it is tried until it succeeds.
fn reference(handle: sys::HANDLE) -> ThreadObject {
    loop {
        if let Ok(thread) = ThreadObject::from_kernel_handle(handle, sys::SYNCHRONIZE) {
            return thread;
        }
        let _ = wait::delay(-10_000);
    }
}

/// The routine of a thread.
///
/// # Safety
/// The context is a pointer to a `Block<F, T>` whose closure has not been taken.
unsafe extern "system-unwind" fn start<F, T>(context: *mut c_void)
where
    F: FnOnce() -> T,
{
    // SAFETY: by this function's contract.
    unsafe { run::<F, T>(context.cast()) };
    // All that the closure owned has been dropped. A closure that has forgotten a guard may have left the level raised, or APCs held back; then the system stops here, with
    // the bug check for that, before anything else goes wrong.
    // SAFETY: a system thread ends itself. The routine looks at the level and at the regions itself.
    unsafe { sys::PsTerminateSystemThread(sys::STATUS_SUCCESS) };
}

/// Runs a thread's closure and keeps its result.
///
/// # Safety
/// The block is valid, and its closure has not been taken.
unsafe fn run<F, T>(block: *mut Block<F, T>)
where
    F: FnOnce() -> T,
{
    // SAFETY: the block is valid; the place is only pointed to.
    let gate: *mut sys::KEVENT = unsafe { &raw mut (*block).gate }.cast();
    // SAFETY: the event was initialised before the thread was created, and is valid until the thread has ended.
    unsafe { wait::wait_uninterrupted(gate.cast()) };
    // SAFETY: the settings are never written to after the thread was created.
    let own = unsafe { (*block).own };
    own.apply();
    // SAFETY: the block is valid; the place is only pointed to.
    let closure = unsafe { &raw mut (*block).closure };
    // SAFETY: the closure has not been taken, and is taken once, here. The cell and the wrapper around it have its layout.
    let closure = unsafe { closure.cast::<F>().read() };
    let value = closure();
    // SAFETY: the block is valid; the place is only pointed to.
    let result = unsafe { &raw mut (*block).packet.result };
    // SAFETY: others use the result only after this thread has ended. The cell has the layout of what it holds, which is `None` and needs no drop.
    unsafe { result.cast::<Option<T>>().write(Some(value)) };
}

/// Frees a packet: its thread object's reference, its result, and the memory.
///
/// # Safety
/// The header is that of a `Block<F, T>` whose thread has ended and which is in no list. Nobody uses it any more.
unsafe fn free<F, T>(header: NonNull<Header>) {
    // SAFETY: by this function's contract. The block was given up for this pointer by `spawn`.
    let mut block = unsafe { KBox::from_raw(header.cast::<Block<F, T>>().as_ptr()) };
    // SAFETY: the thread is set in all packets that were in a list. It is dropped once, because `MaybeUninit` does not.
    unsafe { block.packet.header.thread.assume_init_drop() };
    // Dropping the block drops the result. The closure was taken by the thread.
    drop(block);
}

/// The thread of a packet.
///
/// # Safety
/// The packet is alive for `'a`, and [`spawn`] has returned it.
pub(crate) unsafe fn thread<'a>(header: NonNull<Header>) -> &'a ThreadObject {
    // SAFETY: by this function's contract; the place is only pointed to.
    let slot = unsafe { &raw const (*header.as_ptr()).thread };
    // SAFETY: by the type's invariant the thread is set and never changes, so it may be shared.
    unsafe { &*slot.cast::<ThreadObject>() }
}

/// Checks that the current thread may wait for a packet's thread.
///
/// # Errors
/// - [`NtError::WOULD_DEADLOCK`] if they are the same.
/// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
///
/// # Safety
/// The packet is alive.
pub(crate) unsafe fn check_join(header: NonNull<Header>) -> Result {
    irql::require_at_most(Irql::APC)?;
    // SAFETY: by this function's contract.
    let thread = unsafe { thread(header) };
    // SAFETY: the routine may be called anywhere.
    let current = unsafe { sys::KeGetCurrentThread() };
    if thread.as_raw() == current.cast() { Err(NtError::WOULD_DEADLOCK) } else { Ok(()) }
}

/// Waits for the end of a packet's thread, takes the result and frees the packet.
///
/// # Errors
/// [`NtError::UNSUCCESSFUL`] if there is no result.
///
/// # Safety
/// [`check_join`] has admitted it. The packet is alive, and the caller, who is the only one who would free it, does not use it any more.
pub(crate) unsafe fn join<T>(packet: NonNull<Packet<T>>) -> Result<T> {
    let header = packet.cast::<Header>();
    // SAFETY: by this function's contract the packet is alive.
    let object = unsafe { thread(header) }.as_raw().cast();
    // SAFETY: the packet holds a reference to the thread throughout the wait.
    unsafe { wait::wait_uninterrupted(object) };
    // SAFETY: by this function's contract the packet is alive; the place is only pointed to.
    let result = unsafe { &raw mut (*packet.as_ptr()).result };
    // SAFETY: the thread has ended, so that the result is the caller's alone. The cell has the layout of what it holds.
    let result = unsafe { &mut *result.cast::<Option<T>>() }.take();
    // SAFETY: the packet is in its list, and by this function's contract nobody else frees it.
    unsafe { unlink(header) };
    // SAFETY: the thread has ended, the packet is in no list, and nobody uses it any more.
    unsafe { release(header) };
    result.ok_or(NtError::UNSUCCESSFUL)
}

/// Takes a packet out of its list.
///
/// # Safety
/// The packet is in its list, and the level is `<= DISPATCH_LEVEL`.
unsafe fn unlink(header: NonNull<Header>) {
    // SAFETY: by this function's contract the packet is alive; the field never changes.
    let list = unsafe { (*header.as_ptr()).list };
    // SAFETY: by `spawn`'s contract the list outlives the packet.
    let list = unsafe { &*list };
    if let Some(mut list) = list.lock() {
        // SAFETY: by this function's contract the node is in this list.
        unsafe { list.remove(header.as_ptr().cast()) };
    }
}

/// Frees a packet by its own function.
///
/// # Safety
/// The thread has ended, the packet is in no list, and nobody uses it any more.
unsafe fn release(header: NonNull<Header>) {
    // SAFETY: by this function's contract the packet is alive.
    let free = unsafe { (*header.as_ptr()).free };
    // SAFETY: by the type's invariant the function is the one for this packet, and the contract is the same.
    unsafe { free(header) };
}

/// Gives a packet up without waiting: it is freed by whoever finds its thread ended.
///
/// # Safety
/// The packet is alive, and the caller, who is the only one who would free it, does not use it any more.
pub(crate) unsafe fn abandon(header: NonNull<Header>) {
    // SAFETY: by this function's contract the packet is alive; the field never changes.
    let list = unsafe { (*header.as_ptr()).list };
    // SAFETY: by `spawn`'s contract the list outlives the packet.
    let list = unsafe { &*list };
    // IRQL: above `DISPATCH_LEVEL` the packet stays as it is, as if its handle were forgotten.
    if let Some(_locked) = list.lock() {
        // SAFETY: the packet is alive, and the list is locked.
        unsafe { (*header.as_ptr()).abandoned.set(true) };
    }
}

/// Frees the abandoned packets of a list whose threads have ended.
///
/// # IRQL
/// `PASSIVE_LEVEL`; above it nothing is done, because results are dropped here.
pub(crate) fn sweep(list: &List) -> bool {
    if irql::current() > Irql::PASSIVE {
        return false;
    }
    free_where(list, |header| header.abandoned.get() && has_ended(header))
}

/// Frees the packets of a list that are chosen.
fn free_where(list: &List, choose: impl Fn(&Header) -> bool) -> bool {
    let mut any = false;
    loop {
        let Some(mut locked) = list.lock() else { return any };
        let found = locked.nodes().find(|node| {
            // SAFETY: the nodes of these lists are the first fields of headers, which are alive while they are in the list. The list is locked.
            let header = unsafe { &*node.cast::<Header>() };
            choose(header)
        });
        let Some(node) = found else { return any };
        any = true;
        // SAFETY: the node was found in this list.
        unsafe { locked.remove(node) };
        drop(locked);
        // SAFETY: nodes are not null.
        let header = unsafe { NonNull::new_unchecked(node.cast()) };
        // SAFETY: the callers choose packets whose thread has ended, and that nobody else would free. It was taken out of the list, so that nobody finds it there.
        unsafe { release(header) };
    }
}

/// Tells whether a packet's thread has ended. The list is locked.
fn has_ended(header: &Header) -> bool {
    if !header.ended.get() {
        // SAFETY: a packet that is in a list is alive and was returned by `spawn`.
        let thread = unsafe { thread(NonNull::from(header)) };
        // IRQL: under the lock, so at `DISPATCH_LEVEL`, which a wait that polls admits.
        header.ended.set(thread.wait_with(Timeout::POLL.into()).success());
    }
    header.ended.get()
}

/// Waits until all threads of a list have ended, those included that are started meanwhile, but not the current thread.
///
/// Nothing is freed, because handles may be in use by threads that still run. Above `DISPATCH_LEVEL`, where nothing can be found out about threads, this never
/// returns if there were any: what they borrow must not go.
pub(crate) fn wait_for_all(list: &List) {
    if !list.was_used() {
        return;
    }
    // SAFETY: the routine may be called anywhere.
    let current = unsafe { sys::KeGetCurrentThread() };
    loop {
        let Some(locked) = list.lock() else { continue };
        let running = locked.nodes().find_map(|node| {
            // SAFETY: the nodes of these lists are the first fields of headers, which are alive while they are in the list. The list is locked.
            let header = unsafe { &*node.cast::<Header>() };
            // SAFETY: as above, and a packet that is in a list was returned by `spawn`.
            let thread = unsafe { thread(NonNull::from(header)) };
            (thread.as_raw() != current.cast() && !has_ended(header)).then(|| thread.clone())
        });
        drop(locked);
        // The packet may be freed meanwhile by its handle, so the thread is waited for through a reference of our own.
        let Some(thread) = running else { return };
        // SAFETY: the reference keeps the thread throughout the wait.
        unsafe { wait::wait_uninterrupted(thread.as_raw().cast()) };
    }
}

/// Drops a packet's result, which stays behind as `None`.
///
/// # Safety
/// The header is that of a `Packet<T>` that is alive and whose thread has ended. Nobody else uses its result.
unsafe fn empty<T>(header: NonNull<Header>) {
    // SAFETY: by this function's contract; the place is only pointed to.
    let result = unsafe { &raw mut (*header.cast::<Packet<T>>().as_ptr()).result };
    // SAFETY: by this function's contract. It is taken out first, because its destructor may join this very packet, which frees it.
    let result = unsafe { &mut *result.cast::<Option<T>>() }.take();
    drop(result);
}

/// Waits for all threads of a list and drops their results, those of threads included that such a drop starts.
///
/// The packets stay until all of that is done, because a result may hold handles.
///
/// # Safety
/// Only results, and threads of the list, have handles to its packets.
pub(crate) unsafe fn drop_results(list: &List) {
    /// Goes on if a destructor unwinds, which it can do hosted.
    struct Rest<'a>(&'a List);
    impl Drop for Rest<'_> {
        fn drop(&mut self) {
            // SAFETY: by the contract of `drop_results`.
            unsafe { drop_results(self.0) };
        }
    }
    loop {
        wait_for_all(list);
        let Some(locked) = list.lock() else { continue };
        let found = locked.nodes().find(|node| {
            // SAFETY: the nodes of these lists are the first fields of headers, which are alive while they are in the list. The list is locked.
            let header = unsafe { &*node.cast::<Header>() };
            !header.emptied.replace(true)
        });
        drop(locked);
        // The list's own pointer is one to all of the packet. A reference to the header would not be.
        let Some(header) = found.and_then(|node| NonNull::new(node.cast::<Header>())) else { return };
        let rest = Rest(list);
        // SAFETY: the packet is alive, because only this thread runs code that has handles. Its thread has ended.
        let empty = unsafe { (*header.as_ptr()).empty };
        // SAFETY: as above; the flag was set just now, so that the result is dropped here only.
        unsafe { empty(header) };
        core::mem::forget(rest);
    }
}

/// Frees all packets of a list.
///
/// # Safety
/// All their threads have ended, and no handle to any of them is left.
pub(crate) unsafe fn free_all(list: &List) {
    free_where(list, |_| true);
}
