//! Devices and requests, on the hosted kernel.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::{DeviceHandle, Machine, Requestor, load_driver, open_device};
use ksync::device::{Device, DeviceBuilder, Dispatch, Disposition, Irp, IrpQueue, OpenDevice, PendingIrp};
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::{NtError, NtStatus, Result};
use ksync::irql::{self, Irql};
use ksync::mutex::FastLocked;
use ksync::object::{File, FileObject, Mutant, ThreadObject};
use ksync::region::CriticalRegion;
use ksync::sys;
use ksync::thread::{self, this_thread};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};

const MS: Duration = Duration::from_millis(1);
const CODE: u32 = sys::CTL_CODE(sys::FILE_DEVICE_UNKNOWN, 0x800, sys::METHOD_BUFFERED, sys::FILE_ANY_ACCESS);
const CANCELLED: i32 = NtError::CANCELLED.status().0;

/// What the device of a test does.
type Control = for<'i> fn(&Sample, Irp<'i>) -> Disposition<'i>;

struct Sample {
    control: Control,
    queue: IrpQueue,
    kept: Mutex<Vec<PendingIrp>>,
    others: AtomicU32,
}

thread_local! {
    static CONTROL: Cell<Control> = const { Cell::new(|_, irp| irp.complete(NtStatus::SUCCESS, 0)) };
    static DROPS: Cell<u32> = const { Cell::new(0) };
    /// The device, where a test wants it.
    static DEVICE: RefCell<Option<Device<Sample>>> = const { RefCell::new(None) };
}

impl Drop for Sample {
    fn drop(&mut self) {
        DROPS.set(DROPS.get() + 1);
    }
}

impl Dispatch for Sample {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        (self.control)(self, irp)
    }

    fn cleanup<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.queue.cancel_for_file(irp.file());
        irp.complete(NtStatus::SUCCESS, 0)
    }

    fn other<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.others.fetch_add(1, Ordering::Relaxed);
        irp.complete(NtStatus(sys::STATUS_INVALID_DEVICE_REQUEST), 0)
    }
}

/// A driver that keeps its device as its state.
mod owner {
    use super::*;

    pub(super) fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<Device<Sample>> {
        create(driver)
    }

    ksync::driver_entry!(entry);
}

/// A driver whose device the test has.
mod lender {
    use super::*;

    fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<()> {
        let device = create(driver)?;
        DEVICE.set(Some(device));
        Ok(())
    }

    ksync::driver_entry!(entry);
}

fn create(driver: &DriverObject) -> Result<Device<Sample>> {
    DROPS.set(0);
    let sample = Sample { control: CONTROL.get(), queue: IrpQueue::new()?, kept: Mutex::default(), others: AtomicU32::new(0) };
    DeviceBuilder::new().name(r"\Device\Sample").link(r"\??\Sample").create(driver, sample)
}

fn open() -> DeviceHandle {
    open_device(r"\\.\Sample", Requestor::User).expect("the device opens")
}

fn explore(control: Control, body: impl Fn()) {
    CONTROL.set(control);
    for processors in [1, 2, 4] {
        for seed in 0..12 {
            let outcome = Machine::new().processors(processors).seed(seed).run(|| {
                let driver = load_driver("sample", owner::DriverEntry).unwrap();
                body();
                driver.unload();
            });
            assert!(outcome.is_completed() && outcome.left().is_empty(), "{processors} processors: {outcome}");
            assert_eq!(DROPS.get(), 1);
        }
    }
}

#[test]
fn requests_reach_their_routines() {
    explore(
        |sample, mut irp| {
            assert_eq!((irp.control_code(), irp.is_from_user()), (Some(CODE), true));
            assert_eq!(irp.input(), b"abc");
            irp.output()[0] = b'x';
            irp.output()[4] = b'y';
            irp.complete(NtStatus::SUCCESS, 5 + sample.others.load(Ordering::Relaxed) as usize)
        },
        || {
            let device = open();
            // What lies behind the input is zero, whatever the system buffer held.
            assert_eq!(device.device_control(CODE, b"abc", 5).output, b"xbc\0y");
            // The state counts it.
            assert_eq!(device.read(4).status, sys::STATUS_INVALID_DEVICE_REQUEST);
            // More than the buffer has is cut.
            assert_eq!(device.device_control(CODE, b"abc", 5).information, 5);
            device.close();
        },
    );
}

