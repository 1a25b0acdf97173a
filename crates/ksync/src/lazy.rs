//! Values that are made on first use.
//!
//! A [`OnceLock`] is empty until someone puts a value in, and then holds it for good; a [`LazyLock`] knows how to make its value and does so when it is first asked. Both run an
//! initialiser once and let others wait for it. [`OnceCell`] and [`LazyCell`] are the forms that never wait, for code that runs at every level: several initialisers may run there, and
//! the first value that is ready is the one that stays.
//!
//! All four are made at compile time, can be statics, and can be shared by threads where their values can be. None allocates, and none keeps anything outside of itself.
//!
//! # What happens when
//! | | [`OnceCell`] | [`LazyCell`] | [`OnceLock`] | [`LazyLock`] |
//! |---|---|---|---|---|
//! | the value comes from | the caller | an `F: Fn() -> T` | the caller | an `F: FnOnce() -> T` |
//! | when several initialise at once | each runs its own initialiser; the first value stays, the others are dropped, and all get the first | each runs the initialiser; the rest as before | one runs its initialiser, the others sleep and get its value | one runs the initialiser, the others sleep and get its value |
//! | looking (`get`) | any level | any level | any level | any level |
//! | forcing, if there is a value | any level | any level | any level | any level |
//! | forcing, if there is none | any level | any level | `<= APC_LEVEL` | `<= APC_LEVEL` |
//! | ... above that | | | [`IRQL_TOO_HIGH`], always | [`IRQL_TOO_HIGH`], always |
//! | storing (`set`) | any level | | `<= DISPATCH_LEVEL`; above `APC_LEVEL`, [`IRQL_TOO_HIGH`] if another initialises just then | |
//! | the initialiser runs at | the caller's level | the caller's level | the caller's level | the caller's level |
//! | an initialiser that forces its own cell | is one more initialiser; the inner value stays | [`WOULD_DEADLOCK`] | [`WOULD_DEADLOCK`] | [`WOULD_DEADLOCK`] |
//! | an initialiser that fails (`get_or_try_init`) | no value; the next may try | | no value; one of those who wait tries | |
//! | an initialiser that panics (hosted) | no value; the next may try | no value; the next may try | no value; one of those who wait tries | no value for ever: [`INVALID_DEVICE_STATE`] |
//! | `Deref` | | a bug check where forcing is an error | | a bug check where forcing is an error |
//! | shared by threads (`Sync`) if | `T: Send + Sync` | `T: Send + Sync`, `F: Sync` | `T: Send + Sync` | `T: Send + Sync`, `F: Send` |
//!
//! Why [`OnceLock`] and [`LazyLock`] never initialise above `APC_LEVEL`, even where nobody else does just then: a DPC that forces one would work in every test and fail in the one run in which
//! it comes while a thread is initialising. This way it fails in the first. (The routine of a threaded DPC has to be right at
//! `DISPATCH_LEVEL` too, so it forces only what has a value.)
//!
//! # What "never waits" means
//! [`OnceCell`] and [`LazyCell`] move the value into its place with all interrupts of the processor held off (`HIGH_LEVEL`). So nothing on that processor can find the value half written, at any
//! level, and there is nobody who could wait for what he himself has interrupted. Another processor that has lost the race at just that moment turns for the few instructions of the move; `get` and `set`
//! do not even do that. The cell must therefore lie in nonpaged memory, as statics of a driver and what is in a [`KBox`](crate::pool::KBox) do. (A non-maskable interrupt is held off by nothing: its callbacks may only `get`.)
//!
//! # Statics
//! A static is never dropped: what the value of a static owns is still there when the driver has been unloaded. Keep such values in the driver's state, or take them out in the unload routine with `take_unchecked`.
//!
//! Hosted, an ordinary static is one for all machines of the process, as the tests of one binary are, whereas each loaded image has its own in a kernel. Put cells
//! that tests fill into the driver's state, or into a [`ImageLocal`](crate::sys::ImageLocal), or run the tests that use them one after another and take the value out at the end of each. What a
//! machine leaves that stops in an initialiser, as by a bug check, is a static that is being initialised for ever.
//!
//! # Examples
//! ```
//! use ksync::error::Result;
//! use ksync::lazy::LazyLock;
//!
//! static SQUARES: LazyLock<[u32; 8]> = LazyLock::new(|| {
//!     ksync::println!("once");
//!     core::array::from_fn(|i| (i * i) as u32)
//! });
//!
//! fn square(i: usize) -> Result<u32> {
//!     Ok(LazyLock::force(&SQUARES)?[i])
//! }
//!
//! # let outcome = ksim::Machine::new().run(|| {
//! assert_eq!(square(3), Ok(9));
//! assert_eq!(SQUARES[4], 16); // as short as it gets, for where an error is impossible
//! # });
//! # assert_eq!(outcome.expect_clean().debug_output(), ["once"]);
//! ```
//!
//! [`IRQL_TOO_HIGH`]: NtError::IRQL_TOO_HIGH
//! [`WOULD_DEADLOCK`]: NtError::WOULD_DEADLOCK
//! [`INVALID_DEVICE_STATE`]: NtError::INVALID_DEVICE_STATE

mod lazy_cell;
mod lazy_lock;
mod once;
mod once_cell;
mod once_lock;

pub use lazy_cell::LazyCell;
pub use lazy_lock::LazyLock;
pub use once_cell::OnceCell;
pub use once_lock::{NotSet, OnceLock};

use core::fmt;

use ksync_sys as sys;

use crate::error::NtError;
use crate::irql;

/// The bug check for a [`LazyCell`] or [`LazyLock`] that is dereferenced where [forcing](LazyLock::force) it is an error.
///
/// The first parameter is the cell's address, the second the error's status, the third the level. The digits spell `ksyl`.
pub const DEREFERENCED_IN_VAIN: u32 = 0x6B73_796C;

/// Stops the system: a dereference has no other way to say that there is no value.
#[cold]
fn dereferenced_in_vain<T>(cell: &T, error: NtError) -> ! {
    let cell = core::ptr::from_ref(cell).addr();
    // CAST: the status, sign-extended as C does it.
    let status = error.status().0 as usize;
    let level = usize::from(irql::current().get());
    // SAFETY: the routine may be called anywhere, and does not return.
    unsafe { sys::KeBugCheckEx(DEREFERENCED_IN_VAIN, cell, status, level, 0) }
}

/// Shows a cell by its type's name and its value.
fn fmt_cell<T: fmt::Debug>(name: &str, value: Option<&T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut tuple = f.debug_tuple(name);
    match value {
        Some(value) => tuple.field(value),
        None => tuple.field(&format_args!("<uninit>")),
    };
    tuple.finish()
}
