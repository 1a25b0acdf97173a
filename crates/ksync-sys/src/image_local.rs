//! Statics of which each loaded image has its own.

use core::cell::UnsafeCell;

/// A static variable of which each loaded driver image has its own.
///
/// In a driver this is an ordinary static: an image that is loaded gets its own copy from its data section. Hosted, the code of all drivers of all
/// machines is linked into one process, where an ordinary static would be shared by drivers that cannot know of each other, and would keep what a machine that
/// stopped had left in it. There, `ksim` keeps a copy for each driver of each machine (and one for each machine's code that belongs to no
/// driver), which begins as the initial value and goes away with the machine.
///
/// # Examples
/// ```
/// use core::sync::atomic::AtomicU32;
/// use ksync_sys::ImageLocal;
///
/// // SAFETY: the value is an integer that may be used from everywhere.
/// static LOADED: ImageLocal<AtomicU32> = unsafe { ImageLocal::new(AtomicU32::new(0)) };
/// ```
#[repr(transparent)]
#[derive(Debug)]
pub struct ImageLocal<T>(UnsafeCell<T>);

// SAFETY: the constructor's caller vouches that the value may be used from every thread. The cell gives out raw pointers only.
unsafe impl<T> Sync for ImageLocal<T> {}

impl<T> ImageLocal<T> {
    /// A variable with an initial value.
    ///
    /// # Safety
    /// A copy of the initial value's bytes is a value in its own right: the value owns nothing, and nothing points to it. It may be
    /// used from every thread, at every level. Its alignment is at most 16, and it is never dropped.
    #[must_use]
    pub const unsafe fn new(initial: T) -> Self {
        Self(UnsafeCell::new(initial))
    }

    /// The address of the variable in the image whose code runs.
    ///
    /// The pointer is valid for as long as the image is loaded.
    #[cfg(all(windows, not(feature = "hosted")))]
    #[inline]
    #[must_use]
    pub fn get(&'static self) -> *mut T {
        self.0.get()
    }

    /// The address of the variable in the image whose code runs.
    ///
    /// The pointer is valid for as long as the image is loaded.
    ///
    /// # Panics
    /// If no machine runs on this OS thread.
    #[cfg(not(all(windows, not(feature = "hosted"))))]
    #[must_use]
    pub fn get(&'static self) -> *mut T {
        unsafe extern "system-unwind" {
            /// Finds, or makes from the initial value, the copy of a variable that belongs to the driver that runs.
            fn KsimImageLocal(Initial: *const core::ffi::c_void, Size: usize) -> *mut core::ffi::c_void;
        }
        const { assert!(align_of::<T>() <= 16, "an image's own variable is aligned to 16 bytes at most") };
        // SAFETY: the initial value is `T`'s size large and is never written to, because nothing but this function uses it.
        unsafe { KsimImageLocal(self.0.get().cast_const().cast(), size_of::<T>()) }.cast()
    }
}
