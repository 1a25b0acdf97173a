//! Rule 62 where it concerns the I/O manager: work items, and what keeps a driver's image.

use ksim::{Machine, load_driver};
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::null_mut;
use test_support::io::*;
use test_support::*;

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
    static ITEM: Cell<*mut IO_WORKITEM> = const { Cell::new(null_mut()) };
}

unsafe extern "system-unwind" fn count(_parameter: PVOID) {
    assert_eq!(irql(), PASSIVE_LEVEL);
    RUNS.set(RUNS.get() + 1);
}

unsafe extern "system-unwind" fn slow_io(_device: *mut DEVICE_OBJECT, _context: PVOID) {
    sleep(MS);
    RUNS.set(RUNS.get() + 1);
}

fn item(routine: WORKER_THREAD_ROUTINE, parameter: PVOID) -> Place<WORK_QUEUE_ITEM> {
    let item = Place::zeroed();
    raw!(ExInitializeWorkItem(item.ptr(), Some(routine), parameter));
    item
}

#[test]
fn a_work_item_runs_in_a_system_thread_at_passive_level() {
    explore(|| {
        RUNS.set(0);
        let items: Vec<_> = (0..5).map(|_| item(count, null_mut())).collect();
        at(DISPATCH_LEVEL, || {
            for item in &items {
                raw!(ExQueueWorkItem(item.ptr(), DelayedWorkQueue));
            }
        });
        settle();
        assert_eq!(RUNS.get(), 5);
    });
}

#[test]
fn a_work_item_is_queued_again_from_its_own_routine() {
    unsafe extern "system-unwind" fn again(parameter: PVOID) {
        RUNS.set(RUNS.get() + 1);
        if RUNS.get() < 3 {
            raw!(ExQueueWorkItem(parameter.cast(), CriticalWorkQueue));
        }
    }
    run(|| {
        RUNS.set(0);
        let item: Place<WORK_QUEUE_ITEM> = Place::zeroed();
        raw!(ExInitializeWorkItem(item.ptr(), Some(again), item.object()));
        raw!(ExQueueWorkItem(item.ptr(), CriticalWorkQueue));
        settle();
        assert_eq!(RUNS.get(), 3);
    });
}

#[test]
fn queues_have_their_priorities() {
    unsafe extern "system-unwind" fn check(parameter: PVOID) {
        assert_eq!(own_priority(), parameter as i32);
        RUNS.set(RUNS.get() + 1);
    }
    run(|| {
        RUNS.set(0);
        let queues = [
            (CriticalWorkQueue, 13),
            (DelayedWorkQueue, 12),
            (HyperCriticalWorkQueue, 15),
            (NormalWorkQueue, 8),
            (BackgroundWorkQueue, 7),
            (RealTimeWorkQueue, 18),
            (SuperCriticalWorkQueue, 14),
        ];
        let items = queues.map(|(_, priority)| item(check, priority as PVOID));
        for ((queue, _), item) in queues.iter().zip(&items) {
            raw!(ExQueueWorkItem(item.ptr(), *queue));
        }
        settle();
        assert_eq!(RUNS.get(), 7);
    });
}

#[test]
fn the_machine_does_not_end_before_its_work() {
    unsafe extern "system-unwind" fn sleeper(_parameter: PVOID) {
        sleep(SECOND);
        RUNS.set(RUNS.get() + 1);
    }
    let item = item(sleeper, null_mut());
    RUNS.set(0);
    run(|| raw!(ExQueueWorkItem(item.ptr(), DelayedWorkQueue)));
    assert_eq!(RUNS.get(), 1);
}

#[test]
fn work_that_never_ends_is_a_deadlock() {
    unsafe extern "system-unwind" fn stuck(_parameter: PVOID) {
        wait(Event::notification().object());
    }
    let item = item(stuck, null_mut());
    let outcome = Machine::new().run(|| raw!(ExQueueWorkItem(item.ptr(), DelayedWorkQueue)));
    assert!(outcome.deadlock().is_some(), "{outcome}");
}

#[test]
fn rule_62_a_queued_io_work_item_keeps_its_device_and_driver() {
    explore(|| {
        RUNS.set(0);
        let sample = Sample::load("sample");
        let device = sample.device();
        let item = raw!(IoAllocateWorkItem(device));
        ITEM.set(item);
        unsafe extern "system-unwind" fn free_itself(device: *mut DEVICE_OBJECT, _context: PVOID) {
            sleep(MS);
            // The device has been deleted, and is still there.
            assert_eq!(raw!((*device).Type), 3);
            raw!(IoFreeWorkItem(ITEM.get()));
            RUNS.set(RUNS.get() + 1);
        }
        raw!(IoQueueWorkItem(item, Some(free_itself), DelayedWorkQueue, null_mut()));
        sample.unload();
        assert_eq!(RUNS.get(), 1);
    });
}

