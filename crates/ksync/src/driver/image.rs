//! What is outstanding of the driver's image: threads, timers and DPCs whose code lies in it.
//!
//! An image must not be unloaded while anything can still run in it, forgotten handles included. So every thread and timer is in a list here from its
//! beginning to its end, and [`drain`] goes through them.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use ksync_sys as sys;

use crate::driver::list::{List, Node};
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::{device, dpc, thread, timer, work_item};

/// The state of the image that this code is linked into.
#[derive(Debug)]
pub(crate) struct Image {
    /// The threads that are not a scope's.
    pub(crate) threads: List,
    /// The timers, those being freed included.
    pub(crate) timers: List,
    /// The system's timers with a closure of ours, those being freed included.
    pub(crate) hr_timers: List,
    /// The closures that run once after a delay.
    pub(crate) delayed: List,
    /// Handles that could not be closed where they were dropped.
    pub(crate) handles: List,
    /// The devices.
    pub(crate) devices: List,
    /// The work items.
    pub(crate) work: List,
    /// The closures of work items that run, by their thread.
    pub(crate) working: List,
    /// The routines of threaded DPCs that run, by their thread.
    pub(crate) threaded: List,
    /// The routines for requests that run for devices which are attached to others, by their device.
    pub(crate) requests: List,
    /// How many insertions of threaded DPCs are out: their routines are not over.
    pub(crate) threaded_out: AtomicUsize,
    /// How many requests for a clock tick could not be taken back where they were dropped.
    pub(crate) late_resolutions: AtomicUsize,
    /// How many threads were started, and work items queued, in all.
    pub(crate) started: AtomicUsize,
    /// How many drains are under way. Meanwhile no DPC is queued and no timer set: the image is about to go.
    closing: AtomicUsize,
    /// What the driver's entry returned.
    pub(crate) state: AtomicPtr<()>,
}

// SAFETY: lists that are empty, counts and a null pointer own nothing, so that a copy of them is as good. Each of them may be used from everywhere. Nothing of it
// is aligned to more than 8.
static IMAGE: sys::ImageLocal<Image> = unsafe {
    sys::ImageLocal::new(Image {
        threads: List::new(),
        timers: List::new(),
        hr_timers: List::new(),
        delayed: List::new(),
        handles: List::new(),
        devices: List::new(),
        work: List::new(),
        working: List::new(),
        threaded: List::new(),
        requests: List::new(),
        threaded_out: AtomicUsize::new(0),
        late_resolutions: AtomicUsize::new(0),
        started: AtomicUsize::new(0),
        closing: AtomicUsize::new(0),
        state: AtomicPtr::new(core::ptr::null_mut()),
    })
};

impl Image {
    /// This image's state.
    pub(crate) fn this() -> &'static Self {
        // SAFETY: the pointer is valid for as long as the image is loaded, which is as long as anything runs that could use the reference. All fields may be shared.
        unsafe { &*IMAGE.get() }
    }

    /// Checks that DPCs may still be queued and timers set.
    pub(crate) fn check_open(&self) -> Result {
        if self.closing.load(Ordering::SeqCst) > 0 { Err(NtError::DELETE_PENDING) } else { Ok(()) }
    }

    /// Tells whether the current thread runs the routine of a threaded DPC, where it must not wait.
    pub(crate) fn in_threaded_dpc(&self) -> bool {
        Running::any(&self.threaded, |is_here, _| is_here)
    }
}

/// A routine that runs: a threaded DPC's, or one for a request. It lies on the routine's stack.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Running {
    node: Node,
    thread: *mut sys::KTHREAD,
    of: *const (),
}

