//! Executive resources.
//!
//! [`ResourceLocked`] is over `ERESOURCE`: a lock that waits, for one writer or many readers, with a say in who goes first. Choose it where long reads are many and writes few, and where
//! its queries or conversions are needed; [`PushLocked`](super::PushLocked) is smaller and faster.
//!
//! 1. The routines ask for a critical region around them, which this lock enters and leaves by itself.
//! 2. NT lets a holder take the resource again, in either way. Two exclusive guards would make two `&mut` to the data, and a shared one beside an exclusive one is as bad; an exclusive one
//!    on top of a shared one waits for itself. All three are errors here. A thread may hold it shared several times.
//! 3. An `ERESOURCE` is 104 bytes on 64-bit Windows. Some translations of the headers say 96.
//! 4. It is linked into a list of the system's until it is deleted, which takes `<= APC_LEVEL`. A boxed one that is dropped above is leaked.
//!
//! Over [`ERESOURCE`](ksync_sys::ERESOURCE), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-eresource-routines). All
//! versions of Windows have it.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use ksync_sys as sys;

use super::backend::{Backend, Blocking, Exclusive, SendAndSync, Shared};
use super::guard::{LockedGuard, SharedGuard};
use super::locked::{Locked, PinnedLocked};
use super::placement::Boxed;
use super::report;
use crate::error::{NtError, Result, check};
use crate::irql::{self, Irql};

/// Data under an executive resource, in a form that can be moved.
///
/// # IRQL
/// `<= APC_LEVEL`; acquiring and releasing leave the level alone. Normal kernel APCs are held back while the resource is held.
///
/// # Examples
/// ```
/// use ksync::mutex::ResourceLocked;
///
/// # ksim::Machine::new().run(|| {
/// let names = ResourceLocked::new(vec!["Ada"]).unwrap();
/// names.lock().unwrap().push("Grace");
/// let (one, two) = (names.lock_shared().unwrap(), names.lock_shared().unwrap());
/// assert_eq!((one[0], two[1]), ("Ada", "Grace"));
/// # drop(one); drop(two); }).expect_clean();
/// ```
pub type ResourceLocked<T> = Locked<T, Resource>;

/// The name under which an earlier library had [`ResourceLocked`] in its readme.
#[deprecated = "it is spelt `ResourceLocked`"]
pub type ResouceLocked<T> = ResourceLocked<T>;

/// Data under an executive resource, in place. See [`ResourceLocked`].
pub type PinnedResourceLocked<T> = PinnedLocked<T, Resource>;

/// The exclusive guard of [`ResourceLocked`].
pub type ResourceLockedGuard<'a, T> = LockedGuard<'a, T, Resource>;

/// The shared guard of [`ResourceLocked`].
pub type ResourceSharedGuard<'a, T> = SharedGuard<'a, T, Resource>;

/// The [backend](Backend) of [`ResourceLocked`].
#[derive(Debug)]
pub enum Resource {}

/// An executive resource, and how often it is held.
#[derive(Debug)]
// The resource first, so that the lock's address is the resource's.
#[repr(C)]
pub struct ResourceState {
    resource: UnsafeCell<sys::ERESOURCE>,
    /// How many shared acquisitions there are, those included whose guards were forgotten, and those that are being tried.
    shared: AtomicU32,
}

/// How many shared acquisitions there may be. NT counts those of a thread in 29 bits, and takes a thread for no owner any more if that runs over.
const MOST_SHARED: u32 = 1 << 28;

impl ResourceState {
    /// The resource.
    fn get(&self) -> *mut sys::ERESOURCE {
        self.resource.get()
    }

    /// Counts a shared acquisition.
    ///
    /// # Errors
    /// [`NtError::MUTANT_LIMIT_EXCEEDED`] if there are as many as may be. It was not counted.
    #[inline]
    fn count_shared(&self) -> Result {
        if self.shared.fetch_add(1, Ordering::Relaxed) < MOST_SHARED {
            return Ok(());
        }
        self.uncount_shared();
        Err(NtError::MUTANT_LIMIT_EXCEEDED)
    }

