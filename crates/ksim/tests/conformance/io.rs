//! Rules 32, 40, 61 and 62: remove locks, requests, and what a driver leaves; and how requests go through a stack of devices.

use ksim::{Machine, Requestor, open_device};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::{null, null_mut};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use test_support::io::*;
use test_support::*;

struct RemoveLock(Place<IO_REMOVE_LOCK>);

impl RemoveLock {
    fn new() -> Self {
        let lock = Self(Place::zeroed());
        raw!(IoInitializeRemoveLock(lock.0.ptr(), TAG, 0, 0));
        lock
    }

    fn acquire(&self, tag: usize) -> NTSTATUS {
        raw!(IoAcquireRemoveLock(self.0.ptr(), tag as PVOID))
    }

    fn release(&self, tag: usize) {
        raw!(IoReleaseRemoveLock(self.0.ptr(), tag as PVOID));
    }

    fn release_and_wait(&self, tag: usize) {
        raw!(IoReleaseRemoveLockAndWait(self.0.ptr(), tag as PVOID));
    }
}

#[test]
fn rule_32_a_removed_lock_admits_nobody_for_ever() {
    run(|| {
        let lock = RemoveLock::new();
        assert_eq!(lock.acquire(1), STATUS_SUCCESS);
        lock.release_and_wait(1);
        for _ in 0..3 {
            assert_eq!(lock.acquire(2), STATUS_DELETE_PENDING);
        }
        assert_eq!(lock.0.read().Common.Removed, 1);
    });
}

#[test]
fn rule_32_the_removal_waits_for_the_users() {
    explore(|| {
        let lock = RemoveLock::new();
        let out = Cell::new(0);
        let users: Vec<_> = (1..4)
            .map(|tag| {
                let (lock, out) = (&lock, &out);
                spawn(move || {
                    if lock.acquire(tag) == STATUS_SUCCESS {
                        out.set(out.get() + 1);
                        sleep(MS);
                        out.set(out.get() - 1);
                        lock.release(tag);
                    }
                })
            })
            .collect();
        assert_eq!(lock.acquire(9), STATUS_SUCCESS);
        lock.release_and_wait(9);
        assert_eq!(out.get(), 0);
        assert_eq!(lock.acquire(9), STATUS_DELETE_PENDING);
        join_all(users);
    });
}

#[test]
fn rule_32_locks_of_checked_drivers_have_another_size() {
    run(|| {
        let lock: Place<[u64; 15]> = Place::zeroed();
        let (lock, size) = (lock.ptr().cast::<IO_REMOVE_LOCK>(), 120);
        raw!(IoInitializeRemoveLockEx(lock, TAG, 0, 0, size));
        assert_eq!(raw!(IoAcquireRemoveLockEx(lock, null_mut(), null(), 1, size)), STATUS_SUCCESS);
        at(DISPATCH_LEVEL, || {
            assert_eq!(raw!(IoAcquireRemoveLockEx(lock, null_mut(), null(), 2, size)), STATUS_SUCCESS);
            raw!(IoReleaseRemoveLockEx(lock, null_mut(), size));
        });
        raw!(IoReleaseRemoveLockAndWaitEx(lock, null_mut(), size));
    });
}

#[test]
fn rule_40_a_request_is_not_completed_under_a_spin_lock() {
    let stop = crash(0xc4, || {
        let sample = Sample::load("sample");
        let lock = Rc::new(SpinLock::new());
        sample.on(IRP_MJ_DEVICE_CONTROL, move |_, irp| {
            lock.acquire();
            succeed(irp)
        });
        let _ = sample.open().device_control(BUFFERED, &[], 0);
    });
    assert_eq!((stop.parameters[0], stop.routine), (0x6b73_0009, Some("IofCompleteRequest")));
}

