//! Values that are found by name.
//!
//! A driver's routines are called by the system with little context, and what they share has to be found from anywhere. A static does that with no search at all (see
//! [`lazy`](crate::lazy)), and is to be preferred. Where values come and go, or their names are not known when the driver is written, put them into a [`Registry`]. [`Grt`] is one that belongs to the
//! driver as a whole: it is made in the driver's entry and destroyed in its unload routine.
//!
//! # Names and types
//! A name is up to [`MAX_NAME`] bytes long and stands for one value at a time, of one type. Who asks for another type than that which is there gets
//! [`NtError::OBJECT_TYPE_MISMATCH`](crate::NtError::OBJECT_TYPE_MISMATCH), never a reinterpretation.
//!
//! # How long a value lives
//! [`get`](Registry::get) returns a [`Handle`], which counts. A value is dropped when its name is gone *and* all handles to it are. So a name can be given away, registered anew or removed while others use the value: they
//! keep what they have. [`destroy`](Registry::destroy) removes all names, and then waits until the last handle is gone, so that nothing of the registry's is left when the image goes.
//!
//! # Registering a name again
//! [`register`](Registry::register) gives the name to the new value, and the old one lives on for those who have it. Two parties who both "register if need be" then hold
//! different locks under one name; that is what [`register_checked`](Registry::register_checked) is for, which refuses.
//!
//! # Cost
//! A registered value is one allocation of nonpaged pool (a `KMutex` has one more of its own). To look up takes a spin lock and a walk over the names; do it once and keep the handle.
//!
//! # Tests
//! Hosted, each driver of each machine has its own [`Grt`], as each loaded image has in a kernel, so tests that use it can run side by side. A test that does not
//! [`destroy`](Grt::destroy) it leaks what is in it, which the machine reports. A handle must not leave the machine, as nothing may that lies in its pool.
//!
//! # Examples
//! ```
//! use ksync::error::Result;
//! use ksync::grt::Grt;
//!
//! fn entry() -> Result {
//!     Grt::init()?;
//!     Grt::register_kmutex("my_test_mutex", 0u32)
//! }
//!
//! fn anywhere() -> Result {
//!     let mutex = Grt::get_kmutex::<u32>("my_test_mutex")?;
//!     *mutex.lock()? += 1;
//!     Ok(())
//! }
//!
//! fn unload() -> Result {
//!     Grt::destroy()
//! }
//! # ksim::Machine::new().run(|| {
//! # entry().unwrap();
//! # anywhere().unwrap();
//! # unload().unwrap();
//! # }).expect_clean();
//! ```

mod entry;
mod handle;
mod registry;

pub use entry::MAX_NAME;
pub use handle::{Handle, HandleGuard};
pub use registry::Registry;

use ksync_sys as sys;

use crate::error::Result;
use crate::mutex::{FastLocked, KMutex};
use crate::time::Timeout;

/// The registry of the image that this code is linked into.
// SAFETY: a closed registry owns nothing and nothing points to it, so that a copy of it is as good. It may be used from everywhere. It is aligned to 8.
static GLOBAL: sys::ImageLocal<Registry> = unsafe { sys::ImageLocal::new(Registry::closed()) };

/// The global registry of the driver: a [`Registry`] that all of its code reaches.
///
/// It has to be [made](Self::init) first, and [destroyed](Self::destroy) when the driver is unloaded.
///
/// # Examples
/// See [the module](self).
#[derive(Debug)]
pub enum Grt {}