    /// Takes a shared acquisition off the count.
    #[inline]
    fn uncount_shared(&self) {
        self.shared.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells whether the current thread holds the resource exclusively.
    #[inline]
    fn is_mine_exclusively(&self) -> bool {
        // SAFETY: the resource is initialised. IRQL: at most `DISPATCH_LEVEL`, as the callers checked.
        (unsafe { sys::ExIsResourceAcquiredExclusiveLite(self.get()) }) != sys::FALSE
    }

    /// How often the current thread holds the resource, in either way.
    #[inline]
    fn mine(&self) -> u32 {
        // SAFETY: the resource is initialised. IRQL: at most `DISPATCH_LEVEL`, as the callers checked.
        unsafe { sys::ExIsResourceAcquiredSharedLite(self.get()) }
    }

    /// Enters a critical region and acquires by a closure, or leaves the region if that fails.
    ///
    /// The caller is at `<= APC_LEVEL`.
    #[inline]
    fn acquire(&self, wait: bool, acquire: impl FnOnce(*mut sys::ERESOURCE, sys::BOOLEAN) -> sys::BOOLEAN) -> Result {
        // SAFETY: IRQL: the caller's.
        unsafe { sys::KeEnterCriticalRegion() };
        if acquire(self.get(), wait.into()) != sys::FALSE {
            return Ok(());
        }
        // SAFETY: the region was entered above. IRQL: the caller's.
        unsafe { sys::KeLeaveCriticalRegion() };
        Err(NtError::LOCK_NOT_GRANTED)
    }

    /// Acquires exclusively.
    #[inline]
    fn acquire_exclusive(&self, wait: bool) -> Result {
        irql::require_at_most(Irql::APC)?;
        if self.mine() != 0 {
            return Err(if wait { NtError::WOULD_DEADLOCK } else { NtError::LOCK_NOT_GRANTED });
        }
        self.acquire(wait, |resource, wait| {
            // SAFETY: the resource is initialised, and normal kernel APCs are held back. IRQL: checked.
            unsafe { sys::ExAcquireResourceExclusiveLite(resource, wait) }
        })
    }

    /// Acquires shared, in one of the three ways.
    #[inline]
    fn acquire_shared(&self, way: Way, wait: bool) -> Result {
        irql::require_at_most(Irql::APC)?;
        let refused = match way {
            Way::Ordinary | Way::StarveExclusive => self.is_mine_exclusively(),
            // This one waits for an exclusive waiter even if that waits for the caller.
            Way::WaitForExclusive => self.mine() != 0,
        };
        if refused {
            return Err(if wait { NtError::WOULD_DEADLOCK } else { NtError::LOCK_NOT_GRANTED });
        }
        self.count_shared()?;
        let acquired = self.acquire(wait, |resource, wait| match way {
            // SAFETY: the resource is initialised, and normal kernel APCs are held back. IRQL: checked.
            Way::Ordinary => unsafe { sys::ExAcquireResourceSharedLite(resource, wait) },
            // SAFETY: as above.
            Way::StarveExclusive => unsafe { sys::ExAcquireSharedStarveExclusive(resource, wait) },
            // SAFETY: as above.
            Way::WaitForExclusive => unsafe { sys::ExAcquireSharedWaitForExclusive(resource, wait) },
        });
        if acquired.is_err() {
            self.uncount_shared();
        }
        acquired
    }

    /// Releases once and leaves the critical region. Returns whether it did: the level may not admit it.
    ///
    /// # Safety
    /// The current thread holds the resource by [`acquire`](Self::acquire).
    #[inline]
    unsafe fn release(&self) -> bool {
        if irql::require_at_most(Irql::APC).is_err() {
            report::not_released(Resource::NAME, core::ptr::from_ref(self).cast());
            return false;
        }
        // SAFETY: the current thread holds the resource and is in the region. IRQL: checked.
        unsafe { sys::ExReleaseResourceLite(self.get()) };
        // SAFETY: the region was entered at the acquisition. IRQL: checked.
        unsafe { sys::KeLeaveCriticalRegion() };
        true
    }
}

/// A way to acquire shared.
#[derive(Clone, Copy)]
enum Way {
    /// After exclusive waiters, unless the caller holds it shared already.
    Ordinary,
    /// Before exclusive waiters.
    StarveExclusive,
    /// After exclusive waiters.
    WaitForExclusive,
}

// SAFETY: clause by clause:
// 1, 2: the resource excludes and orders. Recursion that would make a second exclusive access is refused, and so are so many shared acquisitions that NT could not count them.
// 3, 4: levels and holders are checked before anything is done, and a region that was entered in vain is left.
// 5: there is no guard state; regions are counters.
// 6: a resource that is held points to nobody who waits for it except while they borrow the lock; owners are known by number.
// 7: boxed or pinned.
// 8: nothing here unwinds but the kernel's own routines.
unsafe impl Backend for Resource {
    type State = ResourceState;
    type GuardState = ();
    type Placement = Boxed;
    type Sharing = SendAndSync;