#[test]
fn rule_62_an_io_work_item_may_be_for_the_driver_and_in_the_caller_s_memory() {
    explore(|| {
        RUNS.set(0);
        let sample = Sample::load("sample");
        let driver = raw!((*sample.device()).DriverObject);
        let memory: PVOID = allocate(raw!(IoSizeofWorkItem()) as usize);
        let item: *mut IO_WORKITEM = memory.cast();
        raw!(IoInitializeWorkItem(driver.cast(), item));
        unsafe extern "system-unwind" fn routine(object: PVOID, context: PVOID, item: *mut IO_WORKITEM) {
            assert_eq!(raw!((*object.cast::<DRIVER_OBJECT>()).Type), 4);
            assert_eq!((context as usize, item), (7, ITEM.get()));
            RUNS.set(RUNS.get() + 1);
            raw!(IoUninitializeWorkItem(item));
            free(item.cast());
        }
        ITEM.set(item);
        raw!(IoQueueWorkItemEx(item, Some(routine), CriticalWorkQueue, 7 as PVOID));
        sample.unload();
        assert_eq!(RUNS.get(), 1);
    });
}

#[test]
fn rule_62_an_io_work_item_that_is_queued_is_not_queued_again() {
    explore(|| {
        let sample = Sample::load("sample");
        let runs = Cell::new(0);
        unsafe extern "system-unwind" fn routine(_object: PVOID, context: PVOID, _item: *mut IO_WORKITEM) {
            // SAFETY: the context is the test's cell, which outlives the work.
            let runs = unsafe { &*context.cast_const().cast::<Cell<u32>>() };
            runs.set(runs.get() + 1);
        }
        let item = raw!(IoAllocateWorkItem(sample.device()));
        let queue = || raw!(IoTryQueueWorkItem(item, Some(routine), DelayedWorkQueue, (&raw const runs).cast_mut().cast())) != 0;
        // Nobody else runs before the level falls, on one processor.
        let alone = raw!(KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS)) == 1;
        let queued = at(DISPATCH_LEVEL, || [queue(), queue()]);
        assert!(queued[0] && !(alone && queued[1]));
        sleep(MS);
        assert_eq!(runs.get(), queued.into_iter().map(u32::from).sum::<u32>());
        raw!(IoFreeWorkItem(item));
        sample.unload();
    });
}

#[test]
fn rule_62_a_device_that_is_used_goes_when_it_is_not() {
    run(|| {
        RUNS.set(0);
        let sample = Sample::load("sample");
        let device = sample.device();
        let item = raw!(IoAllocateWorkItem(device));
        raw!(IoQueueWorkItem(item, Some(slow_io), DelayedWorkQueue, null_mut()));
        raw!(ObfReferenceObject(device.cast()));
        let driver = raw!((*device).DriverObject);
        raw!(IoDeleteSymbolicLink(Text::new(r"\??\sample").ptr()));
        raw!(IoDeleteDevice(device));
        assert_eq!(raw!((*driver).DeviceObject), device);
        sleep(2 * MS);
        assert_eq!(RUNS.get(), 1);
        raw!(IoFreeWorkItem(item));
        assert_eq!(raw!((*driver).DeviceObject), device);
        raw!(ObfDereferenceObject(device.cast()));
        assert!(raw!((*driver).DeviceObject).is_null());
        sample.unload();
    });
}

/// An entry that leaves something, and an unload routine that does nothing.
fn leaves(entry: DRIVER_INITIALIZE, code: u32) -> ksim::BugCheck {
    let stop = crash(code, || load_driver("careless", entry).expect("the entry succeeds").unload());
    assert!(stop.meaning.contains("careless"), "{stop}");
    stop
}

unsafe extern "system-unwind" fn nothing(_driver: *mut DRIVER_OBJECT) {}

#[test]
fn rule_62_a_device_left() {
    unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
        raw!((*driver).DriverUnload = Some(nothing));
        let mut device = null_mut();
        raw!(IoCreateDevice(driver, 0, Text::new(r"\Device\Left").ptr(), FILE_DEVICE_UNKNOWN, 0, FALSE, &mut device))
    }
    assert!(leaves(entry, 0xce).meaning.contains(r"\Device\Left"));
}

#[test]
fn rule_62_a_symbolic_link_left() {
    unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
        raw!((*driver).DriverUnload = Some(nothing));
        raw!(IoCreateSymbolicLink(Text::new(r"\??\Left").ptr(), Text::new(r"\Device\Gone").ptr()))
    }
    assert!(leaves(entry, 0xce).meaning.contains(r"\??\Left"));
}

#[test]
fn rule_62_an_executive_work_item_left() {
    unsafe extern "system-unwind" fn stuck(_parameter: PVOID) {
        sleep(SECOND);
    }
    thread_local! {
        static LEFT: Place<WORK_QUEUE_ITEM> = Place::zeroed();
    }
    unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
        raw!((*driver).DriverUnload = Some(nothing));
        let item = LEFT.with(Place::ptr);
        raw!(ExInitializeWorkItem(item, Some(stuck), null_mut()));
        raw!(ExQueueWorkItem(item, DelayedWorkQueue));
        STATUS_SUCCESS
    }
    leaves(entry, 0xce);
}

#[test]
fn rule_62_a_request_left_is_pool_left() {
    unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
        raw!((*driver).DriverUnload = Some(nothing));
        assert!(!raw!(IoAllocateIrp(1, FALSE)).is_null());
        STATUS_SUCCESS
    }
    let stop = leaves(entry, 0xc4);
    assert_eq!(stop.parameters[0], 0x62);
    assert!(stop.meaning.contains("Irp "));
}
