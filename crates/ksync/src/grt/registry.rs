//! The registry: a list of entries under a spin lock.

use core::any::TypeId;
use core::cell::Cell;
use core::fmt;
use core::mem;
use core::ptr::{self, NonNull};

use super::entry::{Entry, Header, Name};
use super::handle::Handle;
use crate::error::{NtError, Result};
use crate::event::{EventProperty, PinnedEvent};
use crate::init::stack_try_pin_init;
use crate::irql::{self, Irql};
use crate::mutex::SpinLocked;
use crate::time::Timeout;
use crate::wait::Dispatchable;

/// Values that are found by name and type.
///
/// [`Grt`](super::Grt) is the one that belongs to the whole driver. Others are values like any other: fields of the driver's state, or locals of a test. A registry that is dropped drops the values in it;
/// there can be no handles then, because handles borrow it.
///
/// # Invariants
/// - The entries in the list are alive, and one user of each is the list.
/// - `entries` counts all entries that there are: in the list, and out of it with handles left.
///
/// # Examples
/// ```
/// use ksync::NtError;
/// use ksync::grt::Registry;
///
/// # ksim::Machine::new().run(|| {
/// let registry = Registry::new();
/// registry.register("limit", 10u32).unwrap();
/// assert_eq!(*registry.get::<u32>("limit").unwrap(), 10);
/// assert_eq!(registry.get::<i32>("limit").unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
/// # }).expect_clean();
/// ```
pub struct Registry {
    state: SpinLocked<State>,
}

/// How far a registry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It was not made yet, or is destroyed. There are no entries.
    Closed,
    /// Values can be registered and found.
    Open,
    /// All names are gone, and handles may be left. Nobody waits for them.
    Closing,
    /// As above, and somebody drops the values, or waits for the handles.
    Draining,
}

/// What is under the lock.
struct State {
    phase: Phase,
    first: Cell<*mut Header>,
    entries: usize,
    /// Set when the last entry is freed. It is valid while it is here.
    emptied: *const PinnedEvent,
}

// SAFETY: the entries belong to no thread: their values are `Send` and `Sync`, by `Registry::register`'s bounds. The event is one that is shared.
unsafe impl Send for State {}

impl State {
    /// Checks that names can be used.
    ///
    /// # Errors
    /// - [`NtError::INVALID_DEVICE_STATE`] if the registry was not made.
    /// - [`NtError::DELETE_PENDING`] if it is being destroyed.
    fn check_open(&self) -> Result {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Closed => Err(NtError::INVALID_DEVICE_STATE),
            Phase::Closing | Phase::Draining => Err(NtError::DELETE_PENDING),
        }
    }

    /// The link to the entry of a name, or the link at the end.
    fn find(&self, name: &Name) -> &Cell<*mut Header> {
        let mut link = &self.first;
        // SAFETY: by the registry's invariant the entry, if there is one, is alive while it is in the list, whose lock is held.
        while let Some(header) = unsafe { link.get().as_ref() } {
            if header.name == *name {
                break;
            }
            link = &header.next;
        }
        link
    }

    /// The entry of a name.
    fn get(&self, name: &Name) -> Option<NonNull<Header>> {
        NonNull::new(self.find(name).get())
    }

    /// Takes the entry of a name out of the list. The user that the list was passes to the caller.
    fn unlink(&self, name: &Name) -> Option<NonNull<Header>> {
        let link = self.find(name);
        let header = NonNull::new(link.get())?;
        // SAFETY: as in `find`.
        link.set(unsafe { header.as_ref() }.next.get());
        Some(header)
    }

    /// Puts an entry into the list, and returns the one that had its name, out of the list.
    ///
    /// # Errors
    /// - Those of [`check_open`](Self::check_open).
    /// - [`NtError::OBJECT_NAME_COLLISION`] if there is one, unless it is to be replaced.
    ///
    /// # Safety
    /// The entry is new, and its user passes to the list if this succeeds.
    unsafe fn link(&mut self, header: NonNull<Header>, replace: bool) -> Result<Option<NonNull<Header>>> {
        self.check_open()?;
        // SAFETY: by this function's contract the entry is alive.
        let entry = unsafe { header.as_ref() };
        if !replace && self.get(&entry.name).is_some() {
            return Err(NtError::OBJECT_NAME_COLLISION);
        }
        let replaced = self.unlink(&entry.name);
        entry.next.set(self.first.get());
        // INVARIANT: the entry is alive, and its user is the list's now.
        self.first.set(header.as_ptr());
        self.entries += 1;
        Ok(replaced)
    }
}