    const NAME: &'static str = "ResourceLocked";

    unsafe fn init(state: *mut ResourceState) -> Result {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: the memory is nonpaged and valid for writes, and stays where it is. IRQL: checked.
        check(unsafe { sys::ExInitializeResourceLite(state.cast()) })?;
        // SAFETY: the pointer is valid for writes.
        let shared = unsafe { &raw mut (*state).shared };
        // SAFETY: as above.
        unsafe { shared.write(AtomicU32::new(0)) };
        Ok(())
    }

    #[inline]
    unsafe fn unlock(state: *mut ResourceState, (): ()) {
        // SAFETY: the state is valid, and all of it can be shared.
        let state = unsafe { &*state };
        // SAFETY: the current thread holds the resource exclusively.
        unsafe { state.release() };
    }

    unsafe fn is_locked(state: *const ResourceState) -> bool {
        // SAFETY: the state is valid, and all of it can be shared.
        let resource = unsafe { &*state }.get();
        // SAFETY: the resource is initialised.
        let active = unsafe { &raw const (*resource).ActiveCount };
        // Others may change the count meanwhile, under the resource's own spin lock.
        // SAFETY: as above; the read is volatile because of that.
        unsafe { active.read_volatile() != 0 }
    }

    unsafe fn deinit(state: *mut ResourceState) -> Result {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: the state is valid, and all of it can be shared.
        let state = unsafe { &*state };
        // A holder that forgot its guard is let go of, if it is this thread. Nobody else can.
        for _ in 0..state.mine() {
            // SAFETY: the current thread holds the resource this often, each time by `acquire`.
            unsafe { state.release() };
        }
        // SAFETY: the state is valid.
        if unsafe { Self::is_locked(state) } {
            return Err(NtError::INVALID_DEVICE_STATE);
        }
        // SAFETY: the resource is initialised and free, and nobody uses it any more. IRQL: checked.
        check(unsafe { sys::ExDeleteResourceLite(state.get()) }).map(|_| ())
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Resource {
    #[inline]
    unsafe fn lock(state: *mut ResourceState) -> Result {
        // SAFETY: the state is valid, and all of it can be shared.
        unsafe { &*state }.acquire_exclusive(true)
    }

    #[inline]
    unsafe fn try_lock(state: *mut ResourceState) -> Result {
        // SAFETY: the state is valid, and all of it can be shared.
        unsafe { &*state }.acquire_exclusive(false)
    }
}

// SAFETY: as above; shared owners are many, and exclude an exclusive one.
unsafe impl Shared for Resource {
    type SharedState = ();

    #[inline]
    unsafe fn lock_shared(state: *mut ResourceState) -> Result {
        // SAFETY: the state is valid, and all of it can be shared.
        unsafe { &*state }.acquire_shared(Way::Ordinary, true)
    }

    #[inline]
    unsafe fn try_lock_shared(state: *mut ResourceState) -> Result {
        // SAFETY: the state is valid, and all of it can be shared.
        unsafe { &*state }.acquire_shared(Way::Ordinary, false)
    }

    #[inline]
    unsafe fn unlock_shared(state: *mut ResourceState, (): ()) {
        // SAFETY: the state is valid, and all of it can be shared.
        let state = unsafe { &*state };
        // SAFETY: the current thread holds the resource shared.
        if unsafe { state.release() } {
            state.uncount_shared();
        }
    }
}

// SAFETY: a resource is acquired at levels at which waiting is legal, and leaves the level alone; critical regions do not forbid waiting.
unsafe impl Blocking for Resource {}

impl<T: ?Sized> PinnedLocked<T, Resource> {
    /// The resource's state, shared.
    fn resource(&self) -> &ResourceState {
        // SAFETY: the state is valid as long as the lock is, and all of it can be shared.
        unsafe { &*self.state() }
    }

    /// Acquires in one of the shared ways.
    fn shared(&self, way: Way, wait: bool) -> Result<SharedGuard<'_, T, Resource>> {
        self.resource().acquire_shared(way, wait)?;
        // SAFETY: the resource was acquired shared.
        Ok(unsafe { SharedGuard::new(self, ()) })
    }

    /// Acquires the resource for reading, before threads that wait to write.
    ///
    /// For short reads that must not wait behind a writer who waits for a long read. Many of these can keep writers out for ever.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// As [`lock_shared`](Self::lock_shared).
    ///
    /// # Examples
    /// ```
    /// # ksim::Machine::new().run(|| {
    /// let lock = ksync::mutex::ResourceLocked::new(5).unwrap();
    /// assert_eq!(*lock.lock_shared_starve_exclusive().unwrap(), 5);
    /// assert_eq!(*lock.lock_shared_wait_for_exclusive().unwrap(), 5);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAcquireSharedStarveExclusive`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquiresharedstarveexclusive).
    #[doc(alias = "ExAcquireSharedStarveExclusive")]
    pub fn lock_shared_starve_exclusive(&self) -> Result<SharedGuard<'_, T, Resource>> {
        self.shared(Way::StarveExclusive, true)
    }