#[test]
fn rule_40_the_next_packet_is_not_started_under_a_spin_lock() {
    let stop = crash(0xc4, || {
        let sample = Sample::load("sample");
        let lock = SpinLock::new();
        lock.acquire();
        raw!(IoStartNextPacket(sample.device(), FALSE));
    });
    assert_eq!((stop.parameters[0], stop.routine), (0x6b73_0009, Some("IoStartNextPacket")));
}

#[test]
fn a_request_is_completed_under_a_spin_lock_where_the_rule_is_off() {
    let outcome = Machine::new().check_rule(ksim::RuleId::SpinLockSafe, false).run(|| {
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
            let lock = SpinLock::new();
            raw!((*irp).IoStatus.u.Status = STATUS_SUCCESS);
            lock.with(|| raw!(IofCompleteRequest(irp, 0)));
            STATUS_SUCCESS
        });
        assert_eq!(sample.open().device_control(BUFFERED, &[], 0).status, STATUS_SUCCESS);
    });
    assert!(outcome.is_completed(), "{outcome}");
}

#[test]
fn rule_61_a_dispatch_routine_keeps_the_level() {
    let stop = crash(0xc4, || {
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
            let status = succeed(irp);
            raise(APC_LEVEL);
            status
        });
        let _ = sample.open().device_control(BUFFERED, &[], 0);
    });
    assert_eq!((stop.parameters[0], stop.parameters[2], stop.parameters[3]), (0x2_001d, 1, 0));
}

#[test]
fn rule_61_a_dispatch_routine_keeps_the_apc_count() {
    let stop = crash(0xc4, || {
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
            raw!(KeEnterCriticalRegion());
            succeed(irp)
        });
        let _ = sample.open().device_control(BUFFERED, &[], 0);
    });
    assert_eq!(stop.parameters[0], 0xc5);
}

/// What a completion routine of the test does.
type Completion = Rc<dyn Fn(*mut DEVICE_OBJECT, *mut IRP) -> NTSTATUS>;

thread_local! {
    static COMPLETION: RefCell<Option<Completion>> = const { RefCell::new(None) };
}

unsafe extern "system-unwind" fn completion(device: *mut DEVICE_OBJECT, irp: *mut IRP, _context: PVOID) -> NTSTATUS {
    let routine = COMPLETION.with_borrow(|routine| routine.clone()).expect("a completion routine");
    routine(device, irp)
}

/// A filter over a function driver, which passes everything on and sees it come back.
struct Stack {
    function: Sample,
    filter: Sample,
}

impl Stack {
    fn load(completed: impl Fn(*mut DEVICE_OBJECT, *mut IRP) -> NTSTATUS + 'static) -> Self {
        COMPLETION.set(Some(Rc::new(completed)));
        let (function, filter) = (Sample::load("function"), Sample::load("filter"));
        let lower = raw!(IoAttachDeviceToDeviceStack(filter.device(), function.device()));
        assert_eq!(lower, function.device());
        for major in [IRP_MJ_CREATE, IRP_MJ_DEVICE_CONTROL, IRP_MJ_CLEANUP, IRP_MJ_CLOSE] {
            filter.on(major, move |_, irp| {
                if location(irp).MajorFunction != IRP_MJ_DEVICE_CONTROL {
                    raw!(IoSkipCurrentIrpStackLocation(irp));
                } else {
                    raw!(IoCopyCurrentIrpStackLocationToNext(irp));
                    raw!(IoSetCompletionRoutine(irp, Some(completion), null_mut(), TRUE, TRUE, TRUE));
                }
                raw!(IofCallDriver(lower, irp))
            });
        }
        Self { function, filter }
    }

    fn unload(self) {
        raw!(IoDetachDevice(self.function.device()));
        self.filter.unload();
        self.function.unload();
    }
}

