//! Atomics and plain shared memory that the hosted kernel sees.
//!
//! A search of schedules ([`ksim::explore`](https://docs.rs/ksim)) can only vary what it sees: the calls of NT's routines, and what goes through this module. A driver that
//! synchronizes by atomics of its own takes them from here, and data that those protect goes into a [`RaceCell`].

pub use self::race_cell::RaceCell;

mod race_cell;

/// `core`'s atomics: the types themselves in a driver, and hosted their like, each operation of which is a scheduling point.
///
/// A loop that reads the same values again and again is let wait there until another context writes one of them, or the clock moves, so that such loops end.
///
/// The hosted kernel executes the operations one after the other: it does not show what a weaker order than `SeqCst` lets other processors see, but
/// [`RaceCell`] takes the orders at their word.
pub mod atomic {
    pub use ksync_sys::atomic::{
        AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
        AtomicUsize, Ordering, compiler_fence, fence,
    };
}
