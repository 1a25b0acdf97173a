//! StartIo: one request at a time for a device, the others in its queue.

use super::cancel::{acquire_lock, release_lock};
use crate::check::rules::RuleId;
use crate::engine::io::device::NextPacket;
use crate::engine::io::routine::Routine;
use crate::engine::layout;
use crate::exports::ke::device_queue::AT_DISPATCH;
use crate::exports::ke::spin_lock::raise_to_dispatch;
use crate::exports::{IO_DISPATCH, exports};
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{BOOLEAN, DEVICE_OBJECT, IRP, KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY, PDRIVER_CANCEL, ULONG};
use std::mem::offset_of;

fn queue_of(device: *mut DEVICE_OBJECT) -> *mut KDEVICE_QUEUE {
    device.wrapping_byte_add(offset_of!(DEVICE_OBJECT, DeviceQueue)).cast()
}

/// A request's entry in a device queue lies at the beginning of its tail.
fn entry_of(irp: *mut IRP) -> *mut KDEVICE_QUEUE_ENTRY {
    irp.wrapping_byte_add(offset_of!(IRP, Tail)).cast()
}

fn irp_of(entry: *mut KDEVICE_QUEUE_ENTRY) -> *mut IRP {
    entry.wrapping_byte_sub(offset_of!(IRP, Tail)).cast()
}

/// Calls the driver's StartIo routine, at DISPATCH_LEVEL.
fn start(call: Call, device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    let (routine, running) = call.operate(|kernel| {
        let id = kernel.device_at(device)?;
        // SAFETY: a registered device's driver is valid.
        let object = unsafe { (*device).DriverObject };
        // SAFETY: as above.
        let routine = unsafe { (*object).DriverStartIo };
        if routine.is_none() {
            return Err(Violation::boxed(
                codes::IRQL_NOT_LESS_OR_EQUAL,
                [0, 2, 8, 0],
                "a packet was started for a driver without a StartIo routine: NT calls address 0",
            ));
        }
        let driver = kernel.device_state(id).driver;
        let running = kernel.enter_driver_routine(Routine::StartIo, routine.map_or(0, |routine| routine as usize), Some(driver));
        Ok((routine, running))
    });
    if let Some(routine) = routine {
        // SAFETY: the driver vouched for the routine when it set it in its object.
        unsafe { crate::image::call(routine, (device, irp)) };
    }
    call.operate(|kernel| kernel.leave_routine(running, None));
}

fn set_current(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    // SAFETY: the callers have checked the device.
    unsafe { (*device).CurrentIrp = irp };
}

/// Takes the next request out of the queue, if there is one, and starts it.
fn start_one(call: Call, device: *mut DEVICE_OBJECT, packet: NextPacket, non_cancelable: bool) {
    let old = packet.cancelable.then(|| acquire_lock(call));
    set_current(device, std::ptr::null_mut());
    let entry = call.operate(|kernel| kernel.remove_device_queue(queue_of(device), packet.key));
    let irp = if entry.is_null() { std::ptr::null_mut() } else { irp_of(entry) };
    set_current(device, irp);
    if let Some(old) = old {
        if non_cancelable && !irp.is_null() {
            // SAFETY: the request was in the queue, and cannot be cancelled while the cancel spin lock is held.
            unsafe { layout::exchange_cancel_routine(irp, None) };
        }
        release_lock(call, old);
    }
    if !irp.is_null() {
        start(call, device, irp);
    }
}