#[test]
fn rule_61_a_completion_routine_keeps_the_level_and_the_apc_count() {
    let stop = crash(0xc4, || {
        let stack = Stack::load(|_, _| {
            raise(APC_LEVEL);
            STATUS_CONTINUE_COMPLETION
        });
        let _ = stack.function.open().device_control(BUFFERED, &[], 0);
    });
    assert_eq!((stop.parameters[0], stop.parameters[2], stop.parameters[3]), (0xfa, 1, 0));
    let stop = crash(0xc4, || {
        let stack = Stack::load(|_, _| {
            raw!(KeEnterGuardedRegion());
            STATUS_CONTINUE_COMPLETION
        });
        let _ = stack.function.open().device_control(BUFFERED, &[], 0);
    });
    assert_eq!(stop.parameters[0], 0xfb);
}

#[test]
fn rule_61_a_cancel_routine_releases_the_cancel_spin_lock() {
    unsafe extern "system-unwind" fn cancel(_device: *mut DEVICE_OBJECT, _irp: *mut IRP) {}
    let stop = crash(0xc4, || {
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
            raw!(IoMarkIrpPending(irp));
            raw!(IoSetCancelRoutine(irp, Some(cancel)));
            STATUS_PENDING
        });
        let device = sample.open();
        device.begin_device_control(BUFFERED, &[], 0).cancel();
    });
    assert_eq!(stop.parameters[0], 0x6b73_0008);
}

#[test]
fn a_request_that_was_not_sent_can_be_cancelled() {
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    unsafe extern "system-unwind" fn cancel(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
        assert!(device.is_null(), "no driver has it");
        raw!(IoReleaseCancelSpinLock((*irp).CancelIrql));
        CANCELLED.store(true, Ordering::Relaxed);
    }
    run(|| {
        let irp = raw!(IoAllocateIrp(1, 0));
        raw!(IoSetCancelRoutine(irp, Some(cancel)));
        assert_ne!(raw!(IoCancelIrp(irp)), 0);
        assert_ne!(raw!((*irp).Cancel), 0);
        raw!(IoFreeIrp(irp));
    });
    assert!(CANCELLED.load(Ordering::Relaxed));
}

#[test]
fn requests_go_down_the_stack_and_come_back() {
    run(|| {
        let log = Log::default();
        let stack = Stack::load({
            let log = log.clone();
            move |device, irp| {
                assert!(!device.is_null());
                log.push(format!("completion {:#x}", raw!((*irp).IoStatus.u.Status)));
                if raw!((*irp).PendingReturned) != 0 {
                    raw!(IoMarkIrpPending(irp));
                }
                STATUS_CONTINUE_COMPLETION
            }
        });
        stack.function.on(IRP_MJ_DEVICE_CONTROL, {
            let log = log.clone();
            move |_, irp| {
                log.push("function");
                let length = raw!(location(irp).Parameters.DeviceIoControl.OutputBufferLength) as usize;
                raw!((*irp).AssociatedIrp.SystemBuffer.cast::<u8>().write_bytes(7, length));
                complete(irp, STATUS_SUCCESS, length)
            }
        });
        let device = stack.function.open();
        let result = device.device_control(BUFFERED, b"x", 3);
        assert_eq!((result.status, result.information, &result.output[..]), (STATUS_SUCCESS, 3, &[7, 7, 7][..]));
        assert_eq!(log.take(), ["function", "completion 0x0"]);
        device.close();
        stack.unload();
    });
}

#[test]
fn a_completion_routine_takes_a_request_back() {
    run(|| {
        let stack = Stack::load(|_, irp| {
            raw!((*irp).IoStatus.u.Status = STATUS_DEVICE_BUSY);
            raw!((*irp).IoStatus.Information = 0);
            STATUS_MORE_PROCESSING_REQUIRED
        });
        let lower = stack.function.device();
        stack.filter.on(IRP_MJ_DEVICE_CONTROL, move |_, irp| {
            raw!(IoCopyCurrentIrpStackLocationToNext(irp));
            raw!(IoSetCompletionRoutine(irp, Some(completion), null_mut(), TRUE, TRUE, TRUE));
            assert_eq!(raw!(IofCallDriver(lower, irp)), STATUS_SUCCESS);
            raw!(IofCompleteRequest(irp, 0));
            STATUS_DEVICE_BUSY
        });
        let device = stack.function.open();
        assert_eq!(device.device_control(BUFFERED, &[], 0).status, STATUS_DEVICE_BUSY);
        device.close();
        stack.unload();
    });
}

