//! A hosted NT kernel: it runs Windows drivers under test on any machine, deterministically and under every rule.
//!
//! A [`Machine`] has 1 to 64 processors, an NT dispatcher, DPC queues, APCs, pool, an object manager and a virtual clock. It
//! exports the NT routines that `ksync-sys` declares, so that driver code links to it unchanged:
//!
//! ```
//! use ksim::Machine;
//! use ksync_sys::{KEVENT, KeInitializeEvent, KeSetEvent, KeWaitForSingleObject, NotificationEvent};
//!
//! let outcome = Machine::new().processors(2).run(|| {
//!     let mut event = std::mem::MaybeUninit::<KEVENT>::uninit();
//!     let event = event.as_mut_ptr();
//!     // The event outlives its uses and does not move.
//!     unsafe {
//!         KeInitializeEvent(event, NotificationEvent, 0);
//!         KeSetEvent(event, 0, 0);
//!         KeWaitForSingleObject(event.cast(), 0, 0, 0, std::ptr::null());
//!     }
//! });
//! outcome.expect_clean();
//! ```
//!
//! - **Deterministic**: one OS thread runs a machine, and a seed decides everything that NT leaves open. The same seed gives
//!   the same [`Outcome::trace`], byte for byte, on every host.
//! - **Checked**: each call's IRQL, each object's state. What on Windows would be a blue screen is a [`BugCheck`] with NT's code and
//!   parameters, and where it came from; a deadlock comes with its [`WaitGraph`]. The test process lives on.
//! - **Fast**: threads are coroutines, and the clock jumps when all processors are idle. A test that sleeps an hour takes microseconds.
//!
//! The rules are NT's, as the driver documentation states them; `docs/` lists each with its test.

#![cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    allow(dead_code, unused_imports, unused_macros, reason = "what only images use is there where none can run, too")
)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod access;
mod check;
mod config;
mod control;
mod device;
mod driver;
mod engine;
pub mod explore;
mod exports;
mod faults;
mod host;
pub mod image;
mod image_local;
mod irql;
mod lock_class;
mod machine;
mod overflow;
mod report;
pub mod schedule;
mod shared_memory;

/// What happened in a run, operation by operation.
pub mod trace {
    pub use crate::report::sites::SiteId;
    pub use crate::report::trace::{Actor, Event, Operation};
}

pub use check::rules::{Rule, RuleId, WhenOff, rules};
pub use config::{ClockMode, OsProfile};
pub use control::{
    ApcKind, InterruptLine, ProcessorMode, alert_thread, assign_interrupt, create_mutant, create_process, create_semaphore,
    in_process, interrupt, queue_apc, release_mutant, release_semaphore, request_termination, set_system_time, system_call,
};
pub use device::{DeviceHandle, DeviceRequest, IoResult, Requestor, open_device};
pub use driver::{LoadedDriver, load_driver, load_image};
pub use explore::explore;
pub use exports::{Export, IrqlRange, table as exports};
pub use faults::{Fault, FaultKind};
pub use irql::irql_name;
pub use ksync_sys::status_name;
pub use machine::Machine;
pub use report::bug_check::codes as bug_check;
pub use report::{
    BugCheck, CallSite, DriverPanic, End, HeldLock, Left, ObjectLeft, Outcome, PoolLeft, ProcessorState, RelatedSite, Report,
    Statistics, ThreadState, UsesLeft, WaitGraph, WaitingThread,
};