/// Starts the next request, or leaves that to who is starting one, if the driver has asked for it.
fn start_next(call: Call, device: *mut DEVICE_OBJECT, packet: NextPacket) {
    let state = call.operate(|kernel| {
        let id = kernel.device_at(device)?;
        if kernel.config.rules.has(RuleId::SpinLockSafe)
            && let Some(lock) = kernel.drivers_spin_lock()
        {
            let lock = kernel.objects[lock].address as u64;
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::SPIN_LOCK_SAFE, lock, device as u64, 0],
                "IoStartNextPacket was called under a spin lock (rule SpinLockSafe): it calls the StartIo routine",
            ));
        }
        let start = &mut kernel.device_state_mut(id).start;
        let before = *start;
        if before.deferred && before.starting {
            start.next = Some(packet);
        } else if before.deferred {
            start.starting = true;
        }
        Ok(before)
    });
    if !state.deferred {
        start_one(call, device, packet, state.non_cancelable);
        return;
    }
    if state.starting {
        return;
    }
    let mut next = Some(packet);
    while let Some(packet) = next {
        start_one(call, device, packet, state.non_cancelable);
        next = call.operate(|kernel| {
            let id = kernel.device_at(device)?;
            let start = &mut kernel.device_state_mut(id).start;
            let next = start.next.take();
            start.starting = next.is_some();
            Ok(next)
        });
    }
}

exports! {
    [IO_DISPATCH] visible fn IoStartPacket(
        call; DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP, Key: *mut ULONG, CancelFunction: PDRIVER_CANCEL
    ) {
        call.operate(|kernel| {
            kernel.irp_at(Irp)?;
            kernel.device_at(DeviceObject)
        });
        let cancelable = CancelFunction.is_some();
        let old = if cancelable { acquire_lock(call) } else { raise_to_dispatch(call) };
        if cancelable {
            // SAFETY: the request is registered.
            unsafe { layout::exchange_cancel_routine(Irp, CancelFunction) };
        }
        // SAFETY: the caller passes null or a valid pointer.
        let key = unsafe { Key.as_ref() }.copied();
        let (queued, state) = call.operate(|kernel| {
            let queued = kernel.insert_device_queue(queue_of(DeviceObject), entry_of(Irp), key)?;
            let id = kernel.device_at(DeviceObject)?;
            Ok((queued, kernel.device_state(id).start))
        });
        if !queued {
            set_current(DeviceObject, Irp);
            if cancelable && state.non_cancelable {
                // SAFETY: as above.
                unsafe { layout::exchange_cancel_routine(Irp, None) };
            }
        }
        // SAFETY: the request is registered, and the driver's own while the cancel spin lock is held.
        let cancelled = queued && cancelable && unsafe { (*Irp).Cancel } != 0;
        let routine = if cancelled {
            // SAFETY: as above.
            unsafe { layout::exchange_cancel_routine(Irp, None) }
        } else {
            None
        };
        if let Some(routine) = routine {
            // SAFETY: as above.
            unsafe { (*Irp).CancelIrql = old };
            // SAFETY: the driver vouched for the routine. It releases the cancel spin lock.
            unsafe { crate::image::call(routine, (DeviceObject, Irp)) };
            return;
        }
        if cancelable {
            // The cancel spin lock is given up, and the level kept.
            release_lock(call, old);
            raise_to_dispatch(call);
        }
        if !queued {
            start(call, DeviceObject, Irp);
        }
        call.operate(|kernel| kernel.set_irql(old));
    }

    [AT_DISPATCH] visible fn IoStartNextPacket(call; DeviceObject: *mut DEVICE_OBJECT, Cancelable: BOOLEAN) {
        start_next(call, DeviceObject, NextPacket { key: None, cancelable: Cancelable != 0 });
    }

    [AT_DISPATCH] visible fn IoStartNextPacketByKey(call; DeviceObject: *mut DEVICE_OBJECT, Cancelable: BOOLEAN, Key: ULONG) {
        start_next(call, DeviceObject, NextPacket { key: Some(Key), cancelable: Cancelable != 0 });
    }

    [IO_DISPATCH] visible fn IoSetStartIoAttributes(
        call; DeviceObject: *mut DEVICE_OBJECT, DeferredStartIo: BOOLEAN, NonCancelable: BOOLEAN
    ) {
        call.operate(|kernel| {
            let id = kernel.device_at(DeviceObject)?;
            let start = &mut kernel.device_state_mut(id).start;
            start.deferred = DeferredStartIo != 0;
            start.non_cancelable = NonCancelable != 0;
            Ok(())
        });
    }
}