    /// Acquires the resource for reading before threads that wait to write, if that takes no waiting.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// As [`try_lock_shared`](Self::try_lock_shared).
    #[doc(alias = "ExAcquireSharedStarveExclusive")]
    pub fn try_lock_shared_starve_exclusive(&self) -> Result<SharedGuard<'_, T, Resource>> {
        self.shared(Way::StarveExclusive, false)
    }

    /// Acquires the resource for reading, after threads that wait to write.
    ///
    /// [`lock_shared`](Self::lock_shared) lets a thread that reads already in at once, and this does not. So this is refused to such a thread, which would wait for a writer that waits for it.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// As [`lock_shared`](Self::lock_shared), and [`NtError::WOULD_DEADLOCK`] if the caller holds the resource in any way.
    ///
    /// Wraps [`ExAcquireSharedWaitForExclusive`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquiresharedwaitforexclusive).
    #[doc(alias = "ExAcquireSharedWaitForExclusive")]
    pub fn lock_shared_wait_for_exclusive(&self) -> Result<SharedGuard<'_, T, Resource>> {
        self.shared(Way::WaitForExclusive, true)
    }

    /// Acquires the resource for reading, if nobody holds it or waits for it to write.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// As [`try_lock_shared`](Self::try_lock_shared).
    #[doc(alias = "ExAcquireSharedWaitForExclusive")]
    pub fn try_lock_shared_wait_for_exclusive(&self) -> Result<SharedGuard<'_, T, Resource>> {
        self.shared(Way::WaitForExclusive, false)
    }

    /// Tells whether the current thread holds the resource exclusively.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; false above.
    ///
    /// Wraps [`ExIsResourceAcquiredExclusiveLite`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exisresourceacquiredexclusivelite).
    #[doc(alias = "ExIsResourceAcquiredExclusiveLite")]
    #[must_use]
    pub fn is_acquired_exclusive(&self) -> bool {
        irql::current() <= Irql::DISPATCH && self.resource().is_mine_exclusively()
    }

    /// How often the current thread holds the resource, in either way.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; zero above.
    ///
    /// Wraps [`ExIsResourceAcquiredSharedLite`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exisresourceacquiredsharedlite).
    #[doc(alias = "ExIsResourceAcquiredSharedLite")]
    #[must_use]
    pub fn acquired_count(&self) -> u32 {
        if irql::current() > Irql::DISPATCH { 0 } else { self.resource().mine() }
    }

    /// How many threads wait to write. The number may be old by the time it is seen.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; zero above.
    ///
    /// Wraps [`ExGetExclusiveWaiterCount`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exgetexclusivewaitercount).
    #[doc(alias = "ExGetExclusiveWaiterCount")]
    #[must_use]
    pub fn exclusive_waiters(&self) -> u32 {
        if irql::current() > Irql::DISPATCH {
            return 0;
        }
        // SAFETY: the resource is initialised. IRQL: checked.
        unsafe { sys::ExGetExclusiveWaiterCount(self.resource().get()) }
    }

    /// How many threads wait to read. The number may be old by the time it is seen.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; zero above.
    ///
    /// Wraps [`ExGetSharedWaiterCount`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exgetsharedwaitercount).
    #[doc(alias = "ExGetSharedWaiterCount")]
    #[must_use]
    pub fn shared_waiters(&self) -> u32 {
        if irql::current() > Irql::DISPATCH {
            return 0;
        }
        // SAFETY: the resource is initialised. IRQL: checked.
        unsafe { sys::ExGetSharedWaiterCount(self.resource().get()) }
    }
}