#[test]
fn transfer_methods_pass_their_buffers_as_they_say() {
    run(|| {
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
            let control = raw!(location(irp).Parameters.DeviceIoControl);
            let (input, output) = (control.InputBufferLength as usize, control.OutputBufferLength as usize);
            let system = raw!((*irp).AssociatedIrp.SystemBuffer).cast::<u8>();
            let mdl = raw!((*irp).MdlAddress);
            let (from, to) = match METHOD_FROM_CTL_CODE(control.IoControlCode) {
                METHOD_BUFFERED => (system, system),
                METHOD_NEITHER => (control.Type3InputBuffer.cast(), raw!((*irp).UserBuffer).cast()),
                _ => {
                    assert_eq!(raw!(MmGetMdlByteCount(mdl)) as usize, output);
                    (system, raw!(MmGetSystemAddressForMdlSafe(mdl, 16)).cast())
                }
            };
            for index in 0..output {
                raw!(to.wrapping_add(index).write(*from.wrapping_add(index % input) ^ 0xff));
            }
            complete(irp, STATUS_SUCCESS, output)
        });
        let device = sample.open();
        for method in [METHOD_BUFFERED, METHOD_IN_DIRECT, METHOD_OUT_DIRECT, METHOD_NEITHER] {
            let result = device.device_control(control_code(method), &[0xf0, 0x0f], 2);
            assert_eq!((result.status, &result.output[..]), (STATUS_SUCCESS, &[0x0f, 0xf0][..]), "method {method}");
        }
        drop(device);
        sample.unload();
    });
}

#[test]
fn reads_and_writes_go_the_way_that_the_device_asks_for() {
    for flags in [0, DO_BUFFERED_IO, DO_DIRECT_IO] {
        run(|| {
            let sample = Sample::load("sample");
            raw!((*sample.device()).Flags |= flags);
            let kept = Rc::new(RefCell::new(Vec::new()));
            let buffer = move |irp: *mut IRP| -> *mut u8 {
                match flags {
                    DO_BUFFERED_IO => raw!((*irp).AssociatedIrp.SystemBuffer).cast(),
                    DO_DIRECT_IO => raw!(MmGetSystemAddressForMdlSafe((*irp).MdlAddress, 16)).cast(),
                    _ => raw!((*irp).UserBuffer).cast(),
                }
            };
            sample.on(IRP_MJ_WRITE, {
                let kept = kept.clone();
                move |_, irp| {
                    let length = raw!(location(irp).Parameters.Write.Length) as usize;
                    *kept.borrow_mut() = raw!(std::slice::from_raw_parts(buffer(irp), length)).to_vec();
                    complete(irp, STATUS_SUCCESS, length)
                }
            });
            sample.on(IRP_MJ_READ, move |_, irp| {
                let kept = kept.borrow();
                raw!(buffer(irp).copy_from_nonoverlapping(kept.as_ptr(), kept.len()));
                complete(irp, STATUS_SUCCESS, kept.len())
            });
            let device = sample.open();
            assert_eq!(device.write(b"hello").information, 5);
            assert_eq!(device.read(5).output, b"hello");
            device.close();
            sample.unload();
        });
    }
}

unsafe extern "system-unwind" fn cancel_pending(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    raw!(IoReleaseCancelSpinLock((*irp).CancelIrql));
    complete(irp, STATUS_CANCELLED, 0);
}

thread_local! {
    /// The request that the driver has, until it is completed.
    static PENDING: Cell<*mut IRP> = const { Cell::new(null_mut()) };
    /// Its driver's lock, under which it is there or not.
    static PENDING_LOCK: Cell<*mut KSPIN_LOCK> = const { Cell::new(null_mut()) };
}

