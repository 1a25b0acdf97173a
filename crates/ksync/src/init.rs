//! Making objects where they stay.
//!
//! An event, a mutex or a timer is linked into the kernel's lists and cannot move, so it has to be initialised at its final address. An
//! *initialiser* is a value that says how: [`Event::pin_init`](crate::event::Event) and its likes return one, [`pin_init!`] puts several together into one for a
//! whole structure, and [`KBox::pin_init`](crate::pool::KBox::pin_init) or [`stack_pin_init!`] carries it out.
//!
//! # Examples
//! A device extension with a lock inside:
//! ```
//! use ksync::error::{NtError, Result};
//! use ksync::init::{PinInit, pin_data, try_pin_init};
//! use ksync::mutex::PinnedFastLocked;
//! use ksync::pool::KBox;
//!
//! #[pin_data]
//! struct Extension {
//!     #[pin]
//!     queue: PinnedFastLocked<[u32; 4]>,
//!     number: u32,
//! }
//!
//! impl Extension {
//!     fn new(number: u32) -> impl PinInit<Self, NtError> {
//!         try_pin_init!(Self { queue <- PinnedFastLocked::pin_init([0; 4]), number }? NtError)
//!     }
//! }
//!
//! # ksim::Machine::new().run(|| (|| -> Result {
//! let extension = KBox::pin_init(Extension::new(7))?;
//! extension.queue.lock()?[0] = extension.number;
//! assert_eq!(extension.queue.lock()?[0], 7);
//! # Ok(()) })().unwrap()).expect_clean();
//! ```
//!
//! # Where this comes from
//! The items are those of the Rust-for-Linux project. This module is the only place that names their crate.

pub use pinned_init::{
    InPlaceWrite, Init, PinInit, PinnedDrop, init, init_from_closure, pin_data, pin_init, pin_init_from_closure, pinned_drop,
    stack_pin_init, stack_try_pin_init, try_init, try_pin_init,
};
