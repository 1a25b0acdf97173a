//! Safe synchronization for Windows kernel drivers.
//!
//! Threads, locks, events, semaphores, timers, DPCs and the waits on them, as a kernel driver in Rust wants them: an operation
//! called at too high an IRQL is an [`Err`](error::NtError) and not a bug check, an object that the kernel links to cannot be moved,
//! a guard releases what it acquired and cannot leave its thread, and a callback is freed once and only after it can no longer run.
//!
//! The same source runs as a native `.sys` and, hosted, in an ordinary process on `ksim`, a deterministic NT kernel with
//! virtual time. Every example in these docs is run on it.
//!
//! # Examples
//! Four threads count together:
//! ```
//! use ksync::{error::Result, mutex::FastLocked, thread};
//!
//! fn count() -> Result<u32> {
//!     let counter = FastLocked::new(0u32)?;
//!     thread::scope(|scope| {
//!         for _ in 0..4 {
//!             scope.spawn(|| {
//!                 for _ in 0..100 {
//!                     *counter.lock().unwrap() += 1;
//!                 }
//!             })?;
//!         }
//!         Result::<()>::Ok(())
//!     })?;
//!     Ok(counter.into_inner())
//! }
//! # ksim::Machine::new().processors(4).run(|| assert_eq!(count(), Ok(400))).expect_clean();
//! ```
//!
//! # Which module
//! | module | for |
//! |---|---|
//! | [`mutex`] | data behind a lock: fast, guarded and spin mutexes, executive resources, push locks, `KMUTEX` |
//! | [`lazy`] | values that are made once, when they are first asked for |
//! | [`grt`] | values that are found by name |
//! | [`event`], [`semaphore`] | threads that signal each other |
//! | [`sync`] | atomics and plain shared memory that a search of schedules sees |
//! | [`wait`] | waiting for one, any or all of several objects |
//! | [`thread`] | system threads, and what a thread asks about itself |
//! | [`dpc`], [`timer`] | code that runs at `DISPATCH_LEVEL`, now, on a processor of one's choice, or later |
//! | [`work_item`] | code that a thread of the system's runs at `PASSIVE_LEVEL` |
//! | [`device`], [`remove_lock`] | devices, the requests for them, and their removal |
//! | [`object`], [`handle`] | references to threads and processes, and handles |
//! | [`irql`], [`region`] | raising the level, holding APCs back |
//! | [`time`] | timeouts and clocks |
//! | [`pool`], [`init`] | nonpaged memory, and objects that are made where they stay |
//! | [`alloc`], [`lookaside`] | pool for collections and as the global allocator; lists of blocks of one size |
//! | [`driver`] | the driver object, its entry and its unload |
//! | [`error`] | status codes and errors |
//!
//! # Where an object lives
//! The kernel links events, mutexes and timers into lists of its own, so they must lie in nonpaged memory and must not move.
//! There are three ways to have one, and each type offers those that fit it:
//! 1. *In a static*, where all of the object is one word that starts as zero (a spin lock, a push lock): `const_new`.
//! 2. *In place*, as a pinned field of a larger structure such as a device extension: `pin_init`, see [`init`].
//! 3. *In its own box* of nonpaged pool: `new(..)?`. Such a value can be moved freely, because only the box's address moves.
//!
//! # Threads of execution and panics
//! Nothing here panics: every failure is a [`Result`](error::Result). A driver is built with `panic = "abort"`. Hosted, a panic of the driver's own code
//! unwinds to `ksim`, which reports it; guards then release what they hold.
#![no_std]
#![cfg_attr(feature = "nightly", feature(allocator_api))]

// Modules that other modules here cannot do without come first; the order below is that of the layers.
pub mod error;
pub mod irql;

pub mod alloc;
pub mod init;
pub mod lookaside;
pub mod pool;
pub mod region;

pub mod mutex;

pub mod device;
pub mod dpc;
pub mod driver;
pub mod event;
pub mod grt;
pub mod handle;
pub mod lazy;
pub mod object;
#[doc(hidden)]
pub mod print;
pub mod remove_lock;
mod routine;
pub mod semaphore;
pub mod sync;
pub mod thread;
pub mod time;
pub mod timer;
pub mod wait;
pub mod work_item;

pub use error::{NtError, NtStatus};

/// The raw ABI underneath.
pub use ksync_sys as sys;

/// What the page on the simulator shows, compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/simulator.md")]
struct Simulator;

/// The example of the project's readme, compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