fn with_pending_lock<R>(code: impl FnOnce() -> R) -> R {
    let lock = PENDING_LOCK.get();
    let old = raw!(KeAcquireSpinLockRaiseToDpc(lock));
    let result = code();
    raw!(KeReleaseSpinLock(lock, old));
    result
}

#[test]
fn a_pending_request_is_completed_or_cancelled_and_never_both() {
    unsafe extern "system-unwind" fn cancel(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
        raw!(IoReleaseCancelSpinLock((*irp).CancelIrql));
        // Whoever has found it under the lock is done with it then.
        with_pending_lock(|| PENDING.set(null_mut()));
        complete(irp, STATUS_CANCELLED, 0);
    }
    explore(|| {
        let lock = SpinLock::new();
        PENDING_LOCK.set(lock.ptr());
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
            raw!(IoMarkIrpPending(irp));
            with_pending_lock(|| {
                raw!(IoSetCancelRoutine(irp, Some(cancel)));
                PENDING.set(irp);
            });
            STATUS_PENDING
        });
        let device = sample.open();
        let request = device.begin_device_control(BUFFERED, &[], 0);
        assert!(!request.is_done());
        let completer = spawn(|| {
            let irp = PENDING.get();
            let is_own = with_pending_lock(|| {
                let is_there = !irp.is_null() && PENDING.get() == irp;
                is_there && raw!(IoSetCancelRoutine(irp, None)).is_some()
            });
            if is_own {
                complete(irp, STATUS_SUCCESS, 0);
            }
        });
        let cancelled = request.cancel();
        let status = request.wait().status;
        assert_eq!(status, if cancelled { STATUS_CANCELLED } else { STATUS_SUCCESS });
        completer.join();
        device.close();
        sample.unload();
    });
}

#[test]
fn a_request_outlives_its_handle() {
    explore(|| {
        let log = Log::default();
        let sample = Sample::load("sample");
        let pending = Rc::new(Cell::new(null_mut::<IRP>()));
        for (major, name) in [(IRP_MJ_CLEANUP, "cleanup"), (IRP_MJ_CLOSE, "close")] {
            let log = log.clone();
            sample.on(major, move |_, irp| {
                log.push(name);
                succeed(irp)
            });
        }
        sample.on(IRP_MJ_DEVICE_CONTROL, {
            let pending = pending.clone();
            move |_, irp| {
                raw!(IoMarkIrpPending(irp));
                pending.set(irp);
                STATUS_PENDING
            }
        });
        let device = sample.open();
        let request = device.begin_device_control(BUFFERED, &[], 0);
        device.close();
        assert_eq!(log.take(), ["cleanup"]);
        complete(pending.get(), STATUS_SUCCESS, 0);
        assert!(request.wait().is_success());
        // The last reference went with the request: the driver is told by a worker thread, and the unload waits for that.
        sample.unload();
        assert_eq!(log.take(), ["close"]);
    });
}

#[test]
fn requests_of_a_thread_end_in_its_special_apc() {
    run(|| {
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_INTERNAL_DEVICE_CONTROL, |_, irp| {
            raw!((*irp).AssociatedIrp.SystemBuffer.cast::<u8>().write(0x5a));
            complete(irp, STATUS_SUCCESS, 1)
        });
        let (event, iosb) = (Event::notification(), Place::<IO_STATUS_BLOCK>::zeroed());
        let mut output = 0_u8;
        let mut send = |level| {
            event.reset();
            let build = |output: *mut u8| {
                raw!(IoBuildDeviceIoControlRequest(
                    BUFFERED,
                    sample.device(),
                    null_mut(),
                    0,
                    output.cast(),
                    1,
                    TRUE,
                    event.ptr(),
                    iosb.ptr()
                ))
            };
            let irp = build(&raw mut output);
            at(level, || {
                assert_eq!(raw!(IofCallDriver(sample.device(), irp)), STATUS_SUCCESS);
                event.state()
            })
        };
        // At PASSIVE_LEVEL the APC comes at once; at APC_LEVEL when the level falls.
        assert_eq!(send(PASSIVE_LEVEL), 1);
        assert_eq!(send(APC_LEVEL), 0);
        assert_eq!(event.state(), 1);
        assert_eq!((output, iosb.read().Information), (0x5a, 1));
        sample.unload();
    });
}