impl Running {
    /// Runs `code` as a routine of something, of which a list knows meanwhile.
    pub(crate) fn run<R>(list: &'static List, of: *const (), code: impl FnOnce() -> R) -> R {
        /// Takes the routine off the list, also when it unwinds.
        struct Off<'a>(&'a Running, &'static List);
        impl Drop for Off<'_> {
            fn drop(&mut self) {
                if let Some(mut list) = self.1.lock() {
                    // SAFETY: the node was put into this list below, and is taken out once, here.
                    unsafe { list.remove((&raw const self.0.node).cast_mut()) };
                }
            }
        }
        // SAFETY: the routine may be called anywhere.
        let thread = unsafe { sys::KeGetCurrentThread() };
        let running = Self { node: Node::new(), thread, of };
        // IRQL: the callers are at `DISPATCH_LEVEL` or below.
        let Some(mut locked) = list.lock() else { return code() };
        // The pointer is one to all of it, whose first field the node is: who finds the node looks at the rest.
        // SAFETY: the node is new, and stays in its place until it is taken out below.
        unsafe { locked.insert((&raw const running).cast_mut().cast()) };
        drop(locked);
        let off = Off(&running, list);
        let result = code();
        drop(off);
        result
    }

    /// Tells whether one of the routines that a list knows of is such, by whether it runs in the current thread, and what it is of. Where the list cannot be looked at there may be one.
    pub(crate) fn any(list: &List, such: impl Fn(bool, *const ()) -> bool) -> bool {
        let Some(list) = list.lock() else { return true };
        // SAFETY: the routine may be called anywhere.
        let current = unsafe { sys::KeGetCurrentThread() };
        list.nodes().any(|node| {
            // SAFETY: the nodes of these lists are the first fields of `Running`s, which are valid while they are in it.
            let running = unsafe { &*node.cast::<Running>() };
            such(running.thread == current, running.of)
        })
    }
}

/// A drain that is under way, until this is dropped.
struct Closed<'a>(&'a Image);

impl<'a> Closed<'a> {
    fn new(image: &'a Image) -> Self {
        image.closing.fetch_add(1, Ordering::SeqCst);
        Self(image)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.closing.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until nothing of this image runs, is queued or is armed any more.
///
/// A driver whose entry is [`driver_entry!`](crate::driver_entry) need not call this: its unload routine does. Any other driver calls it as the last thing in its own
/// unload routine, and where its entry fails.
///
/// In this order: it waits for all threads that [`thread::spawn`](crate::thread::spawn) started, detached and forgotten ones included; refuses DPCs, timers and work items from then on; waits for the
/// routines that run for devices which were attached to others and are gone; cancels all timers, and drops what [`delay_run`](crate::timer::delay_run) still delays; waits until the DPCs and the work items that are queued or running are done; waits for the threads that those started meanwhile; and begins anew as long as anything was started meanwhile, by destructors for one. Then it admits all that again, for the case that the image stays, unless another drain is under way: a destructor may
/// drain, too.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// Nothing was done, and the error is
/// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`;
/// - [`NtError::WOULD_DEADLOCK`] in a threaded DPC or in a work item of this image, which would wait for itself.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::{self, this_thread};
///
/// # ksim::Machine::new().run(|| {
/// let thread = thread::spawn(|| this_thread::sleep(Duration::from_secs(1)).unwrap()).unwrap();
/// thread.detach();
/// ksync::driver::drain().unwrap(); // one second later
/// # }).expect_clean();
/// ```
pub fn drain() -> Result {
    irql::require_at_most(Irql::PASSIVE)?;
    let image = Image::this();
    if image.in_threaded_dpc() || work_item::runs_in_this_thread(image) {
        return Err(NtError::WOULD_DEADLOCK);
    }
    thread::drain(image);
    let closed = Closed::new(image);
    loop {
        let started = image.started.load(Ordering::SeqCst);
        device::drain(image);
        // A routine that runs now may have found the image open, and may be about to queue a DPC or to set a timer. After this it has done so.
        dpc::drain(image);
        timer::drain(image);
        work_item::drain(image);
        // Work items and threaded DPCs that ran until now may have started threads. They set no timers and queue nothing, but may have dropped some.
        thread::drain(image);
        timer::drain(image);
        dpc::drain(image);
        // What was dropped meanwhile may have started threads in its destructor, and at a raised level been left to an item, as a device is.
        if image.started.load(Ordering::SeqCst) == started {
            break;
        }
    }
    dpc::leave_threaded(image);
    crate::handle::late::close_all(image);
    drop(closed);
    Ok(())
}
