//! What a run reports: bug checks, panics, deadlocks, leaks, the trace.

pub(crate) mod bug_check;
mod json;
pub(crate) mod outcome;
mod perfetto;
pub(crate) mod sites;
pub(crate) mod state;
mod text;
pub(crate) mod timeline;
pub(crate) mod trace;
pub(crate) mod wait_graph;

pub use bug_check::{BugCheck, CallSite, RelatedSite};
pub use outcome::{DriverPanic, End, Left, ObjectLeft, Outcome, PoolLeft, Statistics, UsesLeft};
pub use state::{HeldLock, ProcessorState, ThreadState};
pub use text::Report;
pub use wait_graph::{WaitGraph, WaitingThread};