#[test]
fn ksync_33_a_request_is_pending_until_another_thread_completes_it() {
    explore(
        |sample, irp| {
            let (pending, disposition) = irp.pend();
            sample.kept.lock().unwrap().push(pending);
            disposition
        },
        || (),
    );
    explore(
        |_, irp| {
            let (mut pending, disposition) = irp.pend();
            // It may be completed before the routine returns.
            let thread = thread::spawn(move || {
                let written = pending.write_output(b"done");
                pending.complete_with(written);
            });
            thread.unwrap().detach();
            disposition
        },
        || {
            let device = open();
            let requests: Vec<_> = (0..3).map(|_| device.begin_device_control(CODE, b"", 4)).collect();
            for request in requests {
                assert_eq!(request.wait().output, b"done");
            }
            device.close();
        },
    );
}

#[test]
fn ksync_34_requests_share_the_state() {
    explore(
        |sample, irp| {
            sample.others.fetch_add(1, Ordering::Relaxed);
            this_thread::sleep(MS).unwrap();
            irp.complete_with(Ok(0))
        },
        || {
            let device = open();
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| assert!(device.device_control(CODE, b"", 0).is_success())).unwrap();
                }
            });
            device.close();
        },
    );
}

#[test]
fn a_request_that_is_dropped_is_completed() {
    explore(
        |sample, irp| {
            let (pending, disposition) = irp.pend();
            drop(pending);
            assert_eq!(sample.others.load(Ordering::Relaxed), 0);
            disposition
        },
        || {
            let device = open();
            assert_eq!(device.device_control(CODE, b"", 0).status, NtError::UNSUCCESSFUL.status().0);
            device.close();
        },
    );
}

/// Runs code above `DISPATCH_LEVEL`, where only raw calls come to.
fn at_device_level<R>(code: impl FnOnce() -> R) -> R {
    // SAFETY: the level is lower.
    let level = unsafe { sys::KfRaiseIrql(5) };
    let result = code();
    // SAFETY: the level was raised from there just now.
    unsafe { sys::KeLowerIrql(level) };
    result
}

/// Neither to complete it nor to pass it on is a bug check there; the request stays pending.
#[test]
fn above_dispatch_level_a_request_is_leaked_and_reported() {
    let ends: [Control; 3] = [
        |_, irp| at_device_level(|| irp.complete(NtStatus::SUCCESS, 0)),
        |_, irp| at_device_level(|| irp.forward()),
        |_, irp| {
            let (pending, disposition) = irp.pend();
            at_device_level(|| drop(pending));
            disposition
        },
    ];
    for end in ends {
        CONTROL.set(end);
        let outcome = Machine::new().run(|| {
            let _driver = load_driver("sample", owner::DriverEntry).unwrap();
            let device = open();
            assert!(!device.begin_device_control(CODE, b"", 0).is_done());
            core::mem::forget(device);
        });
        assert!(outcome.is_completed(), "{outcome}");
        let reports = outcome.debug_output().iter().filter(|line| line.ends_with("is leaked")).count();
        assert_eq!(reports, 1, "{outcome}");
    }
}

/// What a part of another request has in place of a system buffer is that request.
#[test]
fn a_part_of_another_request_has_no_buffer() {
    explore(
        |_, mut irp| {
            let raw = irp.as_raw();
            // SAFETY: the request is owned. The flag is taken away again before it is completed.
            let flags = unsafe { &raw mut (*raw).Flags };
            // SAFETY: as above.
            let before = unsafe { flags.read() };
            // SAFETY: as above.
            unsafe { flags.write(before | sys::IRP_ASSOCIATED_IRP) };
            assert!(irp.input().is_empty() && irp.output().is_empty());
            assert_eq!(irp.write_output(b"more"), Err(NtError::NOT_SUPPORTED));
            // SAFETY: as above.
            unsafe { flags.write(before) };
            assert_eq!(irp.input(), b"four");
            irp.complete(NtStatus::SUCCESS, 0)
        },
        || {
            let device = open();
            assert!(device.device_control(CODE, b"four", 4).is_success());
            device.close();
        },
    );
}