#[test]
fn waiting_for_a_thread_s_request_in_a_guarded_region_is_a_deadlock() {
    let outcome = Machine::new().run(|| {
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| succeed(irp));
        let (event, iosb) = (Event::notification(), Place::<IO_STATUS_BLOCK>::zeroed());
        let irp = raw!(IoBuildDeviceIoControlRequest(
            BUFFERED,
            sample.device(),
            null_mut(),
            0,
            null_mut(),
            0,
            FALSE,
            event.ptr(),
            iosb.ptr()
        ));
        raw!(KeEnterGuardedRegion());
        raw!(IofCallDriver(sample.device(), irp));
        wait(event.object());
    });
    assert!(outcome.deadlock().is_some(), "{outcome}");
}

#[test]
fn a_driver_s_own_request_is_taken_back_and_sent_again() {
    run(|| {
        COMPLETION.set(Some(Rc::new(|device, _| {
            assert!(device.is_null(), "the sender has no stack location, and so no device");
            STATUS_MORE_PROCESSING_REQUIRED
        })));
        let sample = Sample::load("sample");
        let irp = raw!(IoAllocateIrp((*sample.device()).StackSize, FALSE));
        for _ in 0..2 {
            raw!(IoReuseIrp(irp, STATUS_NOT_SUPPORTED));
            let next = raw!(IoGetNextIrpStackLocation(irp));
            raw!((*next).MajorFunction = IRP_MJ_FLUSH_BUFFERS);
            raw!(IoSetCompletionRoutine(irp, Some(completion), null_mut(), TRUE, TRUE, TRUE));
            assert_eq!(raw!(IofCallDriver(sample.device(), irp)), STATUS_SUCCESS);
            assert_eq!(raw!((*irp).IoStatus.u.Status), STATUS_SUCCESS);
        }
        raw!(IoFreeIrp(irp));
        sample.unload();
    });
}

#[test]
fn a_device_found_by_its_name_is_used_through_its_file() {
    run(|| {
        let log = Log::default();
        let sample = Sample::load("sample");
        for (major, name) in [(IRP_MJ_CREATE, "create"), (IRP_MJ_CLEANUP, "cleanup"), (IRP_MJ_CLOSE, "close")] {
            let log = log.clone();
            sample.on(major, move |_, irp| {
                log.push(name);
                succeed(irp)
            });
        }
        let (mut file, mut device) = (null_mut(), null_mut());
        let mut name = Text::new(r"\DosDevices\SAMPLE");
        assert_eq!(raw!(IoGetDeviceObjectPointer(name.ptr(), FILE_READ_DATA, &mut file, &mut device)), STATUS_SUCCESS);
        assert_eq!(device, sample.device());
        assert_eq!(raw!(IoGetRelatedDeviceObject(file)), device);
        assert_eq!(raw!((*device).ReferenceCount), 1);
        assert_eq!(log.take(), ["create", "cleanup"]);
        raw!(ObfDereferenceObject(file.cast()));
        assert_eq!(log.take(), ["close"]);
        assert_eq!(raw!((*device).ReferenceCount), 0);
        let mut name = Text::new(r"\Device\Nothing");
        let status = raw!(IoGetDeviceObjectPointer(name.ptr(), FILE_READ_DATA, &mut file, &mut device));
        assert_eq!(status, STATUS_OBJECT_NAME_NOT_FOUND);
        sample.unload();
    });
}

