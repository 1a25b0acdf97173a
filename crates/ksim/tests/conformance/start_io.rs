//! How StartIo routines are called: in which order, how deep, and with what can still be cancelled.

use ksim::DeviceRequest;
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::io::*;
use test_support::*;

thread_local! {
    /// The keys of the requests that were started, and whether each had its cancel routine still.
    static STARTED: RefCell<Vec<(u8, bool)>> = const { RefCell::new(Vec::new()) };
    /// The request that was started first, which the test completes.
    static FIRST: Cell<*mut IRP> = const { Cell::new(null_mut()) };
    /// How many calls of the routine are under way, and how many have been at most.
    static DEPTH: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    /// Whether the routine starts the next request itself.
    static GOES_ON: Cell<bool> = const { Cell::new(false) };
}

fn key_of(irp: *mut IRP) -> u8 {
    raw!((*irp).AssociatedIrp.SystemBuffer.cast::<u8>().read())
}

unsafe extern "system-unwind" fn cancel(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    raw!(IoReleaseCancelSpinLock((*irp).CancelIrql));
    complete(irp, STATUS_CANCELLED, 0);
}

unsafe extern "system-unwind" fn start_io(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    assert_eq!((irql(), raw!((*device).CurrentIrp)), (DISPATCH_LEVEL, irp));
    let (depth, deepest) = DEPTH.get();
    DEPTH.set((depth + 1, deepest.max(depth + 1)));
    let cancelable = raw!(IoSetCancelRoutine(irp, None)).is_some();
    STARTED.with_borrow_mut(|started| started.push((key_of(irp), cancelable)));
    if FIRST.get().is_null() {
        FIRST.set(irp);
    } else {
        succeed(irp);
        if GOES_ON.get() {
            raw!(IoStartNextPacket(device, TRUE));
        }
    }
    DEPTH.set((DEPTH.get().0 - 1, DEPTH.get().1));
}

/// Sends requests with these keys to a device, the first of which is started and waits.
fn with_requests(keys: &[u8], prepare: impl Fn(*mut DEVICE_OBJECT), code: impl Fn(*mut DEVICE_OBJECT)) {
    STARTED.take();
    FIRST.set(null_mut());
    DEPTH.set((0, 0));
    let sample = Sample::load("sample");
    let device = sample.device();
    let driver = raw!((*device).DriverObject);
    raw!((*driver).DriverStartIo = Some(start_io));
    prepare(device);
    sample.on(IRP_MJ_DEVICE_CONTROL, |device, irp| {
        raw!(IoMarkIrpPending(irp));
        let mut key = ULONG::from(key_of(irp));
        raw!(IoStartPacket(device, irp, &mut key, Some(cancel)));
        STATUS_PENDING
    });
    let handle = sample.open();
    let requests: Vec<DeviceRequest> = keys.iter().map(|&key| handle.begin_device_control(BUFFERED, &[key], 0)).collect();
    assert_eq!(STARTED.with_borrow(Vec::len), 1);
    succeed(FIRST.get());
    at(DISPATCH_LEVEL, || code(device));
    assert!(raw!((*device).CurrentIrp).is_null());
    assert!(requests.into_iter().all(|request| request.wait().is_success()));
    handle.close();
    sample.unload();
}

fn started() -> Vec<u8> {
    STARTED.with_borrow(|started| started.iter().map(|(key, _)| *key).collect())
}

#[test]
fn the_next_packet_is_the_one_after_a_key() {
    run(|| {
        GOES_ON.set(false);
        with_requests(
            &[5, 30, 10, 20],
            |_| {},
            |device| {
                // The first that is not less; and from the beginning again, where there is none.
                raw!(IoStartNextPacketByKey(device, TRUE, 15));
                raw!(IoStartNextPacketByKey(device, FALSE, 20));
                raw!(IoStartNextPacketByKey(device, TRUE, 40));
                raw!(IoStartNextPacketByKey(device, TRUE, 0));
            },
        );
        assert_eq!(started(), [5, 20, 30, 10]);
    });
}

#[test]
fn a_start_io_routine_is_called_from_itself_unless_that_is_deferred() {
    for deferred in [false, true] {
        run(|| {
            GOES_ON.set(true);
            let prepare = |device| raw!(IoSetStartIoAttributes(device, BOOLEAN::from(deferred), FALSE));
            with_requests(&[1, 2, 3, 4, 5], prepare, |device| raw!(IoStartNextPacket(device, TRUE)));
            assert_eq!((started(), DEPTH.get()), (vec![1, 2, 3, 4, 5], (0, if deferred { 1 } else { 4 })));
        });
    }
}

#[test]
fn a_request_that_was_started_can_be_cancelled_unless_the_driver_says_so() {
    for fixed in [false, true] {
        run(|| {
            GOES_ON.set(false);
            let prepare = |device| raw!(IoSetStartIoAttributes(device, FALSE, BOOLEAN::from(fixed)));
            with_requests(&[1, 2, 3], prepare, |device| {
                raw!(IoStartNextPacket(device, TRUE));
                // Without the cancel spin lock, the system does not touch the routine.
                raw!(IoStartNextPacket(device, FALSE));
                raw!(IoStartNextPacket(device, TRUE));
            });
            assert_eq!(STARTED.take(), [(1, !fixed), (2, !fixed), (3, true)]);
        });
    }
}

#[test]
fn the_next_packet_by_key_is_not_started_under_a_spin_lock() {
    let stop = crash(0xc4, || {
        let sample = Sample::load("sample");
        SpinLock::new().with(|| raw!(IoStartNextPacketByKey(sample.device(), FALSE, 1)));
    });
    assert_eq!((stop.parameters[0], stop.routine), (0x6b73_0009, Some("IoStartNextPacketByKey")));
}