#[test]
fn queued_requests_are_completed_or_cancelled_and_never_both() {
    explore(
        |sample, irp| {
            if irp.input().is_empty() {
                return sample.queue.insert(irp);
            }
            let found = sample.queue.pop();
            let any = found.is_some();
            if let Some(found) = found {
                found.complete(NtStatus::SUCCESS, 0);
            }
            irp.complete(NtStatus::SUCCESS, usize::from(any))
        },
        || {
            let device = open();
            let requests: Vec<_> = (0..3).map(|_| device.begin_device_control(CODE, b"", 0)).collect();
            let taken = thread::scope(|scope| {
                let taker =
                    scope.spawn(|| (0..2).filter(|_| device.device_control(CODE, b"take", 4).information == 1).count()).unwrap();
                requests[1].cancel();
                requests[2].cancel();
                taker.join().unwrap()
            });
            // The rest is cancelled with the handle.
            device.close();
            let statuses: Vec<_> = requests.into_iter().map(|request| request.wait().status).collect();
            assert_eq!(statuses.iter().filter(|&&status| status == sys::STATUS_SUCCESS).count(), taken);
            assert!(statuses.iter().all(|&status| status == sys::STATUS_SUCCESS || status == CANCELLED));
        },
    );
}

#[test]
fn direct_output_is_copied() {
    const DIRECT: u32 = sys::CTL_CODE(sys::FILE_DEVICE_UNKNOWN, 0x801, sys::METHOD_OUT_DIRECT, sys::FILE_ANY_ACCESS);
    const NEITHER: u32 = sys::CTL_CODE(sys::FILE_DEVICE_UNKNOWN, 0x801, sys::METHOD_NEITHER, sys::FILE_ANY_ACCESS);
    explore(
        |_, mut irp| {
            let input = irp.input().len();
            let written = irp.write_output(b"hello").map(|written| written + input);
            irp.complete_with(written)
        },
        || {
            let device = open();
            let result = device.device_control(DIRECT, b"abc", 5);
            assert_eq!((result.information, &result.output[..]), (8, &b"hello"[..]));
            assert_eq!(device.device_control(DIRECT, b"", 4).status, NtError::BUFFER_TOO_SMALL.status().0);
            // What is passed for reading is not written.
            assert_eq!(device.device_control(DIRECT - 1, b"", 5).status, NtError::NOT_SUPPORTED.status().0);
            assert_eq!(device.device_control(NEITHER, b"abc", 5).status, NtError::NOT_SUPPORTED.status().0);
            device.close();
        },
    );
}

#[test]
fn ksync_31_a_device_goes_once_at_every_level() {
    CONTROL.set(|_, irp| irp.complete(NtStatus::SUCCESS, 0));
    for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
        for processors in [1, 2] {
            let outcome = Machine::new().processors(processors).run(|| {
                let driver = load_driver("sample", lender::DriverEntry).unwrap();
                let device = DEVICE.take().unwrap();
                assert!(open_device(r"\Device\Sample", Requestor::Kernel).is_ok());
                irql::with_raised(level, || drop(device)).unwrap();
                // At a raised level a worker thread does it, which the unload waits for.
                driver.unload();
                assert_eq!(DROPS.get(), 1, "{level:?}");
                assert!(open_device(r"\Device\Sample", Requestor::Kernel).is_err());
            });
            outcome.expect_clean();
        }
    }
}

#[test]
fn a_device_that_is_open_outlives_its_owner() {
    CONTROL.set(|_, irp| irp.complete(NtStatus::SUCCESS, 0));
    let outcome = Machine::new().run(|| {
        let driver = load_driver("sample", lender::DriverEntry).unwrap();
        let handle = open();
        drop(DEVICE.take());
        assert_eq!(DROPS.get(), 1);
        assert_eq!(handle.device_control(CODE, b"", 0).status, NtError::DELETE_PENDING.status().0);
        assert!(open_device(r"\??\Sample", Requestor::User).is_err());
        handle.close();
        driver.unload();
    });
    outcome.expect_clean();
}

#[test]
fn the_state_stays_while_a_routine_uses_it() {
    CONTROL.set(|_, irp| {
        // The owner drops the device meanwhile.
        drop(DEVICE.take());
        assert_eq!(DROPS.get(), 0);
        irp.complete(NtStatus::SUCCESS, 0)
    });
    let outcome = Machine::new().run(|| {
        let driver = load_driver("sample", lender::DriverEntry).unwrap();
        let handle = open();
        assert!(handle.device_control(CODE, b"", 0).is_success());
        assert_eq!(DROPS.get(), 1);
        handle.close();
        driver.unload();
    });
    outcome.expect_clean();
}

