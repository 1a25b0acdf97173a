//! Requests, devices, work items, remove locks and device queues.

use super::{address, expected, misuse, misuse_on};
use ksim::Machine;
use ksync_sys::*;
use std::ptr::null_mut;
use test_support::io::*;
use test_support::*;

type Dispatch = fn(*mut DEVICE_OBJECT, *mut IRP) -> NTSTATUS;

/// Sends a request to a driver whose routine does `wrong`.
fn dispatching(wrong: Dispatch) {
    let sample = Sample::load("sample");
    sample.on(IRP_MJ_DEVICE_CONTROL, wrong);
    let _ = sample.open().device_control(BUFFERED, &[1], 1);
}

#[test]
fn request_completed_twice() {
    misuse(&expected!(request_completed_twice, 0x44, [], "IofCompleteRequest", 0), || {
        dispatching(|_, irp| {
            succeed(irp);
            raw!(IofCompleteRequest(irp, 0));
            STATUS_SUCCESS
        });
    });
}

#[test]
fn request_completed_with_its_cancel_routine_set() {
    unsafe extern "system-unwind" fn cancel(_device: *mut DEVICE_OBJECT, _irp: *mut IRP) {}
    misuse(&expected!(request_completed_with_its_cancel_routine_set, 0x48, [], "IofCompleteRequest", 0), || {
        dispatching(|_, irp| {
            raw!(IoSetCancelRoutine(irp, Some(cancel)));
            raw!((*irp).IoStatus.u.Status = STATUS_SUCCESS);
            raw!(IofCompleteRequest(irp, 0));
            STATUS_SUCCESS
        });
    });
}

#[test]
fn request_completed_as_pending() {
    misuse(&expected!(request_completed_as_pending, 0xc9, [Some(6), Some(0x103)], "IofCompleteRequest", 0), || {
        dispatching(|_, irp| {
            raw!((*irp).IoStatus.u.Status = STATUS_PENDING);
            raw!(IofCompleteRequest(irp, 0));
            STATUS_PENDING
        });
    });
}

#[test]
fn request_without_a_stack_location() {
    misuse(&expected!(request_without_a_stack_location, 0x35, [], "IofCallDriver", 0), || {
        dispatching(|device, irp| raw!(IofCallDriver(device, irp)));
    });
}

#[test]
fn request_of_a_thread_freed() {
    misuse(&expected!(request_of_a_thread_freed, 0xc9, [Some(2)], "IoFreeIrp", 0), || {
        dispatching(|_, irp| {
            raw!(IoFreeIrp(irp));
            STATUS_SUCCESS
        });
    });
}

#[test]
fn request_freed_with_the_pool_routine() {
    misuse(&expected!(request_freed_with_the_pool_routine, 0xc2, [Some(0x46)], "ExFreePool", 0), || {
        raw!(ExFreePool(IoAllocateIrp(1, FALSE).cast()));
    });
}

#[test]
fn request_freed_twice() {
    misuse(&expected!(request_freed_twice, 0xc4, [Some(0x1002)], "IoFreeIrp", 0), || {
        let irp = raw!(IoAllocateIrp(1, FALSE));
        raw!(IoFreeIrp(irp));
        raw!(IoFreeIrp(irp));
    });
}

#[test]
fn device_deleted_twice() {
    misuse(&expected!(device_deleted_twice, 0x18, [], "IoDeleteDevice", 0), || {
        let sample = Sample::load("sample");
        let device = sample.device();
        raw!(ObfReferenceObject(device.cast()));
        raw!(IoDeleteDevice(device));
        raw!(IoDeleteDevice(device));
    });
}

#[test]
fn device_used_after_its_deletion() {
    misuse(&expected!(device_used_after_its_deletion, 0xc4, [Some(0x1002)], "IoAllocateWorkItem", 0), || {
        let sample = Sample::load("sample");
        let device = sample.device();
        raw!(IoDeleteDevice(device));
        raw!(IoAllocateWorkItem(device));
    });
}

#[test]
fn device_detached_twice() {
    misuse(&expected!(device_detached_twice, 0xa, [Some(0)], "IoDetachDevice", 0), || {
        let (lower, upper) = (Sample::load("lower"), Sample::load("upper"));
        raw!(IoAttachDeviceToDeviceStack(upper.device(), lower.device()));
        raw!(IoDetachDevice(lower.device()));
        raw!(IoDetachDevice(lower.device()));
    });
}