impl Registry {
    /// Makes an empty registry, in which values can be registered at once.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// See [the type](Self).
    #[must_use]
    pub const fn new() -> Self {
        Self::in_phase(Phase::Open)
    }

    /// Makes a registry that has to be [opened](Self::open).
    pub(super) const fn closed() -> Self {
        Self::in_phase(Phase::Closed)
    }

    /// Makes a registry without entries.
    const fn in_phase(phase: Phase) -> Self {
        Self {
            state: SpinLocked::const_new(State { phase, first: Cell::new(ptr::null_mut()), entries: 0, emptied: ptr::null() }),
        }
    }

    /// Opens a registry that was destroyed.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_DEVICE_STATE`] if it is open already.
    /// - [`NtError::DELETE_PENDING`] if it is being destroyed.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// ```
    /// use ksync::grt::Registry;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.destroy().unwrap();
    /// registry.open().unwrap();
    /// registry.register("name", 5).unwrap();
    /// # }).expect_clean();
    /// ```
    pub fn open(&self) -> Result {
        self.state.with(|state| match state.phase {
            Phase::Closed => {
                state.phase = Phase::Open;
                Ok(())
            }
            Phase::Open => Err(NtError::INVALID_DEVICE_STATE),
            Phase::Closing | Phase::Draining => Err(NtError::DELETE_PENDING),
        })?
    }

