//! The routines that the kernel exports, one file for each prefix of their names.
#![allow(unused_imports, reason = "which names the files need depends on the target")]

mod dbg;
mod device_queue;
mod ex;
mod hal;
mod io;
mod ke;
mod mm;
mod ob;
mod ps;
mod rtl;
mod zw;

pub use dbg::*;
pub use device_queue::*;
pub use ex::*;
pub use hal::*;
pub use io::*;
pub use ke::*;
pub use mm::*;
pub use ob::*;
pub use ps::*;
pub use rtl::*;
pub use zw::*;
