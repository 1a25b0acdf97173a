//! The routines that the kernel exports, one file for each prefix of their names.
#![cfg_attr(
    all(windows, not(feature = "hosted")),
    expect(unused_imports, reason = "the files' declarations are in modules of their own there, with imports of their own")
)]

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
