//! What a test does to the machine that it runs on, from inside.

use crate::machine::{Call, current};

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

/// Creates a user process beside the system process, for tests of what drivers do in one. Returns its id.
///
/// # Panics
/// If no machine runs on this thread.
pub fn create_process() -> usize {
    call("create_process").operate(|kernel| {
        let process = kernel.create_process();
        Ok(kernel.ob.processes[process as usize].client_id as usize)
    })
}

/// Runs `code` as if the running thread belonged to the process with that id: its handles are the process' handles.
///
/// # Panics
/// If no machine runs on this thread, or there is no such process.
pub fn in_process<R>(id: usize, code: impl FnOnce() -> R) -> R {
    let call = call("in_process");
    let enter = |process: u32| {
        call.operate(|kernel| {
            let tid = kernel.this_thread();
            Ok(std::mem::replace(&mut kernel.threads[tid as usize].process, process))
        })
    };
    let process = call
        .read(|kernel| kernel.ob.processes.iter().position(|process| process.client_id as usize == id))
        .unwrap_or_else(|| panic!("there is no process with id {id}"));
    let before = enter(process as u32);
    let result = code();
    enter(before);
    result
}

fn call(what: &str) -> Call {
    Call { cell: current(what), export: None }
}