#[test]
fn ksync_58_characteristics_and_all_major_functions() {
    CONTROL.set(|_, irp| irp.complete(NtStatus::SUCCESS, 0));
    let outcome = Machine::new().run(|| {
        let driver = load_driver("sample", lender::DriverEntry).unwrap();
        let device = DEVICE.take().unwrap();
        // SAFETY: the device is there.
        let raw = unsafe { device.object().as_raw().read() };
        assert_eq!((raw.DeviceType, raw.Characteristics), (sys::FILE_DEVICE_UNKNOWN, sys::FILE_DEVICE_SECURE_OPEN));
        assert_eq!(raw.Flags & sys::DO_DEVICE_INITIALIZING, 0);
        let table = driver.object().MajorFunction;
        assert!(table.iter().all(|routine| routine.map(|routine| routine as usize) == table[0].map(|first| first as usize)));
        // Plug and play is the last of them.
        assert_eq!(table.len(), usize::from(sys::IRP_MJ_PNP) + 1);
        drop(device);
        driver.unload();
    });
    outcome.expect_clean();
}

/// A driver that finds another one's device, and one that puts itself above it.
mod upper {
    use super::*;

    pub(super) struct Filter;

    impl Dispatch for Filter {
        fn create<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
            irp.forward()
        }

        fn cleanup<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
            irp.forward()
        }

        fn close<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
            irp.forward()
        }

        fn other<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
            ksync::println!("forwarded {:#x}", irp.major_function());
            irp.forward()
        }
    }

    fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<Device<Filter>> {
        let lower = OpenDevice::open(r"\??\Sample", sys::FILE_READ_DATA)?;
        let filter = DeviceBuilder::new().create(driver, Filter)?;
        filter.attach(&lower)?;
        assert_eq!(filter.attach(&lower), Err(NtError::INVALID_DEVICE_STATE));
        assert_eq!(methods(&filter), BELOW.get());
        Ok(filter)
    }

    ksync::driver_entry!(entry);
}

/// How the device below gets its data, in the next test.
const METHODS: [u32; 3] = [sys::DO_BUFFERED_IO, sys::DO_DIRECT_IO, 0];

thread_local! {
    static BELOW: Cell<u32> = const { Cell::new(sys::DO_BUFFERED_IO) };
}

fn methods<T: Dispatch>(device: &Device<T>) -> u32 {
    // SAFETY: the device is valid while it is borrowed.
    let flags = unsafe { (*device.object().as_raw()).Flags };
    flags & (sys::DO_BUFFERED_IO | sys::DO_DIRECT_IO)
}

#[test]
fn a_device_above_another_gets_its_data_as_that_does() {
    for method in METHODS {
        BELOW.set(method);
        let outcome = Machine::new().run(|| {
            let lower = load_driver("sample", lender::DriverEntry).unwrap();
            DEVICE.with_borrow(|device| {
                let object = device.as_ref().unwrap().object().as_raw();
                // SAFETY: the device is valid while it is borrowed, and nobody else uses it.
                let flags = unsafe { &raw mut (*object).Flags };
                // SAFETY: as above.
                let before = unsafe { flags.read() };
                // SAFETY: as above.
                unsafe { flags.write(before & !sys::DO_BUFFERED_IO | method) };
            });
            let upper = load_driver("upper", upper::DriverEntry).unwrap();
            upper.unload();
            drop(DEVICE.take());
            lower.unload();
        });
        outcome.expect_clean();
    }
}