impl<'a, T: ?Sized> LockedGuard<'a, T, Resource> {
    /// Turns exclusive access into shared, and lets all threads in that wait to read. Nobody writes in between.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// The guard, at a higher level.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::{LockedGuard, ResourceLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = ResourceLocked::new(1).unwrap();
    /// let mut guard = lock.lock().unwrap();
    /// *guard = 2;
    /// let shared = LockedGuard::downgrade(guard).unwrap();
    /// assert_eq!(*shared + *lock.lock_shared().unwrap(), 4);
    /// # drop(shared); }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExConvertExclusiveToSharedLite`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exconvertexclusivetosharedlite).
    #[doc(alias = "ExConvertExclusiveToSharedLite")]
    pub fn downgrade(guard: Self) -> Result<SharedGuard<'a, T, Resource>, Self> {
        if irql::current() > Irql::APC {
            return Err(guard);
        }
        let (lock, ()) = Self::into_parts(guard);
        let resource = lock.resource();
        // There may be one more than are admitted: it is counted among those of NT's already.
        resource.shared.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the resource is held exclusively, once, by the guard given up above. IRQL: checked.
        unsafe { sys::ExConvertExclusiveToSharedLite(resource.get()) };
        // SAFETY: the resource is held shared now, and the region goes along.
        Ok(unsafe { SharedGuard::new(lock, ()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_cannot_be_counted_are_refused() {
        let test = || -> Result {
            let lock = ResourceLocked::new(())?;
            let shared = &lock.resource().shared;
            // As if so many guards had been forgotten.
            shared.store(MOST_SHARED - 1, Ordering::Relaxed);
            let last = lock.lock_shared()?;
            let refused = NtError::MUTANT_LIMIT_EXCEEDED;
            assert_eq!(lock.lock_shared().map(drop), Err(refused));
            assert_eq!(lock.try_lock_shared().map(drop), Err(refused));
            assert_eq!(lock.lock_shared_starve_exclusive().map(drop), Err(refused));
            drop(last);
            drop(lock.lock_shared()?);
            shared.store(0, Ordering::Relaxed);
            // What comes and goes leaves no trace.
            let downgraded = LockedGuard::downgrade(lock.lock()?).map_err(|_| NtError::UNSUCCESSFUL)?;
            assert_eq!(lock.try_lock_shared_wait_for_exclusive().map(drop), Err(NtError::LOCK_NOT_GRANTED));
            drop((downgraded, lock.try_lock_shared()?));
            assert_eq!(shared.load(Ordering::Relaxed), 0);
            Ok(())
        };
        ksim::Machine::new().run(|| assert_eq!(test(), Ok(()))).expect_clean();
    }
}