impl Grt {
    /// The registry itself.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Grt;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Grt::registry().unregister("anything"), Err(NtError::INVALID_DEVICE_STATE)); // It was not made yet.
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn registry() -> &'static Registry {
        // SAFETY: the pointer is valid for as long as the image is loaded, which is as long as anything runs that could use the reference.
        unsafe { &*GLOBAL.get() }
    }

    /// Makes the registry: from now on values can be registered.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_DEVICE_STATE`](crate::NtError::INVALID_DEVICE_STATE) if it is there already.
    /// - [`NtError::DELETE_PENDING`](crate::NtError::DELETE_PENDING) if it is being destroyed.
    /// - [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) at a higher level.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Grt;
    ///
    /// # ksim::Machine::new().run(|| {
    /// Grt::init().unwrap();
    /// assert_eq!(Grt::init(), Err(NtError::INVALID_DEVICE_STATE));
    /// Grt::destroy().unwrap();
    /// # }).expect_clean();
    /// ```
    pub fn init() -> Result {
        Self::registry().open()
    }

    /// Registers a value in a new [`KMutex`]. A value that has the name already loses it; see [the module](self#registering-a-name-again).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::register`].
    ///
    /// # Examples
    /// See [the module](self).
    pub fn register_kmutex<T: Send + 'static>(name: &str, value: T) -> Result {
        Self::registry().register(name, KMutex::new(value)?)
    }

    /// Registers a value in a new [`KMutex`], unless the name is taken.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::register_checked`].
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Grt;
    ///
    /// # ksim::Machine::new().run(|| {
    /// Grt::init().unwrap();
    /// Grt::register_kmutex_checked("name", 1).unwrap();
    /// assert_eq!(Grt::register_kmutex_checked("name", 2), Err(NtError::OBJECT_NAME_COLLISION));
    /// assert_eq!(*Grt::get_kmutex::<i32>("name").unwrap().lock().unwrap(), 1);
    /// Grt::destroy().unwrap();
    /// # }).expect_clean();
    /// ```
    pub fn register_kmutex_checked<T: Send + 'static>(name: &str, value: T) -> Result {
        Self::registry().register_checked(name, KMutex::new(value)?)
    }

    /// Registers a value in a new [`FastLocked`]. A value that has the name already loses it; see [the module](self#registering-a-name-again).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::register`].
    ///
    /// # Examples
    /// See [`get_fast_mutex`](Self::get_fast_mutex).
    pub fn register_fast_mutex<T: Send + 'static>(name: &str, value: T) -> Result {
        Self::registry().register(name, FastLocked::new(value)?)
    }

    /// Registers a value in a new [`FastLocked`], unless the name is taken.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::register_checked`].
    ///
    /// # Examples
    /// See [`register_kmutex_checked`](Self::register_kmutex_checked).
    pub fn register_fast_mutex_checked<T: Send + 'static>(name: &str, value: T) -> Result {
        Self::registry().register_checked(name, FastLocked::new(value)?)
    }

    /// Registers any value that threads can share. A value that has the name already loses it; see [the module](self#registering-a-name-again).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::register`].
    ///
    /// # Examples
    /// ```
    /// use core::sync::atomic::{AtomicU32, Ordering};
    /// use ksync::grt::Grt;
    ///
    /// # ksim::Machine::new().run(|| {
    /// Grt::init().unwrap();
    /// Grt::register("requests", AtomicU32::new(0)).unwrap();
    /// Grt::get::<AtomicU32>("requests").unwrap().fetch_add(1, Ordering::Relaxed);
    /// Grt::destroy().unwrap();
    /// # }).expect_clean();
    /// ```
    pub fn register<T: Send + Sync + 'static>(name: &str, value: T) -> Result {
        Self::registry().register(name, value)
    }

    /// Registers any value that threads can share, unless the name is taken.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::register_checked`].
    ///
    /// # Examples
    /// See [`Registry::register_checked`].
    pub fn register_checked<T: Send + Sync + 'static>(name: &str, value: T) -> Result {
        Self::registry().register_checked(name, value)
    }

    /// Finds a [`KMutex`] by its name and the type of what it guards.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. The mutex can be locked at `<= APC_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::get`].
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::grt::Grt;
    ///
    /// # ksim::Machine::new().run(|| {
    /// Grt::init().unwrap();
    /// Grt::register_kmutex("count", 0u32).unwrap();
    /// let mut lock = Grt::get_kmutex::<u32>("count").unwrap().lock().unwrap();
    /// *lock += 1;
    /// drop(lock);
    /// assert_eq!(Grt::get_kmutex::<i64>("count").unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
    /// assert_eq!(Grt::get_kmutex::<u32>("counter").unwrap_err(), NtError::NOT_FOUND);
    /// Grt::destroy().unwrap();
    /// # }).expect_clean();
    /// ```
    pub fn get_kmutex<T: Send + 'static>(name: &str) -> Result<Handle<'static, KMutex<T>>> {
        Self::registry().get(name)
    }

    /// Finds a [`FastLocked`] by its name and the type of what it guards.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. The mutex can be locked at `<= APC_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::get`].
    ///
    /// # Examples
    /// ```
    /// use ksync::grt::Grt;
    ///
    /// # ksim::Machine::new().run(|| {
    /// Grt::init().unwrap();
    /// Grt::register_fast_mutex("names", vec!["Ada"]).unwrap();
    /// Grt::get_fast_mutex::<Vec<&str>>("names").unwrap().lock().unwrap().push("Grace");
    /// Grt::destroy().unwrap();
    /// # }).expect_clean();
    /// ```
    pub fn get_fast_mutex<T: Send + 'static>(name: &str) -> Result<Handle<'static, FastLocked<T>>> {
        Self::registry().get(name)
    }

    /// Finds a value by its name and type.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Registry::get`].
    ///
    /// # Examples
    /// See [`register`](Self::register).
    pub fn get<T: Send + Sync + 'static>(name: &str) -> Result<Handle<'static, T>> {
        Self::registry().get(name)
    }

    /// Removes a name. The value is dropped when nobody uses it any more.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, and what dropping the value asks for.
    ///
    /// # Errors
    /// Those of [`Registry::unregister`].
    ///
    /// # Examples
    /// See [`Registry::unregister`].
    pub fn unregister(name: &str) -> Result {
        Self::registry().unregister(name)
    }

    /// Removes all names, and waits until nobody uses any of the values any more.
    ///
    /// This is a safe function: handles that are out stay valid, and are what it waits for. A caller from the days when it was not, with `unsafe { Grt::destroy() }`, gets a warning and
    /// nothing worse.
    ///
    /// It waits for handles, not for the threads that had them: see [`driver::drain`](crate::driver::drain) for those.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`, and what dropping the values asks for.
    ///
    /// # Errors
    /// Those of [`Registry::destroy`]. A thread that holds a handle itself would wait for ever, as the hosted kernel reports; [`destroy_within`](Self::destroy_within) gives up.
    ///
    /// # Examples
    /// See [the module](self).
    pub fn destroy() -> Result {
        Self::registry().destroy()
    }

    /// Removes all names, and waits for some time at most until nobody uses any of the values any more.
    ///
    /// # IRQL
    /// As [`destroy`](Self::destroy).
    ///
    /// # Errors
    /// Those of [`Registry::destroy_within`].
    ///
    /// # Examples
    /// See [`Registry::destroy_within`].
    pub fn destroy_within(timeout: impl Into<Timeout>) -> Result {
        Self::registry().destroy_within(timeout)
    }
}
