//! Shares of registered values.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::entry::{Entry, Header};
use super::registry::Registry;
use crate::error::Result;
use crate::mutex::{Exclusive, Locked, LockedGuard};

/// A share of a registered value, which keeps it alive. It dereferences to the value.
///
/// It can be cloned, and sent to other threads. What holds a handle for ever lets [`destroy`](Registry::destroy) wait for ever.
///
/// # Invariants
/// The entry is alive, is one of `registry`'s, and this is one of its users.
///
/// # IRQL
/// Cloned at any level, dropped at `<= DISPATCH_LEVEL`. The last one to be dropped drops the value if its name is gone, at that level. A handle that is dropped at a higher level, where nothing can be
/// freed, is leaked.
///
/// # Examples
/// ```
/// use ksync::grt::Registry;
///
/// # ksim::Machine::new().run(|| {
/// let registry = Registry::new();
/// registry.register("name", 5u32).unwrap();
/// let handle = registry.get::<u32>("name").unwrap();
/// registry.unregister("name").unwrap();
/// assert_eq!(*handle, 5); // still there
/// # }).expect_clean();
/// ```
#[must_use = "a handle is good for nothing but being used"]
pub struct Handle<'r, T> {
    entry: NonNull<Entry<T>>,
    registry: &'r Registry,
    _shares: PhantomData<T>,
}

// SAFETY: handles on several threads share the value, and the last of them, on whichever, drops it.
unsafe impl<T: Send + Sync> Send for Handle<'_, T> {}
// SAFETY: as above; a shared handle can be cloned.
unsafe impl<T: Send + Sync> Sync for Handle<'_, T> {}

impl<'r, T> Handle<'r, T> {
    /// Makes a handle.
    ///
    /// # Safety
    /// The header is that of an entry of this registry whose value is a `T`, and one of its users is handed over.
    pub(super) unsafe fn new(header: NonNull<Header>, registry: &'r Registry) -> Self {
        // INVARIANT: as the caller promises.
        Self { entry: header.cast(), registry, _shares: PhantomData }
    }

    /// The entry but for its value.
    fn header(&self) -> &Header {
        // SAFETY: by the type's invariant the entry is alive, and its header is its beginning.
        unsafe { self.entry.cast::<Header>().as_ref() }
    }

    /// The name under which the value was registered.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::grt::{Handle, Registry};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register("name", 5u32).unwrap();
    /// assert_eq!(Handle::name(&registry.get::<u32>("name").unwrap()), "name");
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn name(handle: &Self) -> &str {
        handle.header().name.as_str()
    }

    /// Tells whether two handles are to the same value.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::grt::{Handle, Registry};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register("name", 5u32).unwrap();
    /// let handle = registry.get::<u32>("name").unwrap();
    /// assert!(Handle::ptr_eq(&handle, &registry.get("name").unwrap()));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn ptr_eq(one: &Self, other: &Self) -> bool {
        one.entry == other.entry
    }
}

impl<'r, T, L: Exclusive> Handle<'r, Locked<T, L>> {
    /// Acquires the lock, waiting or spinning as long as it takes. The guard has a share of the lock of its own, so that the handle need not outlive it.
    ///
    /// To go without that share, call the lock's own method: `(*handle).lock()`.
    ///
    /// # IRQL
    /// That of the lock's own [`lock`](crate::mutex::PinnedLocked::lock).
    ///
    /// # Errors
    /// Those of the lock's own [`lock`](crate::mutex::PinnedLocked::lock).
    ///
    /// # Examples
    /// ```
    /// use ksync::grt::Grt;
    ///
    /// # ksim::Machine::new().run(|| {
    /// Grt::init().unwrap();
    /// Grt::register_kmutex("count", 0u32).unwrap();
    /// let mut lock = Grt::get_kmutex::<u32>("count").unwrap().lock().unwrap();
    /// *lock += 1;
    /// # drop(lock);
    /// # Grt::destroy().unwrap();
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn lock(&self) -> Result<HandleGuard<'r, T, L>> {
        self.acquire(|lock| lock.lock())
    }

    /// Acquires the lock if that takes no waiting. The guard has a share of the lock of its own.
    ///
    /// # IRQL
    /// That of the lock's own [`try_lock`](crate::mutex::PinnedLocked::try_lock).
    ///
    /// # Errors
    /// Those of the lock's own [`try_lock`](crate::mutex::PinnedLocked::try_lock).
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Registry;
    /// use ksync::mutex::FastLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register("name", FastLocked::new(5).unwrap()).unwrap();
    /// let handle = registry.get::<FastLocked<i32>>("name").unwrap();
    /// let guard = handle.try_lock().unwrap();
    /// assert_eq!(handle.try_lock().unwrap_err(), NtError::LOCK_NOT_GRANTED);
    /// # drop(guard); }).expect_clean();
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<HandleGuard<'r, T, L>> {
        self.acquire(|lock| lock.try_lock())
    }

    /// Acquires the lock for a guard that keeps it alive.
    fn acquire(&self, acquire: impl FnOnce(&'r Locked<T, L>) -> Result<LockedGuard<'r, T, L>>) -> Result<HandleGuard<'r, T, L>> {
        let handle = self.clone();
        // SAFETY: by the type's invariant the entry is alive, and stays so as long as the new handle. The reference is used by the guard, which is dropped before that.
        let entry = unsafe { handle.entry.as_ref() };
        let guard = acquire(&entry.value)?;
        Ok(HandleGuard { guard, _handle: handle })
    }
}

impl<T> Clone for Handle<'_, T> {
    fn clone(&self) -> Self {
        self.header().users.add();
        // INVARIANT: the new handle is the user that was added.
        Self { entry: self.entry, registry: self.registry, _shares: PhantomData }
    }
}

impl<T> Deref for Handle<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the type's invariant the entry is alive. Nobody has its value mutably.
        &unsafe { self.entry.as_ref() }.value
    }
}

impl<T> AsRef<T> for Handle<'_, T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for Handle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: fmt::Display> fmt::Display for Handle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T> Drop for Handle<'_, T> {
    fn drop(&mut self) {
        // SAFETY: by the type's invariant this is a user of the entry, which is the registry's; it is not used after this.
        unsafe { self.registry.release(self.entry.cast()) };
    }
}

/// Exclusive access to what a registered lock guards, from [`Handle::lock`]. It keeps the lock alive.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct HandleGuard<'r, T, L: Exclusive> {
    /// Dropped first, and borrows from the entry.
    guard: LockedGuard<'r, T, L>,
    _handle: Handle<'r, Locked<T, L>>,
}

impl<T, L: Exclusive> Deref for HandleGuard<'_, T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, L: Exclusive> DerefMut for HandleGuard<'_, T, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug, L: Exclusive> fmt::Debug for HandleGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: fmt::Display, L: Exclusive> fmt::Display for HandleGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}
