//! The driver: its object, its entry, and an unload that leaves nothing behind.
//!
//! # A driver's shape
//! A driver has an entry function that returns the driver's state, and [`driver_entry!`](crate::driver_entry) makes the `DriverEntry` that the system calls out of it. The state
//! lives until the driver is unloaded; then it is dropped, and [`drain`] waits for all that is still out: threads, timers and DPCs, forgotten
//! ones included. Only then does the unload routine return, and the image go.
//! ```
//! use core::time::Duration;
//! use ksync::driver::{DriverObject, UnicodeStr};
//! use ksync::error::Result;
//! use ksync::timer::Timer;
//!
//! struct Ticker {
//!     timer: Timer,
//! }
//!
//! fn entry(driver: &DriverObject, registry_path: &UnicodeStr) -> Result<Ticker> {
//!     ksync::println!("hello from {registry_path}");
//!     let timer = Timer::new(|| ksync::println!("tick"), false)?;
//!     timer.start(Duration::from_secs(1), Duration::from_secs(1))?;
//!     Ok(Ticker { timer })
//! }
//!
//! ksync::driver_entry!(entry);
//!
//! # fn main() {
//! # let outcome = ksim::Machine::new().run(|| {
//! // In a test:
//! let driver = ksim::load_driver("ticker", DriverEntry).unwrap();
//! ksync::thread::this_thread::sleep(Duration::from_millis(2500)).unwrap();
//! driver.unload();
//! # });
//! # assert_eq!(outcome.debug_output(), [r"hello from \Registry\Machine\System\CurrentControlSet\Services\ticker", "tick", "tick"]);
//! # outcome.expect_clean();
//! # }
//! ```

pub(crate) mod image;
pub(crate) mod list;

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use ksync_sys as sys;

use crate::error::Result;
use crate::pool::KBox;

use image::Image;
pub use image::drain;

/// A driver object.
///
/// The system makes one for each driver that it loads, and shares it with the driver.
#[doc(alias = "DRIVER_OBJECT")]
#[repr(transparent)]
pub struct DriverObject(UnsafeCell<sys::DRIVER_OBJECT>);

// SAFETY: what is read of the object here does not change after the driver's entry was called.
unsafe impl Sync for DriverObject {}

impl DriverObject {
    /// The object behind a pointer that the system passed.
    ///
    /// # Safety
    /// The pointer is to a driver object that stays valid for `'a`.
    #[must_use]
    pub unsafe fn from_raw<'a>(driver: *mut sys::DRIVER_OBJECT) -> &'a Self {
        // SAFETY: by this function's contract. The type is transparent and has interior mutability, so that the system may go on changing the object.
        unsafe { &*driver.cast() }
    }

    /// The pointer, for routines that this library does not wrap.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::DRIVER_OBJECT {
        self.0.get()
    }

    /// The object's name, such as `\Driver\Beep`.
    #[must_use]
    pub fn name(&self) -> UnicodeStr<'_> {
        // SAFETY: the object is valid while it is borrowed; the name does not change.
        let name = unsafe { &(*self.0.get()).DriverName };
        // SAFETY: the system keeps the name's buffer as long as the object.
        unsafe { UnicodeStr::from_raw(name) }
    }
}

impl fmt::Debug for DriverObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverObject").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A borrowed UTF-16 string of the system's. Displayed, what is not valid UTF-16 shows as U+FFFD.
#[doc(alias = "UNICODE_STRING")]
#[derive(Clone, Copy)]
pub struct UnicodeStr<'a> {
    units: &'a [u16],
    _string: PhantomData<&'a sys::UNICODE_STRING>,
}

impl<'a> UnicodeStr<'a> {
    /// The string that a raw one describes.
    ///
    /// # Safety
    /// The buffer is aligned to 2 bytes and holds as many bytes as the string's length says, or is null, and neither changes nor goes away during `'a`.
    #[must_use]
    pub unsafe fn from_raw(string: &'a sys::UNICODE_STRING) -> Self {
        let units = if string.Buffer.is_null() {
            &[]
        } else {
            // SAFETY: by this function's contract; the length is in bytes.
            unsafe { core::slice::from_raw_parts(string.Buffer, usize::from(string.Length / 2)) }
        };
        Self { units, _string: PhantomData }
    }

