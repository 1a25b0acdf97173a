//! Devices' interrupts.

use super::call;
use ksync_sys::DEVICE_OBJECT;

pub use crate::engine::io::interrupt::InterruptLine;

/// A device asks for the interrupt with that vector, and the processor that runs serves it: the service routines that drivers have connected to it are called, each at its level and with its
/// lock held, until one says that it was its device's. False if none did. What they queue, such as DPCs, runs as soon as the level allows.
///
/// A device is best a thread of its own, on another processor than the driver's: then searches find what its interrupts may come between.
///
/// # Panics
/// If no machine runs on this thread, or the processor is at the interrupt's level or above, which would hold it back.
pub fn interrupt(vector: u32) -> bool {
    crate::exports::io::interrupt::serve(call("interrupt"), vector)
}

/// What plug and play does on Windows before it starts a device: the physical device object has that line from now on, which a driver of the device connects by `IoConnectInterruptEx` without
/// knowing it (`CONNECT_LINE_BASED`).
///
/// # Panics
/// If no machine runs on this thread.
pub fn assign_interrupt(device: *mut DEVICE_OBJECT, line: InterruptLine) {
    call("assign_interrupt").read(|kernel| kernel.assign_interrupt(device, line));
}
