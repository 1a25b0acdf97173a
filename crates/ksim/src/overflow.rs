//! Hosted code that uses up its stack, or touches what is not there: the run ends as it does in NT.
//!
//! # Stacks
//!
//! A stack has three parts. The driver's own code may use all of it; calls of the kernel may come from its upper part only, so that the kernel always has enough. Such a
//! call is seen at its entry ([`at_call`]), on every host, and is a bug check like any other.
//!
//! Below both is the margin, which is not there until it is touched. Code that calls nothing of the kernel on its way down meets it anywhere: in the
//! midst of the host's allocator, of a lock of the standard library, of a change to what it shares with the test. None of that can be left where it stands: the lock would be held for ever, and what
//! is half changed would be seen. So nothing is stopped there (`catch.rs`): the handler of the fault makes the margin memory, and lets the code go on, one instruction at a time, until a function of the driver
//! begins. To leave it there is no more than if that function never returned, as a call of the kernel does that
//! ends in a bug check. What else the code calls until then runs to its end.
//!
//! Where the margin is used up, too, before that is found, and where a panic unwinds, there is no place to stop, and the process ends with a message. On hosts other
//! than x86-64 Linux there is no margin: the guard page below the stack ends the process, as it does for a thread of the host.
//!
//! # Other addresses
//!
//! What else hosted code touches and is not there is a bug check or an exception as an image's is (`access.rs`), at the instruction that did it. What the engine was at then, for who passed the
//! address, is abandoned as it is: nothing else comes of that machine. Where an allocation was under way, or a panic unwinds, nothing can be left where it stands, and the process ends with a message; but
//! while a panic unwinds, pool that is not there is given back to what touches it.

use crate::engine::context;
use crate::exports::Export;
use crate::machine::MachineCell;
use crate::report::bug_check::{Violation, codes};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod access;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod catch;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod symbols;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use access::faulted;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use catch::{step, steps, touched};

/// The running OS thread is about to run a machine.
pub(crate) fn prepare() {
    context::begin_run();
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if let Err(error) = crate::image::prepare_signals() {
        panic!("ksim: no handler for what hosted code does wrong: {error}");
    }
}

/// A call of the kernel that it may have too little stack for.
#[cold]
pub(crate) fn at_call(cell: &MachineCell, export: &'static Export) -> ! {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    catch::end_steps();
    let here = 0_u8;
    let pointer = (&raw const here).addr() as u64;
    let meaning = format!("hosted code ran out of stack: it called {} with {pointer:#x} as its stack pointer", export.name);
    cell.stop_interrupted(*violation(pointer, 0, meaning), Some(export), 0)
}

/// What NT makes of a stack that is used up.
fn violation(stack_pointer: u64, instruction: u64, meaning: String) -> Box<Violation> {
    /// The processor's vector.
    const DOUBLE_FAULT: u64 = 8;
    let parameters = [DOUBLE_FAULT, stack_pointer, instruction, 0];
    Violation::boxed_owned(codes::UNEXPECTED_KERNEL_MODE_TRAP, parameters, meaning)
}
