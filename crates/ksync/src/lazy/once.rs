//! Running an initialiser once: what [`OnceLock`](super::OnceLock) and [`LazyLock`](super::LazyLock) are made of.
//!
//! The state is one word. Its two low bits say how far things are; the rest is the address of the thread that came last to wait, whose node points to the one before.
//! ```text
//!               call                      success
//! INCOMPLETE -----------------> RUNNING ----------> COMPLETE
//!     ^                           |
//!     '---------------------------'  failure, or a panic
//! ```
//! A node lies in the frame of the thread that waits, with an event of its own. Nodes are pushed one by one, and leave all at once when the one who ran the initialiser takes the word's pointer: it
//! alone walks them, and wakes each. Those who still have no value then look again.
//!
//! NT's own `RtlRunOnceExecuteOnce` is not used: it may be called at `<= APC_LEVEL` only, even where there is a value, and whoever calls it again from within waits for himself.

use core::cell::Cell;
use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use ksync_sys as sys;

use crate::error::{NtError, Result};
use crate::event::{EventProperty, PinnedEvent};
use crate::init::stack_try_pin_init;
use crate::irql::{self, Irql};
use crate::wait::Dispatchable;

/// Nobody has run an initialiser with success, and nobody runs one.
const INCOMPLETE: usize = 0b00;
/// Somebody runs an initialiser.
const RUNNING: usize = 0b01;
/// An initialiser has succeeded. There are no waiters any more.
const COMPLETE: usize = 0b10;
/// The bits of the above.
const PROGRESS: usize = 0b11;

/// Whether an initialiser has run, and who waits for it.
///
/// # Invariants
/// - The nodes that can be reached from the state's pointer are in the frames of [`sleep`](Self::sleep)s that have not returned.
/// - In `COMPLETE`, an initialiser has returned with success, and what it wrote is visible to who reads the state with `Acquire`.
pub(super) struct Once {
    state: AtomicPtr<Waiter>,
    /// The thread that runs the initialiser, as [`mutex`](crate::mutex)'s locks note their owner: a thread that reads its own address is it.
    runner: AtomicPtr<sys::KTHREAD>,
}

/// A thread that waits.
#[derive(Debug)]
#[repr(align(8))]
struct Waiter {
    /// Signaled when it may look again. It is valid until then.
    event: *const PinnedEvent,
    /// Set before the event is.
    woken: AtomicBool,
    /// The one that came before.
    next: Cell<*const Waiter>,
}

const _: () = assert!(align_of::<Waiter>() > PROGRESS, "the low bits of a node's address are free");

/// A run of an initialiser. It ends when this is dropped, also by the unwinding of a panic, which leaves it without success.
struct Running<'a> {
    once: &'a Once,
    outcome: usize,
}

impl Once {
    /// Nothing has been run.
    pub(super) const fn new() -> Self {
        // INVARIANT: there are no nodes.
        Self { state: AtomicPtr::new(ptr::null_mut()), runner: AtomicPtr::new(ptr::null_mut()) }
    }

