//! The engine of the hosted kernel: the state of one machine and the operations on it.
//!
//! Everything here is ordinary single-threaded Rust over one [`Kernel`] value. No function of the engine switches
//! contexts or runs driver code: an operation that blocks its caller, readies another thread or queues a DPC only changes
//! the state, and the export that called it gives control to the machine's loop afterwards (`machine.rs`).

mod addresses;
pub(crate) mod apc;
pub(crate) mod broadcast;
pub(crate) mod callback;
pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod dispatch;
pub(crate) mod dpc;
mod dpc_removal;
pub(crate) mod driver;
pub(crate) mod event;
pub(crate) mod ex_timer;
pub(crate) mod fast_mutex;
pub(crate) mod generic_dpc;
pub(crate) mod groups;
pub(crate) mod io;
pub(crate) mod kernel;
pub(crate) mod layout;
mod liveness;
pub(crate) mod mutant;
pub(crate) mod ob;
pub(crate) mod object;
pub(crate) mod pool;
pub(crate) mod processor;
pub(crate) mod push_lock;
pub(crate) mod queue;
pub(crate) mod races;
pub(crate) mod resource;
pub(crate) mod run_once;
pub(crate) mod rundown;
pub(crate) mod semaphore;
pub(crate) mod spare;
pub(crate) mod spin;
pub(crate) mod spin_rw;
pub(crate) mod spinning;
pub(crate) mod thread;
pub(crate) mod timer;
pub(crate) mod timer_object;
pub(crate) mod turns;
mod unwinding;
pub(crate) mod wait;

pub(crate) use kernel::{Check, Fault, Kernel, Stop};
pub(crate) use object::Kind;
pub(crate) use processor::Cpu;
pub(crate) use thread::Tid;