#[test]
fn ksync_19_files_are_referenced_and_told_from_other_objects() {
    for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
        for seed in 0..10 {
            let outcome = Machine::new().processors(2).seed(seed).run(|| {
                let driver = load_driver("sample", owner::DriverEntry).unwrap();
                let device = OpenDevice::open(r"\Device\Sample", sys::FILE_READ_DATA).unwrap();
                let (file, other) = (device.file().clone(), device.file().clone());
                let handle = file.open(sys::FILE_READ_DATA).unwrap();
                assert_eq!(handle.to_object::<File>().as_ref(), Ok(&file));
                assert_eq!(FileObject::from_handle(handle.as_raw(), sys::FILE_READ_DATA).as_ref(), Ok(device.file()));
                assert_eq!(handle.to_thread(), Err(NtError::OBJECT_TYPE_MISMATCH));
                assert_eq!(handle.to_object::<Mutant>(), Err(NtError::OBJECT_TYPE_MISMATCH));
                let thread = ThreadObject::current().open(sys::GENERIC_ALL).unwrap();
                assert_eq!(thread.to_object::<File>(), Err(NtError::OBJECT_TYPE_MISMATCH));
                drop(handle);
                // The last reference goes at the level.
                irql::with_raised(level, || drop((device, other))).unwrap();
                irql::with_raised(level, || drop(file)).unwrap();
                driver.unload();
            });
            outcome.expect_clean();
        }
    }
}

#[test]
fn ksync_35_a_device_is_attached_once_and_detached_once() {
    CONTROL.set(|_, mut irp| {
        let written = irp.write_output(b"below");
        irp.complete_with(written)
    });
    let outcome = Machine::new().run(|| {
        let lower = load_driver("sample", owner::DriverEntry).unwrap();
        let upper = load_driver("upper", upper::DriverEntry).unwrap();
        let device = open();
        assert_eq!(device.device_control(CODE, b"", 5).output, b"below");
        device.close();
        upper.unload();
        let device = open();
        assert_eq!(device.device_control(CODE, b"", 5).output, b"below");
        device.close();
        lower.unload();
    });
    assert_eq!(outcome.debug_output(), ["forwarded 0xe"]);
    outcome.expect_clean();
}

#[test]
fn ksync_32_a_device_found_by_its_name_is_given_back_once() {
    CONTROL.set(|sample, mut irp| {
        if irp.input() == b"later" {
            let disposition = sample.queue.insert(irp);
            let pending = sample.queue.pop();
            thread::spawn(move || {
                this_thread::sleep(MS).unwrap();
                drop(pending);
            })
            .unwrap()
            .detach();
            return disposition;
        }
        let written = irp.write_output(b"hello");
        irp.complete_with(written)
    });
    let outcome = Machine::new().run(|| {
        let driver = load_driver("sample", owner::DriverEntry).unwrap();
        let device = OpenDevice::open(r"\Device\Sample", sys::FILE_READ_DATA).unwrap();
        let mut output = [0; 8];
        assert_eq!(device.device_control(CODE, b"", &mut output), Ok(5));
        assert_eq!(&output[..5], b"hello");
        assert_eq!(device.device_control(CODE, b"", &mut output[..2]), Err(NtError::BUFFER_TOO_SMALL));
        assert_eq!(device.device_control(CODE, b"later", &mut []), Err(NtError::UNSUCCESSFUL));
        irql::with_raised(Irql::APC, || {
            assert_eq!(device.device_control(CODE, b"", &mut []), Err(NtError::IRQL_TOO_HIGH));
        })
        .unwrap();
        irql::with_raised(Irql::DISPATCH, || drop(device)).unwrap();
        assert!(OpenDevice::open(r"\Device\Nothing", 1).is_err());
        driver.unload();
    });
    outcome.expect_clean();
}

