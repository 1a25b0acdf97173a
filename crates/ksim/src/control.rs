//! What a test does to the machine that it runs on, from inside.

mod apc;
mod interrupt;
mod user;

use crate::engine::{Kind, Tid};
use crate::machine::{Call, current};

pub use apc::{ApcKind, ProcessorMode, alert_thread, queue_apc, request_termination};
pub use interrupt::{InterruptLine, assign_interrupt, interrupt};
pub use user::{create_mutant, create_process, create_semaphore, in_process, release_mutant, release_semaphore, system_call};

/// Sets the system time, in 100 ns units since 1601-01-01 UTC, as an administrator does. Interrupt time and relative timeouts are not
/// affected; absolute ones are (rule 15).
///
/// # Panics
/// If no machine runs on this thread.
pub fn set_system_time(time: i64) {
    call("set_system_time").operate(|kernel| {
        kernel.clock.set_system_time(time);
        kernel.expire()
    });
}

fn call(what: &str) -> Call {
    Call { cell: current(what), export: None }
}

/// The thread with an id.
fn thread_with_id(call: Call, id: usize) -> Tid {
    let found = call.read(|kernel| {
        let object = u32::try_from(id).ok().and_then(|id| kernel.ob.by_client_id(id))?;
        match kernel.objects[object].kind {
            Kind::Thread(tid) => Some(tid),
            _ => None,
        }
    });
    found.unwrap_or_else(|| panic!("there is no thread with id {id}"))
}