#[test]
fn a_file_dereferenced_at_dispatch_level_is_closed_later() {
    run(|| {
        let log = Log::default();
        let sample = Sample::load("sample");
        sample.on(IRP_MJ_CLOSE, {
            let log = log.clone();
            move |_, irp| {
                log.push(irql());
                succeed(irp)
            }
        });
        let (mut file, mut device) = (null_mut(), null_mut());
        let mut name = Text::new(r"\??\sample");
        assert_eq!(raw!(IoGetDeviceObjectPointer(name.ptr(), FILE_READ_DATA, &mut file, &mut device)), STATUS_SUCCESS);
        at(DISPATCH_LEVEL, || raw!(ObfDereferenceObject(file.cast())));
        settle();
        assert_eq!(log.take(), ["0"]);
        sample.unload();
    });
}

#[test]
fn names_and_opens_have_nt_s_statuses() {
    run(|| {
        let sample = Sample::load("sample");
        let open = |name: &str| open_device(name, Requestor::Kernel).map(drop);
        assert_eq!(open("sample"), Err(STATUS_OBJECT_PATH_SYNTAX_BAD));
        assert_eq!(open(r"\Device\other"), Err(STATUS_OBJECT_NAME_NOT_FOUND));
        assert_eq!(open(r"\\.\Sample"), Ok(()));
        assert_eq!(open(r"\device\SAMPLE\below"), Ok(()));
        assert_eq!(Sample::try_load("sample", 0).map(drop), Err(STATUS_OBJECT_NAME_COLLISION));
        raw!((*sample.device()).Flags |= DO_EXCLUSIVE);
        let first = sample.open();
        assert_eq!(open(r"\Device\sample"), Err(STATUS_ACCESS_DENIED));
        first.close();
        raw!((*sample.device()).Flags |= DO_DEVICE_INITIALIZING);
        assert_eq!(open(r"\Device\sample"), Err(STATUS_NO_SUCH_DEVICE));
        raw!((*sample.device()).Flags &= !DO_DEVICE_INITIALIZING);
        sample.on(IRP_MJ_CREATE, |_, irp| complete(irp, STATUS_SHARING_VIOLATION, 0));
        assert_eq!(open(r"\Device\sample"), Err(STATUS_SHARING_VIOLATION));
        assert_eq!(raw!((*sample.device()).ReferenceCount), 0);
        sample.unload();
    });
}

#[test]
fn major_functions_that_a_driver_does_not_set_fail() {
    unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
        unsafe extern "system-unwind" fn unload(driver: *mut DRIVER_OBJECT) {
            raw!(IoDeleteDevice((*driver).DeviceObject));
        }
        raw!((*driver).DriverUnload = Some(unload));
        let mut device = null_mut();
        raw!(IoCreateDevice(driver, 0, Text::new(r"\Device\Bare").ptr(), FILE_DEVICE_UNKNOWN, 0, FALSE, &mut device))
    }
    run(|| {
        let driver = ksim::load_driver("bare", entry).expect("the entry succeeds");
        assert!(matches!(open_device(r"\Device\Bare", Requestor::User), Err(STATUS_INVALID_DEVICE_REQUEST)));
        driver.unload();
    });
}

#[test]
fn an_unload_waits_for_the_last_close() {
    explore(|| {
        let sample = Sample::load("sample");
        let device = sample.open();
        let log = Log::default();
        let user = spawn({
            let log = log.clone();
            move || {
                sleep(MS);
                assert!(matches!(open_device(r"\Device\sample", Requestor::User), Err(STATUS_NO_SUCH_DEVICE)));
                log.push("close");
                device.close();
            }
        });
        sample.unload();
        log.push("unloaded");
        user.join();
        assert_eq!(log.take(), ["close", "unloaded"]);
    });
}

