//! Threads that borrow from their starter.

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::driver::list::List;
use crate::error::Result;
use crate::object::ThreadObject;
use crate::thread::packet::{self, Packet, Settings};
use crate::thread::{Builder, SpawnError};
use crate::wait::{Dispatchable, sealed};

/// A scope to start threads in. See [`scope`].
///
/// `'scope` is the scope itself: what its threads return, and what they may still use of it. `'env` is what lies around it. Both are invariant, so that neither
/// can be shrunk to something that ends earlier.
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    threads: List,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Runs `f` with a scope, in which threads can be started that borrow what lies around it. When `f` is done, all of them are waited for.
///
/// # IRQL
/// The scope ends at `<= APC_LEVEL`, and threads are started at `PASSIVE_LEVEL`. A scope that ends at `DISPATCH_LEVEL` with threads left polls until they have ended, and hangs if they
/// need its processor: it never returns while they can still use what they borrow.
///
/// # Examples
/// ```
/// use ksync::thread;
///
/// # ksim::Machine::new().processors(2).run(|| {
/// let numbers = [1, 2, 3, 4];
/// let sum = thread::scope(|scope| {
///     let (left, right) = numbers.split_at(2);
///     let left = scope.spawn(|| left.iter().sum::<i32>()).unwrap();
///     let right: i32 = right.iter().sum();
///     left.join().unwrap() + right
/// });
/// assert_eq!(sum, 10);
/// # }).expect_clean();
/// ```
///
/// What a thread borrows must lie outside of the scope:
/// ```compile_fail,E0373
/// ksync::thread::scope(|scope| {
///     let inside = String::from("dropped before the thread ends");
///     scope.spawn(|| inside.len()).unwrap();
/// });
/// ```
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    /// Waits for the threads, also when `f` unwinds.
    struct End<'a>(&'a List);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            // SAFETY: handles are in use by the scope's threads, by their results, and by `f`, which is over.
            unsafe { packet::drop_results(self.0) };
            // SAFETY: all threads of the scope have ended, and all results, which may have held handles, were dropped.
            unsafe { packet::free_all(self.0) };
        }
    }
    let scope = Scope { threads: List::new(), scope: PhantomData, env: PhantomData };
    let end = End(&scope.threads);
    let result = f(&scope);
    drop(end);
    result
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a thread in the scope.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Builder::spawn`]. The closure comes back with them.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let mut number = 1;
    /// thread::scope(|scope| {
    ///     scope.spawn(|| number += 1).unwrap();
    /// });
    /// assert_eq!(number, 2);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsCreateSystemThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread).
    #[doc(alias = "PsCreateSystemThread")]
    pub fn spawn<F, T>(&'scope self, closure: F) -> Result<ScopedJoinHandle<'scope, T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.spawn_with(Settings::default(), closure)
    }

    /// Starts a thread with settings.
    fn spawn_with<F, T>(&'scope self, settings: Settings<'_>, closure: F) -> Result<ScopedJoinHandle<'scope, T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        // SAFETY: what closure and result borrow outlives the scope, at whose end all packets are waited for and freed. Until then the list is alive.
        let packet = unsafe { packet::spawn(settings, closure, &self.threads) }?;
        Ok(ScopedJoinHandle { packet, _scope: PhantomData })
    }
}

impl Builder<'_> {
    /// Starts a thread in a scope. See [`Scope::spawn`].
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Builder::spawn`]. The closure comes back with them.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::{self, Builder};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let number = 1;
    /// thread::scope(|scope| {
    ///     let thread = Builder::new().priority(9).spawn_scoped(scope, || number + 1).unwrap();
    ///     assert_eq!(thread.join(), Ok(2));
    /// });
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "PsCreateSystemThread")]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        closure: F,
    ) -> Result<ScopedJoinHandle<'scope, T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        scope.spawn_with(self.settings, closure)
    }
}

/// The right to wait for a thread of a scope and to take what it returned.
///
/// Dropping it does nothing: the scope waits for all its threads.
///
/// # Invariants
/// The packet is alive, and before the scope's end nobody else frees it.
pub struct ScopedJoinHandle<'scope, T = ()> {
    packet: NonNull<Packet<T>>,
    _scope: PhantomData<(&'scope mut &'scope (), T)>,
}

// SAFETY: the handle is a right to the result, which is `Send`, and belongs to no thread.
unsafe impl<T: Send> Send for ScopedJoinHandle<'_, T> {}
// SAFETY: a shared handle gives access to the thread object only.
unsafe impl<T: Send> Sync for ScopedJoinHandle<'_, T> {}

impl<T> ScopedJoinHandle<'_, T> {
    /// The thread.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::{self, this_thread};
    ///
    /// # ksim::Machine::new().run(|| {
    /// thread::scope(|scope| {
    ///     let thread = scope.spawn(this_thread::id).unwrap();
    ///     let object = thread.thread().clone();
    ///     assert_eq!(thread.join(), Ok(object.id()));
    /// });
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn thread(&self) -> &ThreadObject {
        // SAFETY: by the type's invariant the packet is alive while `self` is.
        unsafe { packet::thread(self.packet.cast()) }
    }

    /// Tells whether the thread has ended: not only the closure, but the thread.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::thread::{self, this_thread};
    ///
    /// # ksim::Machine::new().run(|| {
    /// thread::scope(|scope| {
    ///     let thread = scope.spawn(|| this_thread::sleep(Duration::from_secs(1))).unwrap();
    ///     assert_eq!(thread.is_finished(), Ok(false));
    /// });
    /// # }).expect_clean();
    /// ```
    pub fn is_finished(&self) -> Result<bool> {
        self.thread().is_terminated()
    }

    /// Waits for the thread's end and takes what it returned.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// Those of [`JoinHandle::join`](crate::thread::JoinHandle::join). The thread is then left to the scope.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let text = String::from("borrowed");
    /// let length = thread::scope(|scope| scope.spawn(|| text.len()).unwrap().join());
    /// assert_eq!(length, Ok(8));
    /// # }).expect_clean();
    /// ```
    pub fn join(self) -> Result<T> {
        // SAFETY: by the type's invariant the packet is alive.
        unsafe { packet::check_join(self.packet.cast()) }?;
        // SAFETY: the packet is this handle's, which is not used any more. Whether it may be waited for was checked. The scope frees only
        // what it finds in its list, and only after all users of handles are gone.
        unsafe { packet::join(self.packet) }
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("id", &self.thread().id()).finish_non_exhaustive()
    }
}

impl<T> sealed::Sealed for ScopedJoinHandle<'_, T> {
    fn dispatcher_object(&self) -> *mut c_void {
        self.thread().as_raw().cast()
    }
}

// SAFETY: the thread object is referenced for as long as the handle lives. A wait on a thread changes nothing in it.
unsafe impl<T> Dispatchable for ScopedJoinHandle<'_, T> {}