    /// Registers a value. A value that has the name already loses it, and lives on for those who have a handle.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// The value is dropped then, and nothing else has happened.
    /// - [`NtError::INVALID_PARAMETER`] if the name is longer than [`MAX_NAME`](super::MAX_NAME).
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory.
    /// - [`NtError::INVALID_DEVICE_STATE`] if the registry is not open.
    /// - [`NtError::DELETE_PENDING`] if it is being destroyed.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// ```
    /// use ksync::grt::Registry;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register("name", 1).unwrap();
    /// let old = registry.get::<i32>("name").unwrap();
    /// registry.register("name", 2).unwrap();
    /// assert_eq!((*old, *registry.get::<i32>("name").unwrap()), (1, 2));
    /// # }).expect_clean();
    /// ```
    pub fn register<T: Send + Sync + 'static>(&self, name: &str, value: T) -> Result {
        self.insert(name, value, true)
    }

    /// Registers a value, unless the name is taken.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::OBJECT_NAME_COLLISION`] if the name is taken, by a value of whatever type.
    /// - Those of [`register`](Self::register).
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Registry;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register_checked("name", 1).unwrap();
    /// assert_eq!(registry.register_checked("name", "two"), Err(NtError::OBJECT_NAME_COLLISION));
    /// # }).expect_clean();
    /// ```
    pub fn register_checked<T: Send + Sync + 'static>(&self, name: &str, value: T) -> Result {
        self.insert(name, value, false)
    }

    /// Registers a value.
    fn insert<T: Send + Sync + 'static>(&self, name: &str, value: T, replace: bool) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        let entry = Entry::allocate(Name::new(name)?, value)?;
        // SAFETY: the entry is new, and is freed below if this fails.
        let linked = self.state.with(|state| unsafe { state.link(entry, replace) }).flatten();
        match linked {
            Ok(replaced) => {
                if let Some(replaced) = replaced {
                    // SAFETY: the user that the list was has passed to this function.
                    unsafe { self.release(replaced) };
                }
                Ok(())
            }
            Err(error) => {
                // SAFETY: the entry is this function's alone. IRQL: checked.
                unsafe { Header::free(entry) };
                Err(error)
            }
        }
    }

    /// Finds a value by its name and type.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::NOT_FOUND`] if no value has the name.
    /// - [`NtError::OBJECT_TYPE_MISMATCH`] if the value is of another type.
    /// - [`NtError::INVALID_PARAMETER`] if the name is longer than [`MAX_NAME`](super::MAX_NAME).
    /// - [`NtError::INVALID_DEVICE_STATE`] if the registry is not open.
    /// - [`NtError::DELETE_PENDING`] if it is being destroyed.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// See [the type](Self).
    pub fn get<T: Send + Sync + 'static>(&self, name: &str) -> Result<Handle<'_, T>> {
        let name = Name::new(name)?;
        let found = self.state.with(|state| {
            state.check_open()?;
            let header = state.get(&name).ok_or(NtError::NOT_FOUND)?;
            // SAFETY: by the type's invariant the entry is alive while it is in the list, whose lock is held.
            let entry = unsafe { header.as_ref() };
            if entry.type_id != TypeId::of::<T>() {
                return Err(NtError::OBJECT_TYPE_MISMATCH);
            }
            entry.users.add();
            Ok(header)
        })??;
        // SAFETY: the entry is this registry's, its type was compared, and a user was added.
        Ok(unsafe { Handle::new(found, self) })
    }

    /// Removes a name. The value is dropped when no handle to it is left.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, and what dropping the value asks for.
    ///
    /// # Errors
    /// - [`NtError::NOT_FOUND`] if no value has the name.
    /// - [`NtError::INVALID_PARAMETER`] if the name is longer than [`MAX_NAME`](super::MAX_NAME).
    /// - [`NtError::INVALID_DEVICE_STATE`] if the registry is not open.
    /// - [`NtError::DELETE_PENDING`] if it is being destroyed.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Registry;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register("name", 5).unwrap();
    /// registry.unregister("name").unwrap();
    /// assert_eq!(registry.unregister("name"), Err(NtError::NOT_FOUND));
    /// # }).expect_clean();
    /// ```
    pub fn unregister(&self, name: &str) -> Result {
        let name = Name::new(name)?;
        let found = self.state.with(|state| {
            state.check_open()?;
            state.unlink(&name).ok_or(NtError::NOT_FOUND)
        })??;
        // SAFETY: the user that the list was has passed to this function.
        unsafe { self.release(found) };
        Ok(())
    }

    /// Removes all names, and waits until no handle is left. Afterwards the registry can be [opened](Self::open) again.
    ///
    /// Handles stay valid until they are dropped. A thread that holds one itself, or a value that holds one to itself, lets this wait for ever.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`, and what dropping the values asks for.
    ///
    /// # Errors
    /// - [`NtError::INVALID_DEVICE_STATE`] if the registry is not open.
    /// - [`NtError::DELETE_PENDING`] if another thread destroys it just now.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level. Nothing has happened then.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Registry;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register("name", 5).unwrap();
    /// registry.destroy().unwrap();
    /// assert_eq!(registry.get::<i32>("name").unwrap_err(), NtError::INVALID_DEVICE_STATE);
    /// # }).expect_clean();
    /// ```
    pub fn destroy(&self) -> Result {
        self.destroy_within(Timeout::NEVER)
    }

    /// Removes all names, and waits for some time at most until no handle is left.
    ///
    /// # IRQL
    /// As [`destroy`](Self::destroy).
    ///
    /// # Errors
    /// - [`NtError::TIMEOUT`] if handles are left. The names are gone, the handles stay valid, and another call goes on waiting.
    /// - Those of [`destroy`](Self::destroy).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::NtError;
    /// use ksync::grt::Registry;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let registry = Registry::new();
    /// registry.register("name", 5).unwrap();
    /// let handle = registry.get::<i32>("name").unwrap();
    /// assert_eq!(registry.destroy_within(Duration::from_secs(1)), Err(NtError::TIMEOUT));
    /// assert_eq!(*handle, 5);
    /// drop(handle);
    /// assert_eq!(registry.destroy(), Ok(()));
    /// # }).expect_clean();
    /// ```
    pub fn destroy_within(&self, timeout: impl Into<Timeout>) -> Result {
        /// A draining. It ends when this is dropped, also when dropping a value unwinds.
        struct Draining<'a>(&'a Registry);
        impl Draining<'_> {
            /// Ends it. Returns how many entries are left.
            fn end(&self) -> Result<usize> {
                // Whoever set the event did so under the lock, so after this nobody does.
                self.0.state.with(|state| {
                    state.emptied = ptr::null();
                    state.phase = if state.entries == 0 { Phase::Closed } else { Phase::Closing };
                    state.entries
                })
            }
        }
        impl Drop for Draining<'_> {
            fn drop(&mut self) {
                // The lock is taken at the level at which it was before.
                let _ = self.end();
            }
        }
        // Before the level is looked at: the conversion is the caller's code.
        let timeout = timeout.into();
        irql::require_at_most(Irql::APC)?;
        let mut next = self.state.with(|state| match state.phase {
            Phase::Closed => Err(NtError::INVALID_DEVICE_STATE),
            Phase::Draining => Err(NtError::DELETE_PENDING),
            Phase::Open | Phase::Closing => {
                state.phase = Phase::Draining;
                Ok(state.first.replace(ptr::null_mut()))
            }
        })??;
        stack_try_pin_init!(let emptied = PinnedEvent::pin_init(EventProperty::Notification, false));
        let draining = Draining(self);
        while let Some(header) = NonNull::new(next) {
            // SAFETY: the list has passed to this function, and with it one user of each entry.
            next = unsafe { header.as_ref() }.next.get();
            // SAFETY: as above; the entry is not used after this.
            unsafe { self.release(header) };
        }
        let emptied = emptied?.into_ref();
        let left = self.state.with(|state| {
            if state.entries > 0 {
                // `draining` takes the pointer away before the event goes.
                state.emptied = &raw const *emptied;
            }
            state.entries
        })?;
        if left > 0 {
            // How it ended is seen by what is left.
            let _ = emptied.wait_with(timeout.into());
        }
        let left = draining.end()?;
        mem::forget(draining);
        if left == 0 { Ok(()) } else { Err(NtError::TIMEOUT) }
    }

    /// Takes a user of an entry away, and frees the entry if it was the last.
    ///
    /// Above `DISPATCH_LEVEL`, where nothing can be freed, the user stays, and with it the entry.
    ///
    /// # Safety
    /// The entry is this registry's, and the caller gives up one of its users.
    pub(super) unsafe fn release(&self, header: NonNull<Header>) {
        /// Counts an entry that is gone, also when dropping its value unwinds.
        struct Gone<'a>(&'a Registry);
        impl Drop for Gone<'_> {
            fn drop(&mut self) {
                // The level was checked below.
                let _ = self.0.state.with(|state| {
                    state.entries -= 1;
                    if state.entries > 0 {
                        return;
                    }
                    // SAFETY: the event is valid while it is here, under the lock.
                    if let Some(emptied) = unsafe { state.emptied.as_ref() } {
                        // IRQL: `DISPATCH_LEVEL`, under the lock.
                        let _ = emptied.set();
                    }
                });
            }
        }
        if irql::require_at_most(Irql::DISPATCH).is_err() {
            return;
        }
        // SAFETY: the caller is a user of the entry, which is therefore alive. Only the count is referred to, since the rest may go while this runs.
        let users = unsafe { &(*header.as_ptr()).users };
        if users.remove() {
            let _gone = Gone(self);
            // SAFETY: the last user is gone. IRQL: checked.
            unsafe { Header::free(header) };
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut registry = f.debug_struct("Registry");
        if let Ok(state) = self.state.try_lock() {
            let (phase, entries) = (state.phase, state.entries);
            drop(state);
            registry.field("phase", &phase).field("entries", &entries);
        }
        registry.finish_non_exhaustive()
    }
}

impl Drop for Registry {
    /// Drops the values. Above `DISPATCH_LEVEL` they are leaked.
    fn drop(&mut self) {
        let mut next = self.state.get_mut().first.replace(ptr::null_mut());
        while let Some(header) = NonNull::new(next) {
            // SAFETY: by the type's invariant the entry is alive, and the list, which is one of its users, has passed to this function.
            next = unsafe { header.as_ref() }.next.get();
            // SAFETY: as above; the entry is not used after this.
            unsafe { self.release(header) };
        }
    }
}