#[test]
fn nothing_is_asked_of_a_device_where_its_answer_could_not_come() {
    CONTROL.set(|_, irp| irp.complete(NtStatus::SUCCESS, 0));
    let outcome = Machine::new().run(|| {
        let driver = load_driver("sample", owner::DriverEntry).unwrap();
        let open = || OpenDevice::open(r"\Device\Sample", sys::FILE_READ_DATA);
        let device = open().unwrap();
        let lock = FastLocked::new(()).unwrap();
        {
            let _guard = lock.lock().unwrap();
            assert_eq!(open().map(drop), Err(NtError::WOULD_DEADLOCK));
            assert_eq!(device.device_control(CODE, b"", &mut []), Err(NtError::WOULD_DEADLOCK));
        }
        irql::with_raised(Irql::APC, || {
            assert_eq!(open().map(drop), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(device.device_control(CODE, b"", &mut []), Err(NtError::IRQL_TOO_HIGH));
        })
        .unwrap();
        // A critical region holds back those that do not matter.
        let region = CriticalRegion::enter().unwrap();
        assert!(open().is_ok());
        assert_eq!(device.device_control(CODE, b"", &mut []), Ok(0));
        drop((region, device));
        driver.unload();
    });
    outcome.expect_clean();
}

#[test]
fn names_are_checked() {
    fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<()> {
        struct Nothing;
        impl Dispatch for Nothing {}
        let long = format!(r"\Device\{}", "x".repeat(300));
        let error = |builder: DeviceBuilder<'_>| builder.create(driver, Nothing).err();
        assert_eq!(error(DeviceBuilder::new().name(&long)), Some(NtError::INVALID_PARAMETER));
        assert_eq!(error(DeviceBuilder::new().link(r"\??\Alone")), Some(NtError::INVALID_PARAMETER));
        let first = DeviceBuilder::new().name(r"\Device\First").link(r"\??\First").create(driver, Nothing)?;
        assert_eq!(error(DeviceBuilder::new().name(r"\Device\First")), Some(NtError::OBJECT_NAME_COLLISION));
        // The device is gone again where its link cannot be had.
        let second = || DeviceBuilder::new().name(r"\Device\Second");
        assert_eq!(error(second().link(r"\??\First")), Some(NtError::OBJECT_NAME_COLLISION));
        drop(second().link(r"\??\Second").create(driver, Nothing)?);
        irql::with_raised(Irql::APC, || assert_eq!(error(second()), Some(NtError::IRQL_TOO_HIGH)))?;
        drop(first);
        Ok(())
    }
    mod names {
        ksync::driver_entry!(super::entry_of_names);
    }
    ENTRY.set(entry);
    Machine::new().run(|| load_driver("names", names::DriverEntry).unwrap().unload()).expect_clean();
}

thread_local! {
    static ENTRY: Cell<fn(&DriverObject, &UnicodeStr<'_>) -> Result<()>> = const { Cell::new(|_, _| Ok(())) };
}

fn entry_of_names(driver: &DriverObject, path: &UnicodeStr<'_>) -> Result<()> {
    ENTRY.get()(driver, path)
}

#[test]
fn every_allocation_may_fail() {
    CONTROL.set(|_, irp| irp.complete(NtStatus::SUCCESS, 0));
    let run = |machine: Machine| {
        machine.run(|| {
            if let Ok(driver) = load_driver("sample", owner::DriverEntry) {
                driver.unload();
            }
        })
    };
    let total = run(Machine::new()).expect_clean().statistics().allocations;
    for failing in 1..=total {
        let outcome = run(Machine::new().fail_allocation(failing));
        assert!(outcome.is_completed() && outcome.left().is_empty(), "allocation {failing}: {outcome}");
    }
}

#[test]
fn a_panic_completes_the_request() {
    CONTROL.set(|_, _irp| panic!("in a routine"));
    let outcome = Machine::new().run(|| {
        let _driver = load_driver("sample", owner::DriverEntry).unwrap();
        let _ = open().device_control(CODE, b"", 0);
    });
    assert_eq!(outcome.panic().unwrap().message, "in a routine");
}

/// A driver whose state holds its device, and shares with it.
mod exclusive {
    use super::*;

    struct Shared(Arc<AtomicU32>);

    impl Dispatch for Shared {
        fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
            self.0.fetch_add(1, Ordering::Relaxed);
            irp.complete(NtStatus::SUCCESS, 0)
        }
    }

    struct State {
        device: Device<Shared>,
        count: Arc<AtomicU32>,
    }

    impl Drop for State {
        fn drop(&mut self) {
            assert!(Arc::ptr_eq(&self.device.state().0, &self.count));
            ksync::println!("{}", self.count.load(Ordering::Relaxed));
        }
    }

    fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<State> {
        let count = Arc::new(AtomicU32::new(0));
        let device = DeviceBuilder::new().name(r"\Device\Shared").exclusive(true).create(driver, Shared(count.clone()))?;
        Ok(State { device, count })
    }

    ksync::driver_entry!(entry);
}

#[test]
fn an_exclusive_device_is_open_once() {
    let outcome = Machine::new().run(|| {
        let driver = load_driver("shared", exclusive::DriverEntry).unwrap();
        let device = open_device(r"\Device\Shared", Requestor::User).unwrap();
        assert!(open_device(r"\Device\Shared", Requestor::User).is_err());
        assert!(device.device_control(CODE, b"", 0).is_success());
        device.close();
        driver.unload();
    });
    assert_eq!(outcome.debug_output(), ["1"]);
    outcome.expect_clean();
}