#[test]
fn extension_written_past_its_end() {
    let expected = expected!(extension_written_past_its_end, 0xc4, [Some(0x51)], "IoDeleteDevice", 0);
    misuse_on(&Machine::new().special_pool(false), &expected, || {
        let sample = Sample::try_load("sample", 24).expect("the driver loads");
        let device = sample.device();
        raw!((*device).DeviceExtension.cast::<u8>().add(24).write(1));
        raw!(IoDeleteDevice(device));
    });
}

#[test]
fn device_with_an_armed_timer_deleted() {
    misuse(&expected!(device_with_an_armed_timer_deleted, 0xc4, [Some(0x15)], "IoDeleteDevice", 0), || {
        let sample = Sample::try_load("sample", 64).expect("the driver loads");
        let device = sample.device();
        let timer: *mut KTIMER = raw!((*device).DeviceExtension).cast();
        raw!(KeInitializeTimer(timer));
        raw!(KeSetTimer(timer, -SECOND, null_mut()));
        raw!(IoDeleteDevice(device));
    });
}

unsafe extern "system-unwind" fn work(_parameter: PVOID) {}
unsafe extern "system-unwind" fn io_work(_device: *mut DEVICE_OBJECT, _context: PVOID) {}

#[test]
fn work_item_queued_twice() {
    let item: Place<WORK_QUEUE_ITEM> = Place::zeroed();
    let expected = expected!(work_item_queued_twice, 0xe4, [Some(1), address(item.ptr())], "ExQueueWorkItem", 2);
    misuse(&expected, || {
        raw!(ExInitializeWorkItem(item.ptr(), Some(work), null_mut()));
        raise_all();
        raw!(ExQueueWorkItem(item.ptr(), BackgroundWorkQueue));
        raw!(ExQueueWorkItem(item.ptr(), BackgroundWorkQueue));
    });
}

#[test]
fn work_item_freed_while_queued() {
    misuse(&expected!(work_item_freed_while_queued, 0xe4, [Some(0)], "ExFreePoolWithTag", 2), || {
        let item: *mut WORK_QUEUE_ITEM = allocate(size_of::<WORK_QUEUE_ITEM>()).cast();
        raw!(ExInitializeWorkItem(item, Some(work), null_mut()));
        raise_all();
        raw!(ExQueueWorkItem(item, BackgroundWorkQueue));
        raw!(ExFreePoolWithTag(item.cast(), TAG));
    });
}

#[test]
fn io_work_item_queued_twice() {
    misuse(&expected!(io_work_item_queued_twice, 0xe4, [Some(1)], "IoQueueWorkItem", 2), || {
        let item = raw!(IoAllocateWorkItem(Sample::load("sample").device()));
        raise_all();
        raw!(IoQueueWorkItem(item, Some(io_work), BackgroundWorkQueue, null_mut()));
        raw!(IoQueueWorkItem(item, Some(io_work), BackgroundWorkQueue, null_mut()));
    });
}

#[test]
fn io_work_item_freed_while_queued() {
    misuse(&expected!(io_work_item_freed_while_queued, 0xe4, [Some(2)], "IoFreeWorkItem", 2), || {
        let item = raw!(IoAllocateWorkItem(Sample::load("sample").device()));
        raise_all();
        raw!(IoQueueWorkItem(item, Some(io_work), BackgroundWorkQueue, null_mut()));
        raw!(IoFreeWorkItem(item));
    });
}

#[test]
fn io_work_item_initialised_while_queued() {
    misuse(&expected!(io_work_item_initialised_while_queued, 0xe4, [Some(3)], "IoInitializeWorkItem", 2), || {
        let device = Sample::load("sample").device();
        let memory: Place<[u64; 16]> = Place::zeroed();
        raw!(IoInitializeWorkItem(device.cast(), memory.ptr().cast()));
        raise_all();
        raw!(IoQueueWorkItem(memory.ptr().cast(), Some(io_work), BackgroundWorkQueue, null_mut()));
        raw!(IoInitializeWorkItem(device.cast(), memory.ptr().cast()));
    });
}

/// Raises the level, after every processor has been given something that never ends: what is queued from now on stays queued.
fn raise_all() {
    raise(DISPATCH_LEVEL);
    let others: &'static [Place<WORK_QUEUE_ITEM>] = Box::leak((0..8).map(|_| Place::zeroed()).collect());
    unsafe extern "system-unwind" fn endless(_parameter: PVOID) {
        loop {
            raw!(KeStallExecutionProcessor(1));
        }
    }
    for other in others {
        raw!(ExInitializeWorkItem(other.ptr(), Some(endless), null_mut()));
        raw!(ExQueueWorkItem(other.ptr(), CriticalWorkQueue));
    }
}

