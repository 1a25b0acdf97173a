//! What a lock is made of: the contract between [`PinnedLocked`](super::PinnedLocked) and an NT lock.

use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use ksync_sys as sys;

use super::placement::{Inline, Placement};
use crate::error::{NtError, Result};

/// An NT lock that can guard data.
///
/// A type that implements this is a name without values: the lock itself is its [`State`](Self::State), which lies beside the data that it guards. All
/// operations take a raw pointer to the state, because while one thread is inside an operation others are inside theirs. How the lock is acquired is said by
/// [`Exclusive`], by [`Shared`], or by methods of the particular lock.
///
/// # Safety
/// The implementor promises, and [`PinnedLocked`](super::PinnedLocked) and its guards rely on it:
/// 1. *Exclusion.* From the return of a successful acquisition to the call of [`unlock`](Self::unlock) with the guard state that it returned, no other
///    acquisition of the same state succeeds, on any thread or processor, nor on the same one. A recursive acquisition fails or never returns. ([`Shared`] weakens this for
///    shared acquisitions among themselves.)
/// 2. *Order.* A successful acquisition is an acquire operation and a release is a release operation, and each acquisition synchronizes with the release before it.
/// 3. *Failure does nothing.* An acquisition that returns an error leaves the lock, the thread's region counters and the processor's level as they were.
/// 4. *Errors.* An acquisition or [`init`](Self::init) at a level that the lock does not admit returns [`NtError::IRQL_TOO_HIGH`] (or
///    [`IRQL_TOO_LOW`](NtError::IRQL_TOO_LOW)). It does not panic and does not bug check.
/// 5. *Guard state.* Acquisitions return what their release needs, and the lock keeps nothing that belongs to an acquisition where a later acquisition could
///    overwrite it. Releases of several locks by one thread may come in any order; what is then left of levels is said by [`irql`](crate::irql#dropping-out-of-order).
/// 6. *Forgetting.* A guard state that is never given back leaves the lock held for ever, and does nothing else: nothing of the kernel's then points to memory that the borrow
///    of the lock did not keep.
/// 7. *Placement.* If [`Placement`](Self::Placement) is [`Inline`], the state may be moved whenever nobody is inside an operation on it. Otherwise the state stays
///    where it was initialised until [`deinit`](Self::deinit) has succeeded.
/// 8. *Unwinding.* No operation unwinds, except that hosted a blocked acquisition may, when the machine stops; the lock is then not acquired.
/// 9. *Threads.* A state may be initialised, used, moved as far as clause 7 allows, and taken apart from any thread, whatever its type says of itself.
pub unsafe trait Backend: Sized + 'static {
    /// The lock's memory.
    type State;

    /// What a release needs to know of its acquisition, such as the level before it.
    type GuardState: Copy;

    /// Where a lock that can be moved keeps its state: [`Inline`] or [`Boxed`](super::placement::Boxed).
    type Placement: Placement;

    /// What the data must be so that threads may share the lock: [`SendOnly`] or [`SendAndSync`].
    type Sharing;

    /// What reports call the lock.
    const NAME: &'static str;

    /// Initialises the state as free.
    ///
    /// # Errors
    /// A state that could not be initialised is not a state; nothing is left to undo.
    ///
    /// # Safety
    /// The pointer is valid for writes and aligned, and points to nonpaged memory that holds no state. On success it is a state from now on, under clause 7 of
    /// [the trait](Self).
    unsafe fn init(state: *mut Self::State) -> Result;

    /// Releases an acquisition.
    ///
    /// A release that the present level does not admit leaves the lock held and reports it.
    ///
    /// # Safety
    /// The state is valid and held by the acquisition that returned `guard`, which is released only once, on the same thread, or on the same processor if the
    /// acquisition raised to `DISPATCH_LEVEL`.
    unsafe fn unlock(state: *mut Self::State, guard: Self::GuardState);

    /// Tells whether someone holds the lock, in any way. The answer may be old by the time it is seen, unless the caller has the state to itself.
    ///
    /// # Safety
    /// The state is valid.
    unsafe fn is_locked(state: *const Self::State) -> bool;

    /// Undoes the initialisation, so that the memory can be used for something else.
    ///
    /// # Errors
    /// If the kernel still links to the state and cannot be made not to: because the level does not admit it, or because someone who forgot a guard holds
    /// the lock. The state is then still one, and its memory must be leaked.
    ///
    /// # Safety
    /// The state is valid and the caller's alone: no guard state will be given back. On success it is no state any more.
    unsafe fn deinit(state: *mut Self::State) -> Result {
        let _ = state;
        Ok(())
    }
}

/// A lock that is acquired for one holder, by a call that needs nothing but the lock.
///
/// # Safety
/// As for [`Backend`], whose clauses speak of the acquisitions here.
pub unsafe trait Exclusive: Backend {
    /// Acquires the lock, waiting or spinning as long as it takes.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] as [`Backend`] says.
    /// - [`NtError::WOULD_DEADLOCK`] if the caller holds the lock and this can be told.
    ///
    /// # Safety
    /// The state is valid and stays so until the release.
    unsafe fn lock(state: *mut Self::State) -> Result<Self::GuardState>;

    /// Acquires the lock if that takes no waiting.
    ///
    /// # Errors
    /// - [`NtError::LOCK_NOT_GRANTED`] if someone holds it, the caller included.
    /// - [`NtError::IRQL_TOO_HIGH`] as [`Backend`] says.
    ///
    /// # Safety
    /// As [`lock`](Self::lock).
    unsafe fn try_lock(state: *mut Self::State) -> Result<Self::GuardState>;
}