    /// The string of some code units.
    ///
    /// # Errors
    /// [`NtError::INVALID_PARAMETER`](crate::NtError::INVALID_PARAMETER) for more than 32,767 units, which is as many as NT can count.
    ///
    /// # Examples
    /// ```
    /// use ksync::driver::UnicodeStr;
    ///
    /// let units: Vec<u16> = "text".encode_utf16().collect();
    /// assert_eq!(UnicodeStr::new(&units).unwrap().to_string(), "text");
    /// assert!(UnicodeStr::new(&[0; 32_768]).is_err());
    /// ```
    pub const fn new(units: &'a [u16]) -> Result<Self> {
        if units.len() > u16::MAX as usize / 2 {
            return Err(crate::NtError::INVALID_PARAMETER);
        }
        Ok(Self { units, _string: PhantomData })
    }

    /// NT's form of it, which points to the same text.
    pub(crate) const fn to_raw(self) -> sys::UNICODE_STRING {
        // CAST: a string has at most 32,767 units, by its constructor or because NT counted it.
        let bytes = size_of_val(self.units) as u16;
        sys::UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: self.units.as_ptr().cast_mut() }
    }

    /// The code units.
    #[must_use]
    pub const fn units(&self) -> &'a [u16] {
        self.units
    }
}

impl fmt::Display for UnicodeStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        char::decode_utf16(self.units.iter().copied())
            .try_for_each(|character| f.write_char(character.unwrap_or(char::REPLACEMENT_CHARACTER)))
    }
}

impl fmt::Debug for UnicodeStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Makes the `DriverEntry` of a driver.
///
/// It is given the driver's entry function, of the form `fn(&DriverObject, &UnicodeStr) -> Result<T>` where `T: Send + Sync + 'static` is the driver's state. The string is
/// the path of the driver's key in the registry.
///
/// The `DriverEntry` that it makes calls the function. If that succeeds, the state is kept, and an unload routine is set that drops it and then
/// [drains](crate::driver::drain). If it fails, what it has left running is drained at once, and its error returned to the system.
///
/// In a driver build, that is, for Windows with `panic = "abort"`, the function is exported under this name, and the macro defines what a `.sys` needs
/// besides: a panic handler, which prints the message and stops the system with a bug check of code [`PANIC_CODE`](crate::driver::PANIC_CODE), and the symbol that the linker wants from
/// who computes with floating point. Hosted, it is an ordinary function for `ksim::load_driver`.
///
/// # Examples
/// See [`driver`](crate::driver).
#[doc(alias = "DriverEntry")]
#[doc(alias = "DRIVER_INITIALIZE")]
#[doc(alias = "DRIVER_UNLOAD")]
#[macro_export]
macro_rules! driver_entry {
    ($entry:path) => {
        /// What the system calls when it loads the driver.
        ///
        /// # Safety
        /// It is called by the system, or by `ksim`, with valid arguments, and once for each time that the image is loaded.
        #[cfg_attr(all(windows, panic = "abort"), unsafe(no_mangle))]
        pub unsafe extern "system-unwind" fn DriverEntry(
            driver: *mut $crate::sys::DRIVER_OBJECT,
            registry_path: *mut $crate::sys::UNICODE_STRING,
        ) -> $crate::sys::NTSTATUS {
            // A function of its own, which is not unsafe: whatever is named as the entry is named in safe code.
            fn ksync_load(loading: $crate::driver::Loading) -> $crate::sys::NTSTATUS {
                loading.run($entry)
            }
            // SAFETY: the arguments are the system's, and are passed on.
            ksync_load(unsafe { $crate::driver::Loading::new(driver, registry_path) })
        }

        /// Stops the system: a driver that has panicked cannot go on.
        #[cfg(all(windows, panic = "abort"))]
        #[panic_handler]
        fn driver_panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::driver::panic(info)
        }

        /// Wanted by the linker where floating point is used.
        #[cfg(all(windows, panic = "abort"))]
        #[unsafe(export_name = "_fltused")]
        #[used]
        pub static FLOATING_POINT_USED: i32 = 0x9875;
    };
}