#[test]
fn worker_routine_that_returns_at_a_raised_level() {
    unsafe extern "system-unwind" fn raises(_parameter: PVOID) {
        raise(APC_LEVEL);
    }
    let stop = crash(0xe1, || {
        let item: Place<WORK_QUEUE_ITEM> = Place::zeroed();
        raw!(ExInitializeWorkItem(item.ptr(), Some(raises), null_mut()));
        raw!(ExQueueWorkItem(item.ptr(), DelayedWorkQueue));
        settle();
    });
    assert_eq!(stop.parameters[..2], [raises as *const () as u64, 1]);
}

#[test]
fn worker_routine_that_returns_with_apcs_disabled() {
    unsafe extern "system-unwind" fn enters(_parameter: PVOID) {
        raw!(KeEnterCriticalRegion());
    }
    let stop = crash(0x1, || {
        let item: Place<WORK_QUEUE_ITEM> = Place::zeroed();
        raw!(ExInitializeWorkItem(item.ptr(), Some(enters), null_mut()));
        raw!(ExQueueWorkItem(item.ptr(), DelayedWorkQueue));
        settle();
    });
    assert_eq!((stop.parameters[0], stop.parameters[3]), (enters as *const () as u64, 1));
}

#[test]
fn remove_lock_released_by_nobody() {
    misuse(&expected!(remove_lock_released_by_nobody, 0xc4, [Some(0x6b73_0006)], "IoReleaseRemoveLockEx", 0), || {
        let lock: Place<IO_REMOVE_LOCK> = Place::zeroed();
        raw!(IoInitializeRemoveLock(lock.ptr(), TAG, 0, 0));
        raw!(IoReleaseRemoveLock(lock.ptr(), null_mut()));
    });
}

#[test]
fn remove_lock_released_with_another_tag() {
    misuse(
        &expected!(remove_lock_released_with_another_tag, 0xc4, [Some(0x6b73_0006)], "IoReleaseRemoveLockAndWaitEx", 0),
        || {
            let lock: Place<IO_REMOVE_LOCK> = Place::zeroed();
            raw!(IoInitializeRemoveLock(lock.ptr(), TAG, 0, 0));
            raw!(IoAcquireRemoveLock(lock.ptr(), 1 as PVOID));
            raw!(IoReleaseRemoveLockAndWait(lock.ptr(), 2 as PVOID));
        },
    );
}

#[test]
fn remove_lock_that_is_not_initialised() {
    misuse(&expected!(remove_lock_that_is_not_initialised, 0xc4, [Some(0x1002)], "IoAcquireRemoveLockEx", 0), || {
        let lock: Place<IO_REMOVE_LOCK> = Place::zeroed();
        raw!(IoAcquireRemoveLock(lock.ptr(), null_mut()));
    });
}

#[test]
fn device_queue_below_dispatch_level() {
    misuse(&expected!(device_queue_below_dispatch_level, 0xc4, [Some(0x2_0003)], "KeRemoveDeviceQueue", 0), || {
        let queue: Place<KDEVICE_QUEUE> = Place::zeroed();
        raw!(KeInitializeDeviceQueue(queue.ptr()));
        raw!(KeRemoveDeviceQueue(queue.ptr()));
    });
}

#[test]
fn device_queue_entry_inserted_twice() {
    misuse(&expected!(device_queue_entry_inserted_twice, 0x96, [], "KeInsertDeviceQueue", 2), || {
        let (queue, entry): (Place<KDEVICE_QUEUE>, Place<KDEVICE_QUEUE_ENTRY>) = (Place::zeroed(), Place::zeroed());
        raw!(KeInitializeDeviceQueue(queue.ptr()));
        raise(DISPATCH_LEVEL);
        for _ in 0..3 {
            raw!(KeInsertDeviceQueue(queue.ptr(), entry.ptr()));
        }
    });
}

