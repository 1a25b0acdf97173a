//! The kernel proper: dispatcher objects, spin locks, DPCs, APCs, time, processors.

mod calls;
mod dispatcher;
mod processor;
mod spin;

pub use calls::*;
pub use dispatcher::*;
pub use processor::*;
pub use spin::*;