/// The arguments of a `DriverEntry`: what [`driver_entry!`](crate::driver_entry) runs a driver's entry with.
///
/// # Invariants
/// They are those of the system, and valid as long as this is. There is one for each time that the image is loaded.
#[doc(hidden)]
#[derive(Debug)]
pub struct Loading {
    driver: *mut sys::DRIVER_OBJECT,
    registry_path: *mut sys::UNICODE_STRING,
}

impl Loading {
    /// Takes the arguments.
    ///
    /// # Safety
    /// They are those of the system for a `DriverEntry`, which has not returned while this is used. It is called once for each time that the image is loaded.
    #[must_use]
    pub unsafe fn new(driver: *mut sys::DRIVER_OBJECT, registry_path: *mut sys::UNICODE_STRING) -> Self {
        // INVARIANT: the caller vouches for it.
        Self { driver, registry_path }
    }

    /// Runs the entry, and returns what the `DriverEntry` does.
    pub fn run<T>(self, entry: impl FnOnce(&DriverObject, &UnicodeStr<'_>) -> Result<T>) -> sys::NTSTATUS
    where
        T: Send + Sync + 'static,
    {
        // SAFETY: by the type's invariant.
        let object = unsafe { DriverObject::from_raw(self.driver) };
        // SAFETY: by the type's invariant; the string stays valid during the call.
        let path = unsafe { &*self.registry_path };
        // SAFETY: as above, and so does its buffer.
        let path = unsafe { UnicodeStr::from_raw(path) };
        // The memory comes first, so that a state that exists can be kept.
        let state = KBox::new_uninit().and_then(|memory| Ok(memory.write(entry(object, &path)?)));
        match state {
            Ok(state) => {
                Image::this().state.store(KBox::into_raw(state).cast(), Ordering::Release);
                // SAFETY: during its entry a driver sets the routines in its own object.
                unsafe { (*self.driver).DriverUnload = Some(unload::<T>) };
                sys::STATUS_SUCCESS
            }
            Err(error) => {
                // The image goes when this returns, so nothing that the entry started may be left. An entry runs at `PASSIVE_LEVEL`, where this does not fail.
                let _ = drain();
                error.status().0
            }
        }
    }
}

/// The unload routine of a driver whose state is a `T`.
///
/// # Safety
/// It is called by the system, once, after [`Loading::run::<T>`](Loading::run) has succeeded.
unsafe extern "system-unwind" fn unload<T>(_driver: *mut sys::DRIVER_OBJECT) {
    let state: *mut () = Image::this().state.swap(core::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: `Loading::run::<T>` gave the state up for this pointer. It is taken back once, because the system unloads a driver once, and only after all of its dispatch
    // routines have returned.
    drop(unsafe { KBox::from_raw(state.cast::<T>()) });
    // An unload routine runs at `PASSIVE_LEVEL`, where this does not fail.
    let _ = drain();
}

/// The code of the bug check that a panic ends in. Its parameters are the address and length of the source file's name, the line, and the column.
pub const PANIC_CODE: u32 = 0xE000_5255;

/// Stops the system after a panic: what the panic handler of [`driver_entry!`](crate::driver_entry) comes to.
#[doc(hidden)]
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::println!("{info}");
    let (file, line, column) =
        info.location().map_or(("", 0, 0), |location| (location.file(), location.line(), location.column()));
    // CAST: from 32 to 64 bits.
    let (line, column) = (line as usize, column as usize);
    // SAFETY: the routine may be called anywhere, and does not return.
    unsafe { sys::KeBugCheckEx(PANIC_CODE, file.as_ptr().expose_provenance(), file.len(), line, column) }
}