/// A lock that several can hold at once for reading.
///
/// # Safety
/// As for [`Backend`], and in addition:
/// - an exclusive and a shared acquisition exclude each other as two exclusive ones do; shared ones do not exclude each other;
/// - [`Backend::Sharing`] is [`SendAndSync`].
pub unsafe trait Shared: Exclusive {
    /// What the release of a shared acquisition needs to know.
    type SharedState: Copy;

    /// Acquires the lock for reading, waiting or spinning as long as it takes.
    ///
    /// # Errors
    /// As [`Exclusive::lock`].
    ///
    /// # Safety
    /// As [`Exclusive::lock`].
    unsafe fn lock_shared(state: *mut Self::State) -> Result<Self::SharedState>;

    /// Acquires the lock for reading if that takes no waiting.
    ///
    /// # Errors
    /// As [`Exclusive::try_lock`].
    ///
    /// # Safety
    /// As [`Exclusive::lock`].
    unsafe fn try_lock_shared(state: *mut Self::State) -> Result<Self::SharedState>;

    /// Releases a shared acquisition.
    ///
    /// # Safety
    /// As [`Backend::unlock`], for a shared acquisition.
    unsafe fn unlock_shared(state: *mut Self::State, guard: Self::SharedState);
}

/// A lock whose free state is a constant, so that it can be made at compile time.
///
/// # Safety
/// [`FREE`](Self::FREE) is a state as [`Backend::init`] makes it.
#[diagnostic::on_unimplemented(
    message = "a `{Self}` lock cannot be made at compile time",
    note = "the kernel links to it, so it is initialised where it stays: see `new` and `pin_init`"
)]
pub unsafe trait ConstInit: Backend<Placement = Inline> {
    /// The free state.
    const FREE: Self::State;
}

/// A lock whose holder may wait for something else, and which itself waits rather than spins.
///
/// # Safety
/// Waiting for an event at the level at which the lock is acquired is legal while it is held, and while it is not.
#[diagnostic::on_unimplemented(
    message = "nobody may wait while a `{Self}` lock is held",
    note = "locks that spin keep the processor at `DISPATCH_LEVEL`; fast and guarded mutexes and `KMutex` may be held by a thread that waits"
)]
pub unsafe trait Blocking: Exclusive {}

/// In [`Backend::Sharing`]: one holder at a time has the data, so data that can be sent can be shared.
#[derive(Debug)]
pub enum SendOnly {}

/// In [`Backend::Sharing`]: several have the data at once, so it must be fit for both.
#[derive(Debug)]
pub enum SendAndSync {}

/// Whether data is fit to be shared under a lock.
///
/// # Safety
/// If [`SendOnly`] implements it for a type, that type is `Send`; if [`SendAndSync`] does, it is `Send` and `Sync`.
#[diagnostic::on_unimplemented(
    message = "threads cannot share `{T}` under this lock",
    note = "a lock for one holder at a time needs data that is `Send`, a lock with readers needs data that is `Send` and `Sync`"
)]
pub unsafe trait Sharing<T: ?Sized> {}

// SAFETY: as the bounds say.
unsafe impl<T: ?Sized + Send> Sharing<T> for SendOnly {}
// SAFETY: as the bounds say.
unsafe impl<T: ?Sized + Send + Sync> Sharing<T> for SendAndSync {}

/// Who holds a lock exclusively, as far as the lock's own code tells: what makes recursion an error rather than a hang.
///
/// The holder alone writes its own thread's address here, after it acquired and before it releases. So a thread that reads its own address does hold the lock,
/// and one that does not hold it never reads its own. What others read means nothing. Hence `Relaxed` everywhere.
#[repr(transparent)]
pub(super) struct Owner(AtomicPtr<sys::KTHREAD>);

impl Owner {
    /// Nobody.
    pub(super) const fn nobody() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// Notes the current thread, which has acquired the lock.
    #[inline]
    pub(super) fn set(&self, thread: *mut sys::KTHREAD) {
        self.0.store(thread, Ordering::Relaxed);
    }

    /// Notes that nobody holds the lock, before the current thread releases it.
    #[inline]
    pub(super) fn clear(&self) {
        self.0.store(core::ptr::null_mut(), Ordering::Relaxed);
    }

    /// Tells whether a thread, which must be the current one, holds the lock.
    #[inline]
    pub(super) fn is(&self, thread: *mut sys::KTHREAD) -> bool {
        // A null thread is none: a hosted processor that was idle has no thread when its DPCs run. (NT has an idle thread there.)
        !thread.is_null() && self.0.load(Ordering::Relaxed) == thread
    }

    /// Tells whether anybody does.
    #[inline]
    pub(super) fn is_somebody(&self) -> bool {
        !self.0.load(Ordering::Relaxed).is_null()
    }

    /// Returns the current thread if it does not hold the lock.
    ///
    /// # Errors
    /// [`NtError::WOULD_DEADLOCK`] if it does.
    #[inline]
    pub(super) fn refuse_recursion(&self) -> Result<*mut sys::KTHREAD> {
        let thread = current_thread();
        if self.is(thread) { Err(NtError::WOULD_DEADLOCK) } else { Ok(thread) }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The current thread's object. In a DPC, that of the thread that was interrupted.
#[inline]
pub(super) fn current_thread() -> *mut sys::KTHREAD {
    // SAFETY: the routine reads a word of the processor's; it asks nothing of its caller.
    unsafe { sys::KeGetCurrentThread() }
}
