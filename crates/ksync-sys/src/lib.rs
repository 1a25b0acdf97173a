//! The raw NT kernel ABI that synchronization needs: types with asserted layout, status codes, routine declarations and
//! the inlines of the WDK's headers. There is no logic here.
//!
//! Names are NT's own, so that what is written about `KeSetEvent` or `KDPC` anywhere applies here word for word. Everything
//! is re-exported at the root. For safe types over these, use the `ksync` crate.
//!
//! # Targets
//! The layouts are those of 64-bit Windows on x86-64 and ARM64. The crate compiles for every 64-bit host.
//!
//! # Where the routines come from
//! *In a driver* (Windows target, feature `hosted` off) every routine is imported by name with raw-dylib: no import library and no
//! WDK takes part. They come from `ntoskrnl.exe`, but for two that all Windows have in `hal.dll`. An image imports
//! only what it calls. A routine that the running system does not export stops the whole driver from loading, so the docs say so
//! of each routine that Windows 7 lacks.
//!
//! *Hosted* (any other target, or feature `hosted`) every routine is an undefined symbol of the same name, which `ksim`, the hosted
//! kernel, defines. `ksim` turns the feature on; a driver never does.
//!
//! A few routines are inlines in the WDK's headers and have to be in a driver, but are exports of `ksim`: `KeGetCurrentIrql` (on
//! x86-64), `KeQueryInterruptTime`, `KeQuerySystemTime` and `KeQueryTickCount`.
//!
//! For each routine there is also a type of the same name, its function pointer type, which pins signatures. Links in documentation need
//! `fn@KeClearEvent` to tell the two apart.
//! ```
//! unsafe extern "system-unwind" fn my_ke_clear_event(Event: *mut ksync_sys::KEVENT) {
//!     # let _ = Event;
//!     // ...
//! }
//! # #[cfg(any(not(windows), feature = "hosted"))]
//! const _: ksync_sys::KeClearEvent = my_ke_clear_event;
//! ```
//!
//! # Calling conventions
//! Routines are `extern "system"` in a driver, where nothing unwinds, and `extern "system-unwind"` hosted, where a driver's panic passes
//! through them. Callback types are `extern "system-unwind"` in both, so that one source serves both. On 64-bit Windows the two
//! names mean the same calls.
//!
//! # Layouts
//! Sizes and offsets are asserted here at compile time, and compared with the mingw-w64 DDK headers and with `windows-sys` in tests.
//! Bit fields and unions of C are one field of their underlying type here.
//!
//! # Safety
//! Every routine is an `unsafe` foreign function, and so is every inline. What is asked of the caller is the same
//! for all of them, and is therefore said once, here:
//! - pointers are valid for what their name and type say, for as long as the kernel may use them, which for objects on
//!   a wait list or a queue is longer than the call;
//! - an object has been initialised by its `...Initialize...` routine, has not been moved since, and lies in nonpaged memory unless
//!   the docs say otherwise;
//! - the caller runs at an IRQL that the routine's `# IRQL` line admits;
//! - releases pair with acquires, by the same thread or on the same processor.
//!
//! What a routine asks beyond that stands in its own docs.
#![no_std]
#![expect(non_snake_case, non_camel_case_types, non_upper_case_globals, reason = "the names are NT's")]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("ksync-sys declares the ABI of 64-bit Windows and needs a 64-bit target");

#[macro_use]
mod macros;

mod access;
pub mod atomic;
mod base;
mod dispatcher;
mod dpc;
mod image_local;
mod information;
mod inlines;
mod interrupt;
mod io;
mod lock;
mod lock_class;
mod lookaside;
mod object;
mod routines;
mod status;

pub use access::*;
pub use base::*;
pub use dispatcher::*;
pub use dpc::*;
pub use image_local::ImageLocal;
pub use information::*;
pub use inlines::*;
pub use interrupt::*;
pub use io::*;
pub use lock::*;
pub use lock_class::classify_lock;
pub use lookaside::*;
pub use object::*;
pub use routines::*;
pub use status::*;