#[test]
fn device_queues_keep_the_order_of_their_keys() {
    run(|| {
        let queue: Place<KDEVICE_QUEUE> = Place::zeroed();
        let entries: Vec<Place<KDEVICE_QUEUE_ENTRY>> = (0..5).map(|_| Place::zeroed()).collect();
        raw!(KeInitializeDeviceQueue(queue.ptr()));
        at(DISPATCH_LEVEL, || {
            let insert = |entry: &Place<KDEVICE_QUEUE_ENTRY>| raw!(KeInsertDeviceQueue(queue.ptr(), entry.ptr()));
            let insert_by_key =
                |entry: &Place<KDEVICE_QUEUE_ENTRY>, key| raw!(KeInsertByKeyDeviceQueue(queue.ptr(), entry.ptr(), key));
            assert_eq!(insert(&entries[0]), FALSE, "the device was not busy, and is now");
            assert_eq!(queue.read().Busy, TRUE);
            for (index, key) in [(1, 30), (2, 10), (3, 20)] {
                assert_eq!(insert_by_key(&entries[index], key), TRUE);
            }
            assert_eq!(raw!(KeRemoveByKeyDeviceQueue(queue.ptr(), 15)), entries[3].ptr());
            assert_eq!(raw!(KeRemoveByKeyDeviceQueue(queue.ptr(), 99)), entries[2].ptr());
            assert_eq!(insert(&entries[4]), TRUE);
            assert_eq!(raw!(KeRemoveEntryDeviceQueue(queue.ptr(), entries[1].ptr())), TRUE);
            assert_eq!(raw!(KeRemoveEntryDeviceQueue(queue.ptr(), entries[1].ptr())), FALSE);
            assert_eq!(raw!(KeRemoveDeviceQueue(queue.ptr())), entries[4].ptr());
            assert!(raw!(KeRemoveDeviceQueue(queue.ptr())).is_null());
            assert!(raw!(KeRemoveByKeyDeviceQueueIfBusy(queue.ptr(), 0)).is_null());
            assert_eq!(queue.read().Busy, FALSE);
        });
    });
}

thread_local! {
    static STARTED: RefCell<Vec<*mut IRP>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn start_io_gets_one_request_at_a_time() {
    unsafe extern "system-unwind" fn start_io(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
        assert_eq!(irql(), DISPATCH_LEVEL);
        STARTED.with_borrow_mut(|started| started.push(irp));
    }
    run(|| {
        STARTED.take();
        let sample = Sample::load("sample");
        let device = sample.device();
        let driver = raw!((*device).DriverObject);
        raw!((*driver).DriverStartIo = Some(start_io));
        sample.on(IRP_MJ_DEVICE_CONTROL, |device, irp| {
            raw!(IoMarkIrpPending(irp));
            raw!(IoStartPacket(device, irp, null_mut(), Some(cancel_pending)));
            STATUS_PENDING
        });
        let handle = sample.open();
        let requests: Vec<_> = (0..3).map(|_| handle.begin_device_control(BUFFERED, &[], 0)).collect();
        assert_eq!(STARTED.with_borrow(Vec::len), 1);
        for index in 0..3 {
            let irp = STARTED.with_borrow(|started| started[index]);
            assert_eq!(raw!((*device).CurrentIrp), irp);
            assert!(raw!(IoSetCancelRoutine(irp, None)).is_some());
            complete(irp, STATUS_SUCCESS, 0);
            at(DISPATCH_LEVEL, || raw!(IoStartNextPacket(device, TRUE)));
        }
        assert!(raw!((*device).CurrentIrp).is_null());
        assert!(requests.into_iter().all(|request| request.wait().is_success()));
        handle.close();
        sample.unload();
    });
}

#[test]
fn a_named_event_is_created_once_and_opened_again() {
    run(|| {
        let (mut first, mut second) = (null_mut(), null_mut());
        let create = |handle: *mut HANDLE| raw!(IoCreateNotificationEvent(Text::new(r"\BaseNamedObjects\Mine").ptr(), handle));
        let event = create(&raw mut first);
        assert_eq!(raw!(KeReadStateEvent(event)), 1);
        assert_eq!(create(&raw mut second), event);
        raw!(ZwClose(first));
        raw!(KeClearEvent(event));
        raw!(ZwClose(second));
        assert!(raw!(IoCreateSynchronizationEvent(Text::new(r"nowhere").ptr(), &raw mut first)).is_null());
    });
}