    /// An initialiser has run.
    ///
    /// The caller answers for there being what it would have written.
    pub(super) const fn completed() -> Self {
        Self { state: AtomicPtr::new(progress(COMPLETE)), runner: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Tells whether an initialiser has run with success. If so, what it wrote is visible.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.state.load(Ordering::Acquire).addr() == COMPLETE
    }

    /// Tells the same to a caller that has this to itself.
    #[inline]
    pub(super) fn is_complete_mut(&mut self) -> bool {
        self.state.get_mut().addr() == COMPLETE
    }

    /// Forgets that an initialiser has run. Returns whether one had.
    ///
    /// A caller that does not have this to itself makes sure that nobody relies on the answer of before.
    pub(super) fn reset(&self) -> bool {
        self.state.compare_exchange(progress(COMPLETE), progress(INCOMPLETE), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Runs an initialiser, unless one has run with success or is running and then does: then it returns without.
    ///
    /// # Errors
    /// Those of the initialiser, and
    /// - [`NtError::IRQL_TOO_HIGH`] if there is something to run and the level is above `highest`, or something to wait for and it is above `APC_LEVEL`.
    /// - [`NtError::WOULD_DEADLOCK`] if the present thread runs an initialiser here already.
    #[cold]
    pub(super) fn call<E: From<NtError>>(&self, highest: Irql, run: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            match state.addr() & PROGRESS {
                COMPLETE => return Ok(()),
                INCOMPLETE => {
                    irql::require_at_most(highest)?;
                    match self.begin(state) {
                        Ok(running) => return running.run(run),
                        Err(now) => state = now,
                    }
                }
                _ => {
                    self.sleep(RUNNING)?;
                    state = self.state.load(Ordering::Acquire);
                }
            }
        }
    }

    /// Waits until an initialiser has run with success.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    #[cold]
    pub(super) fn wait(&self) -> Result {
        loop {
            match self.state.load(Ordering::Acquire).addr() & PROGRESS {
                COMPLETE => return Ok(()),
                at => self.sleep(at)?,
            }
        }
    }

    /// Goes from `INCOMPLETE` to `RUNNING`.
    ///
    /// # Errors
    /// The state, if it is not the given one any more.
    fn begin(&self, state: *mut Waiter) -> Result<Running<'_>, *mut Waiter> {
        // No APC comes between the two writes: one that waited here would not be told from another thread, and would wait for what it has interrupted.
        let _raised = irql::raise_again(Irql::APC);
        let running = state.map_addr(|address| address | RUNNING);
        self.state.compare_exchange_weak(state, running, Ordering::Acquire, Ordering::Acquire)?;
        self.runner.store(current_thread(), Ordering::Relaxed);
        Ok(Running { once: self, outcome: INCOMPLETE })
    }

    /// Sleeps until it is worth looking again, which is at once if the state has left `at`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn sleep(&self, at: usize) -> Result {
        irql::require_at_most(Irql::APC)?;
        if self.runner.load(Ordering::Relaxed) == current_thread() {
            return Err(NtError::WOULD_DEADLOCK);
        }
        stack_try_pin_init!(let event = PinnedEvent::pin_init(EventProperty::Notification, false));
        let event = event?.into_ref();
        let waiter = Waiter { event: &raw const *event, woken: AtomicBool::new(false), next: Cell::new(ptr::null()) };
        let queued = (&raw const waiter).cast_mut().map_addr(|address| address | at);
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state.addr() & PROGRESS != at {
                return Ok(());
            }
            waiter.next.set(state.map_addr(|address| address & !PROGRESS));
            // INVARIANT: this function returns after the node has left the queue, which is when it is woken; see below.
            match self.state.compare_exchange_weak(state, queued, Ordering::Release, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // A wait in kernel mode that is not alertable and has no limit ends with the signal only. Hosted, it also ends at once where a panic unwinds: then no other thread
        // of the machine runs any more, but what the unwinding drops later may use the cell again.
        let result = event.wait().ok();
        if waiter.woken.load(Ordering::Acquire) {
            return result.map(drop);
        }
        // INVARIANT: the node leaves the queue, in which it is the one that came last, since nobody else came.
        let _ = self.state.compare_exchange(queued, state, Ordering::AcqRel, Ordering::Relaxed);
        Err(NtError::CANCELLED)
    }
}

impl Running<'_> {
    /// Runs the initialiser.
    fn run<E>(mut self, run: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        run()?;
        // INVARIANT: the initialiser has succeeded, and the state is written with `Release` by the drop of `self`.
        self.outcome = COMPLETE;
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let queue = {
            // No APC comes between the two writes, as in `begin`.
            let _raised = irql::raise_again(Irql::APC);
            self.once.runner.store(ptr::null_mut(), Ordering::Relaxed);
            // `Release` for what the initialiser wrote; `Acquire` for the nodes, each of which was pushed with `Release`.
            self.once.state.swap(progress(self.outcome), Ordering::AcqRel)
        };
        let mut next = queue.map_addr(|address| address & !PROGRESS).cast_const();
        // SAFETY: by the type's invariant the node is in a frame that has not returned, and does not before its event is signaled. Nobody else walks the queue, which the swap
        // took.
        while let Some(waiter) = unsafe { next.as_ref() } {
            // Read first: the frame is gone as soon as the event is signaled.
            next = waiter.next.get();
            let event = waiter.event;
            waiter.woken.store(true, Ordering::Release);
            // SAFETY: the event is valid until it is signaled. That a waiter may return while the routine that wakes it does is a thing that the kernel provides for.
            let event = unsafe { &*event };
            // Refused only above `DISPATCH_LEVEL`, where no initialiser is begun. One that raises the level so far and leaves it there has stopped more than those who wait here.
            let _ = event.set_with_increment(sys::EVENT_INCREMENT);
        }
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("complete", &self.is_complete()).finish_non_exhaustive()
    }
}

/// The state without waiters.
const fn progress(progress: usize) -> *mut Waiter {
    ptr::without_provenance_mut(progress)
}

/// The current thread's object. In a DPC, that of the thread that was interrupted.
pub(super) fn current_thread() -> *mut sys::KTHREAD {
    // SAFETY: the routine reads a word of the processor's; it asks nothing of its caller.
    unsafe { sys::KeGetCurrentThread() }
}
