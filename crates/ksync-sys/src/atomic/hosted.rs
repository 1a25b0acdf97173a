//! The hosted half: `core`'s atomics, with a word to the machine before and after each operation.

use core::ffi::c_void;
use core::fmt;
use core::panic::Location;
pub use core::sync::atomic::{Ordering, compiler_fence, fence};

unsafe extern "system-unwind" {
    /// An operation on an atomic is about to happen: others may act first.
    fn KsimBeforeAtomic(Address: usize, Writes: bool);
    /// It has happened. `Acquires` and `Releases` say how it is ordered.
    fn KsimAfterAtomic(Address: usize, Wrote: bool, Acquires: bool, Releases: bool, Site: *const c_void);
}

/// The place of the operation's caller.
#[track_caller]
fn site() -> *const c_void {
    core::ptr::from_ref(Location::caller()).cast()
}

fn acquires(order: Ordering) -> bool {
    matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst)
}

fn releases(order: Ordering) -> bool {
    matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst)
}

/// Performs an operation that reads.
#[track_caller]
fn reading<R>(address: usize, order: Ordering, operation: impl FnOnce() -> R) -> R {
    // SAFETY: the routine may be called anywhere.
    unsafe { KsimBeforeAtomic(address, false) };
    let result = operation();
    // SAFETY: as above.
    unsafe { KsimAfterAtomic(address, false, acquires(order), false, site()) };
    result
}

/// Performs an operation that writes.
#[track_caller]
fn writing<R>(address: usize, order: Ordering, operation: impl FnOnce() -> R) -> R {
    // SAFETY: the routine may be called anywhere.
    unsafe { KsimBeforeAtomic(address, true) };
    let result = operation();
    // SAFETY: as above.
    unsafe { KsimAfterAtomic(address, true, acquires(order), releases(order), site()) };
    result
}

/// Performs an operation that writes if it succeeds.
#[track_caller]
fn trying<T>(address: usize, success: Ordering, failure: Ordering, operation: impl FnOnce() -> Result<T, T>) -> Result<T, T> {
    // SAFETY: the routine may be called anywhere.
    unsafe { KsimBeforeAtomic(address, true) };
    let result = operation();
    let wrote = result.is_ok();
    let order = if wrote { success } else { failure };
    // SAFETY: as above.
    unsafe { KsimAfterAtomic(address, wrote, acquires(order), wrote && releases(order), site()) };
    result
}

/// The operations that all types have.
macro_rules! common {
    ($name:ident $(<$parameter:ident>)?, $value:ty, $core:ty) => {
        impl$(<$parameter>)? $name$(<$parameter>)? {
            /// A new atomic.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(<$core>::new(value))
            }

            /// The value, of which there can be no other user.
            pub fn get_mut(&mut self) -> &mut $value {
                self.0.get_mut()
            }

            /// The value.
            #[must_use]
            pub fn into_inner(self) -> $value {
                self.0.into_inner()
            }

            /// The address of the value. What is done by it, the hosted kernel does not see.
            #[must_use]
            pub const fn as_ptr(&self) -> *mut $value {
                self.0.as_ptr()
            }

            fn address(&self) -> usize {
                self.0.as_ptr().addr()
            }

            /// Reads the value.
            ///
            /// # Panics
            /// If `order` is a release.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                reading(self.address(), order, || self.0.load(order))
            }

            /// Writes the value.
            ///
            /// # Panics
            /// If `order` is an acquisition.
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                writing(self.address(), order, || self.0.store(value, order));
            }

            /// Writes the value. Returns the old one.
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                writing(self.address(), order, || self.0.swap(value, order))
            }

            /// Writes `new` if the value is `current`. Returns the old value, as an error if it was not.
            ///
            /// # Errors
            /// The value, if it is not `current`.
            ///
            /// # Panics
            /// If `failure` is a release.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                trying(self.address(), success, failure, || self.0.compare_exchange(current, new, success, failure))
            }

            /// Writes `new` if the value is `current`. On some processors it may fail though it is; hosted it does not.
            ///
            /// # Errors
            /// The value, if it is not `current`.
            ///
            /// # Panics
            /// If `failure` is a release.
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            /// Writes what `update` makes of the value, again if another was faster. Returns the old value.
            ///
            /// # Errors
            /// The value, if `update` returns none.
            ///
            /// # Panics
            /// If `fetch` is a release.
            #[track_caller]
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut value = self.load(fetch);
                while let Some(new) = update(value) {
                    match self.compare_exchange(value, new, set, fetch) {
                        Ok(old) => return Ok(old),
                        Err(other) => value = other,
                    }
                }
                Err(value)
            }
        }

        impl$(<$parameter>)? fmt::Debug for $name$(<$parameter>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl$(<$parameter>)? Default for $name$(<$parameter>)? {
            fn default() -> Self {
                Self(<$core>::default())
            }
        }

        impl$(<$parameter>)? From<$value> for $name$(<$parameter>)? {
            fn from(value: $value) -> Self {
                Self::new(value)
            }
        }
    };
}

/// Operations that read, change and write.
macro_rules! fetch {
    ($name:ident, $value:ty; $($operation:ident: $what:literal),* $(,)?) => {
        impl $name {
            $(
                #[doc = concat!($what, " Returns the old value.")]
                #[track_caller]
                pub fn $operation(&self, value: $value, order: Ordering) -> $value {
                    writing(self.address(), order, || self.0.$operation(value, order))
                }
            )*
        }
    };
}

macro_rules! integers {
    ($($name:ident: $value:ty),* $(,)?) => {
        $(
            #[doc = concat!("An atomic `", stringify!($value), "`, with the operations of `core`'s.")]
            #[repr(transparent)]
            pub struct $name(core::sync::atomic::$name);
            common!($name, $value, core::sync::atomic::$name);
            fetch!($name, $value;
                fetch_add: "Adds, and wraps around.",
                fetch_sub: "Subtracts, and wraps around.",
                fetch_and: "Combines by bitwise and.",
                fetch_nand: "Combines by bitwise and, inverted.",
                fetch_or: "Combines by bitwise or.",
                fetch_xor: "Combines by bitwise exclusive or.",
                fetch_max: "Writes the greater of the two.",
                fetch_min: "Writes the lesser of the two.",
            );
        )*
    };
}

integers! {
    AtomicI8: i8, AtomicI16: i16, AtomicI32: i32, AtomicI64: i64, AtomicIsize: isize,
    AtomicU8: u8, AtomicU16: u16, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize,
}

/// An atomic `bool`, with the operations of `core`'s.
#[repr(transparent)]
pub struct AtomicBool(core::sync::atomic::AtomicBool);
common!(AtomicBool, bool, core::sync::atomic::AtomicBool);
fetch!(AtomicBool, bool;
    fetch_and: "Combines by logical and.",
    fetch_nand: "Combines by logical and, inverted.",
    fetch_or: "Combines by logical or.",
    fetch_xor: "Combines by logical exclusive or.",
);

/// An atomic pointer, with the operations of `core`'s.
#[repr(transparent)]
pub struct AtomicPtr<T>(core::sync::atomic::AtomicPtr<T>);
common!(AtomicPtr<T>, *mut T, core::sync::atomic::AtomicPtr<T>);