/// What dispatch routines do wrong that is seen when they have returned.
#[test]
fn dispatch_routines_that_answer_wrongly() {
    let wrong: [(&str, Dispatch); 6] = [
        ("neither completed the request nor passed it on", |_, _| STATUS_SUCCESS),
        ("has not marked pending", |_, _| STATUS_PENDING),
        ("returned another status than STATUS_PENDING", |_, irp| {
            raw!(IoMarkIrpPending(irp));
            succeed(irp)
        }),
        ("for a request that was not marked pending", |_, irp| {
            succeed(irp);
            STATUS_PENDING
        }),
        ("than the request was completed with", |_, irp| {
            succeed(irp);
            STATUS_UNSUCCESSFUL
        }),
        ("more than its output buffer", |_, irp| complete(irp, STATUS_SUCCESS, 99)),
    ];
    for (meaning, routine) in wrong {
        let stop = crash(0xc9, || dispatching(routine));
        assert!(stop.meaning.contains(meaning), "{stop}");
        assert_eq!(stop.parameters[0], 0x200);
    }
}

unsafe extern "system-unwind" fn stops_itself(device: *mut DEVICE_OBJECT, _context: PVOID) {
    raw!(IoStopTimer(device));
}

unsafe extern "system-unwind" fn keeps_a_lock(_device: *mut DEVICE_OBJECT, context: PVOID) {
    raw!(KeAcquireSpinLockAtDpcLevel(context.cast()));
}

unsafe extern "system-unwind" fn does_nothing(_device: *mut DEVICE_OBJECT, _context: PVOID) {}

/// Starts a device's timer, and lets it come.
fn timing(routine: IO_TIMER_ROUTINE, context: PVOID) {
    let sample = Sample::load("sample");
    assert_eq!(raw!(IoInitializeTimer(sample.device(), Some(routine), context)), STATUS_SUCCESS);
    raw!(IoStartTimer(sample.device()));
    sleep(2 * SECOND);
}

#[test]
fn device_timer_stopped_in_its_own_routine() {
    let stop = crash(0xf, || timing(stops_itself, null_mut()));
    assert_ne!(stop.parameters[0], 0);
    assert_eq!((stop.routine, stop.irql), (Some("IoStopTimer"), DISPATCH_LEVEL));
    assert!(stop.meaning.contains("timer routine"), "{stop}");
}

#[test]
fn device_timer_routine_returned_with_a_spin_lock() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let stop = crash(0xc4, || timing(keeps_a_lock, lock.object()));
    assert_eq!(stop.parameters[..2], [0x4_000a, lock.ptr() as u64]);
    assert!(stop.meaning.contains("a device's timer routine returned"), "{stop}");
}

#[test]
fn device_timer_started_without_one() {
    misuse(&expected!(device_timer_started_without_one, 0xc4, [Some(0x1002)], "IoStartTimer", 0), || {
        let sample = Sample::load("sample");
        raw!(IoStartTimer(sample.device()));
    });
}

#[test]
fn device_timer_stopped_without_one() {
    // The level is that of the lock that it takes.
    misuse(&expected!(device_timer_stopped_without_one, 0xc4, [Some(0x1002)], "IoStopTimer", 2), || {
        let sample = Sample::load("sample");
        raw!(IoStopTimer(sample.device()));
    });
}

#[test]
fn device_timer_initialised_again_while_started() {
    misuse(&expected!(device_timer_initialised_again_while_started, 0xc4, [Some(0x1005)], "IoInitializeTimer", 0), || {
        let sample = Sample::load("sample");
        assert_eq!(raw!(IoInitializeTimer(sample.device(), Some(does_nothing), null_mut())), STATUS_SUCCESS);
        raw!(IoStartTimer(sample.device()));
        raw!(IoInitializeTimer(sample.device(), Some(does_nothing), null_mut()));
    });
}

#[test]
fn device_timer_without_a_routine() {
    misuse(&expected!(device_timer_without_a_routine, 0xc4, [Some(0x6b73_0005)], "IoInitializeTimer", 0), || {
        let sample = Sample::load("sample");
        raw!(IoInitializeTimer(sample.device(), None, null_mut()));
    });
}

#[test]
fn device_timer_initialised_at_dispatch_level() {
    misuse(&expected!(device_timer_initialised_at_dispatch_level, 0xa, [Some(0), Some(2)], "IoInitializeTimer", 2), || {
        let sample = Sample::load("sample");
        raise(DISPATCH_LEVEL);
        raw!(IoInitializeTimer(sample.device(), Some(does_nothing), null_mut()));
    });
}

#[test]
fn driver_extension_of_no_driver() {
    misuse(&expected!(driver_extension_of_no_driver, 0xa, [Some(0), Some(0)], "IoGetDriverObjectExtension", 0), || {
        raw!(IoGetDriverObjectExtension(null_mut(), null_mut()));
    });
}
