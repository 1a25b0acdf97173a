//! Devices and their requests.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::{MS, US, explore, with_driver};
use ksim::{Requestor, load_driver, open_device};
use ksync::NtError;
use ksync::device::{Device, DeviceBuilder, Dispatch, Disposition, Irp, OpenDevice, PendingIrp};
use ksync::driver::{self, DriverObject, UnicodeStr};
use ksync::error::{NtStatus, Result};
use ksync::irql::{self, Irql};
use ksync::pool::KArc;
use ksync::sys;
use ksync::thread::{self, this_thread};
use ksync::work_item;

struct Sample;

impl Dispatch for Sample {
    /// Says that it has filled the output, and has not.
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        irp.complete(NtStatus::SUCCESS, usize::MAX)
    }
}

type Devices = [Device<Sample>; 3];

fn three_devices(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<KArc<Devices>> {
    let create = |name, link| DeviceBuilder::new().name(name).link(link).create(driver, Sample);
    let devices = KArc::new([
        create(r"\Device\First", r"\??\First")?,
        create(r"\Device\Second", r"\??\Second")?,
        create(r"\Device\Third", r"\??\Third")?,
    ])?;
    DEVICES.with(|lent| *lent.lock().unwrap() = Some(devices.clone()));
    Ok(devices)
}

thread_local! {
    static DEVICES: Mutex<Option<KArc<Devices>>> = const { Mutex::new(None) };
}

mod three {
    use super::*;
    ksync::driver_entry!(three_devices);
}

fn with_devices(code: impl Fn(&Devices) -> Result) {
    explore(|| {
        let driver = load_driver("three", three::DriverEntry).unwrap();
        let devices = DEVICES.with(|lent| lent.lock().unwrap().take().unwrap());
        let result = code(&devices);
        drop(devices);
        driver.unload();
        result
    });
}

/// The I/O manager follows the devices that are attached to each other until there is no more: a ring would stop the system.
#[test]
fn devices_are_not_attached_in_a_ring() {
    with_devices(|[first, second, third]| {
        let opened = |name| OpenDevice::open(name, sys::FILE_READ_ATTRIBUTES);
        let (on_first, on_second, on_third) = (opened(r"\Device\First")?, opened(r"\Device\Second")?, opened(r"\Device\Third")?);
        assert_eq!(first.attach(&on_first), Err(NtError::INVALID_PARAMETER));
        second.attach(&on_first)?;
        assert_eq!(first.attach(&on_second), Err(NtError::INVALID_PARAMETER));
        third.attach(&on_second)?;
        assert_eq!(first.attach(&on_third), Err(NtError::INVALID_PARAMETER));
        assert_eq!(first.attach(&on_first), Err(NtError::INVALID_PARAMETER));
        Ok(())
    });
    // Both at once: one of them is first.
    with_devices(|[first, second, _]| {
        let (on_first, on_second) = (
            OpenDevice::open(r"\Device\First", sys::FILE_READ_ATTRIBUTES)?,
            OpenDevice::open(r"\Device\Second", sys::FILE_READ_ATTRIBUTES)?,
        );
        thread::scope(|scope| {
            let other = scope.spawn(|| first.attach(&on_second))?;
            let results = [second.attach(&on_first), other.join()?];
            assert!(results.contains(&Ok(())) && results.contains(&Err(NtError::INVALID_PARAMETER)), "{results:?}");
            Ok(())
        })
    });
}

/// The device that a file was opened on stays while the file does. One above it does not.
#[test]
fn a_device_goes_from_above_another_that_is_open() {
    with_driver(|driver| {
        let device = DeviceBuilder::new().name(r"\Device\First").create(driver, Sample)?;
        let above = DeviceBuilder::new().create(driver, Sample)?;
        let first = OpenDevice::open(r"\Device\First", sys::FILE_READ_ATTRIBUTES)?;
        above.attach(&first)?;
        let opened = OpenDevice::open(r"\Device\First", sys::FILE_READ_ATTRIBUTES)?;
        let ask = |file: &OpenDevice| file.device_control(0x22_2000, b"", &mut []).map(drop);
        assert_eq!(ask(&opened), Ok(()));
        thread::scope(|scope| {
            let user = scope.spawn(|| ask(&opened))?;
            drop(above);
            let answer = user.join()?;
            assert!(answer == Ok(()) || answer == Err(NtError::DELETE_PENDING), "{answer:?}");
            Ok::<_, NtError>(())
        })?;
        assert_eq!(ask(&opened), Ok(()));
        // What is attached by way of such a file is attached to what is left.
        let other = DeviceBuilder::new().create(driver, Sample)?;
        other.attach(&opened)?;
        assert_eq!(ask(&first), Ok(()));
        drop((first, opened, other, device));
        Ok(())
    });
}

/// Forwards all requests, the first of them to where it has attached itself just now.
struct Late(Mutex<Option<KArc<Device<Self>>>>);

impl Dispatch for Late {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        if let Some(device) = self.0.lock().unwrap().take() {
            let below = OpenDevice::open(r"\Device\First", sys::FILE_READ_ATTRIBUTES).unwrap();
            device.attach(&below).unwrap();
        }
        irp.forward()
    }
}

/// A request has room for the drivers that there were when it was sent. Who passes it on to more of them makes them write before its beginning.
#[test]
fn a_request_is_not_forwarded_where_it_has_no_room() {
    with_driver(|driver| {
        let first = DeviceBuilder::new().name(r"\Device\First").create(driver, Sample)?;
        // As if there were others below.
        // SAFETY: the device is valid, and nobody else uses the field now.
        unsafe { (*first.object().as_raw()).StackSize = 3 };
        let late = KArc::new(DeviceBuilder::new().name(r"\Device\Late").create(driver, Late(Mutex::new(None)))?)?;
        *late.state().0.lock().unwrap() = Some(late.clone());
        let opened = OpenDevice::open(r"\Device\Late", sys::FILE_READ_ATTRIBUTES)?;
        assert_eq!(opened.device_control(0x22_2000, b"", &mut []), Err(NtError::INVALID_DEVICE_STATE));
        assert!(opened.device_control(0x22_2000, b"", &mut []).is_ok());
        Ok(())
    });
}

/// A device above others, whose routine takes its time.
struct Slow;

/// The driver of [`Slow`] has been unloaded.
static UNLOADED: AtomicU32 = AtomicU32::new(0);

impl Dispatch for Slow {
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
        this_thread::sleep(3000 * MS).unwrap();
        assert_eq!(UNLOADED.load(Ordering::SeqCst), 0);
        irp.forward()
    }
}

fn slow(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<Device<Slow>> {
    let below = OpenDevice::open(r"\Device\First", sys::FILE_READ_DATA)?;
    let device = DeviceBuilder::new().create(driver, Slow)?;
    device.attach(&below)?;
    Ok(device)
}

mod above {
    use super::*;
    ksync::driver_entry!(slow);
}

/// Who has a device open does not keep the drivers of those that are attached above it. Their code stays while it runs.
#[test]
fn a_driver_is_not_unloaded_under_requests_for_a_device_above_another() {
    with_devices(|_| {
        UNLOADED.store(0, Ordering::SeqCst);
        let above = load_driver("above", above::DriverEntry).unwrap();
        let file = open_device(r"\\.\First", Requestor::User).unwrap();
        let ask = || NtStatus(file.device_control(0x22_2000, b"", 0).status);
        thread::scope(|scope| {
            let user = scope.spawn(ask)?;
            this_thread::sleep(MS)?;
            above.unload();
            UNLOADED.store(1, Ordering::SeqCst);
            // It came to a device that was attached to none any more.
            assert_eq!(user.join()?, NtStatus(sys::STATUS_INVALID_DEVICE_REQUEST));
            Ok::<_, NtError>(())
        })?;
        assert_eq!(ask(), NtStatus::SUCCESS);
        file.close();
        Ok(())
    });
}

/// A device that keeps the requests it gets.
struct Holds(Mutex<Option<PendingIrp>>);

impl Dispatch for Holds {
    fn create<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        irp.forward()
    }

    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        let (irp, disposition) = irp.pend();
        *self.0.lock().unwrap() = Some(irp);
        disposition
    }
}

/// A request that is pending keeps the device that it came to.
#[test]
fn a_device_stays_while_there_is_a_request_to_it() {
    with_driver(|driver| {
        let first = DeviceBuilder::new().name(r"\Device\First").link(r"\??\First").create(driver, Sample)?;
        let above = DeviceBuilder::new().create(driver, Holds(Mutex::new(None)))?;
        above.attach(&OpenDevice::open(r"\Device\First", sys::FILE_READ_ATTRIBUTES)?)?;
        let file = open_device(r"\\.\First", Requestor::User).unwrap();
        let request = file.begin_device_control(0x22_2000, b"", 0);
        let pending = above.state().0.lock().unwrap().take().unwrap();
        drop(above);
        let ran = Arc::new(AtomicU32::new(0));
        let counter = ran.clone();
        work_item::post(pending.device(), move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })?;
        pending.complete(NtStatus::SUCCESS, 0);
        assert_eq!(request.wait().status, sys::STATUS_SUCCESS);
        driver::drain()?;
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        file.close();
        drop(first);
        Ok(())
    });
}

/// Completes what is not a control code, and the opens after the first, as it is told.
struct Answers;

thread_local! {
    static ANSWER: Cell<(i32, usize)> = const { Cell::new((0, 0)) };
}

impl Dispatch for Answers {
    fn create<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.other(irp)
    }

    fn other<'i>(&self, mut irp: Irp<'i>) -> Disposition<'i> {
        if irp.control_code() == Some(0) {
            assert_eq!(irp.write_output(b"x"), Err(NtError::NOT_SUPPORTED));
            assert!(irp.input().is_empty() && irp.output().is_empty());
        }
        let (status, information) = ANSWER.get();
        irp.complete(NtStatus(status), information)
    }
}

/// Stands for a storage driver's request, which has the number of an internal control code, among the minor functions.
const SCSI: u8 = 0xFF;

/// A control code whose output goes through a system buffer, and one whose output is described by a list of its pages.
const BUFFERED: u32 = 0x22_2000;
const DIRECT: u32 = 0x22_2002;

/// Sends a request of any kind with an output buffer, which is passed as for a control code, as the I/O manager does, and tells how it was completed.
fn send(file: &OpenDevice, code: u32, major: u8, minor: u8, output: &mut [u8]) -> (i32, usize) {
    let (mut event, mut block) = (core::mem::MaybeUninit::uninit(), core::mem::MaybeUninit::<sys::IO_STATUS_BLOCK>::zeroed());
    let event = event.as_mut_ptr();
    // SAFETY: the event is a local variable.
    unsafe { sys::KeInitializeEvent(event, sys::NotificationEvent, sys::FALSE) };
    // SAFETY: the file is open.
    let device = unsafe { (*file.file().as_raw()).DeviceObject };
    let (buffer, length) = (output.as_mut_ptr().cast(), u32::try_from(output.len()).unwrap());
    // SAFETY: the device is open; buffer, event and block are valid until the request has ended, which it has when its driver's routine returns.
    let irp = unsafe {
        sys::IoBuildDeviceIoControlRequest(
            code,
            device,
            core::ptr::null_mut(),
            0,
            buffer,
            length,
            sys::FALSE,
            event,
            block.as_mut_ptr(),
        )
    };
    // SAFETY: the request is new.
    let location = unsafe { sys::IoGetNextIrpStackLocation(irp) };
    // SAFETY: it has a location, which nobody else uses yet.
    let location = unsafe { &mut *location };
    (location.MajorFunction, location.MinorFunction, location.FileObject) = (major, minor, file.file().as_raw());
    if minor == SCSI {
        // The first parameter of those is a pointer.
        // SAFETY: the length is a half of it, and the code is no parameter of theirs.
        let control = unsafe { &mut location.Parameters.DeviceIoControl };
        (control.OutputBufferLength, control.IoControlCode) = (0x1234_5678, 0);
    }
    // SAFETY: the request is given up.
    let status = unsafe { sys::IofCallDriver(device, irp) };
    // SAFETY: it was zeroed.
    (status, unsafe { block.assume_init() }.Information)
}

/// The I/O manager copies as many bytes as it is told, looks where a name is said to go on, and follows what is said to point to an answer.
#[test]
fn requests_are_completed_with_what_fits_them() {
    const UNSUCCESSFUL: i32 = sys::STATUS_UNSUCCESSFUL;
    with_driver(|driver| {
        let device = DeviceBuilder::new().name(r"\Device\Answers").create(driver, Answers)?;
        let file = OpenDevice::open(r"\Device\Answers", sys::FILE_READ_ATTRIBUTES)?;
        let mut output = [0xEE; 8];
        let mut ask = |major, minor, answer| {
            ANSWER.set(answer);
            let end = send(&file, BUFFERED, major, minor, &mut output);
            ANSWER.set((0, 0));
            assert!(output.iter().all(|&byte| byte == 0 || byte == 0xEE), "{output:x?}");
            end
        };
        for major in 0..=sys::IRP_MJ_PNP {
            let is_question = [0x05, 0x0A].contains(&major);
            let buffered = [sys::IRP_MJ_READ, sys::IRP_MJ_DEVICE_CONTROL, sys::IRP_MJ_INTERNAL_DEVICE_CONTROL].contains(&major);
            let hidden = [0x07, 0x0C, 0x14, sys::IRP_MJ_SYSTEM_CONTROL, 0x19].contains(&major);
            let closes = [sys::IRP_MJ_CLEANUP, sys::IRP_MJ_CLOSE].contains(&major);
            for information in [1, 8, 9, usize::MAX] {
                let (status, told) = ask(major, 0, (0, information));
                assert_eq!(status, if hidden { UNSUCCESSFUL } else { 0 }, "{major:#x}");
                let shown = is_question || buffered;
                assert_eq!(told, if shown { information.min(8) } else { 0 }, "{major:#x}");
            }
            for status in [sys::STATUS_PENDING, sys::STATUS_REPARSE, 0x118, -1] {
                // `IO_REPARSE_TAG_MOUNT_POINT`: there should be a buffer in the request.
                let (status, _) = ask(major, 0, (status, 0xA000_0003));
                assert_eq!(status, if closes { 0 } else { UNSUCCESSFUL }, "{major:#x}");
            }
        }
        assert_eq!(ask(sys::IRP_MJ_INTERNAL_DEVICE_CONTROL, SCSI, (0, 5)), (0, 0));
        // Of plug and play, what is answered by a status alone.
        for minor in 0..SCSI {
            let alone = matches!(minor, 0..=6 | 0x11 | 0x12 | 0x16 | 0x17);
            assert_eq!(ask(sys::IRP_MJ_PNP, minor, (0, 0x1234)).0, if alone { 0 } else { UNSUCCESSFUL }, "{minor:#x}");
            assert_eq!(ask(sys::IRP_MJ_PNP, minor, (sys::STATUS_NOT_SUPPORTED, 0)).0, sys::STATUS_NOT_SUPPORTED, "{minor:#x}");
        }
        // What goes to the memory of the sender itself is no more than that has room for, either.
        for major in [sys::IRP_MJ_READ, sys::IRP_MJ_WRITE] {
            for information in [1, 8, 9, usize::MAX] {
                ANSWER.set((0, information));
                assert_eq!(send(&file, DIRECT, major, 0, &mut output), (0, information.min(8)), "{major:#x}");
                ANSWER.set((0, 0));
            }
        }
        drop((file, device));
        Ok(())
    });
}

#[test]
fn output_that_nobody_wrote_holds_nothing_of_the_kernels() {
    with_devices(|_| {
        let device = open_device(r"\\.\First", Requestor::User).unwrap();
        for (input, output) in [(&b"hello"[..], 64), (b"", 64), (b"hello", 2)] {
            let answer = device.device_control(0x22_2000, input, output).output;
            let expected: Vec<u8> = input.iter().copied().chain(core::iter::repeat(0)).take(output).collect();
            assert_eq!(answer, expected);
        }
        device.close();
        Ok(())
    });
}

/// A device goes while requests to it are on their way on other processors: each is answered, and the state goes once.
#[test]
fn a_device_goes_under_its_requests() {
    struct Busy(Arc<AtomicU32>, Arc<AtomicU32>);
    impl Dispatch for Busy {
        fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
            assert_eq!(self.1.load(Ordering::SeqCst), 0);
            this_thread::stall(US);
            self.0.fetch_add(1, Ordering::SeqCst);
            irp.complete(NtStatus::SUCCESS, 0)
        }
    }
    impl Drop for Busy {
        fn drop(&mut self) {
            assert_eq!(self.1.fetch_add(1, Ordering::SeqCst), 0);
        }
    }
    with_driver(|driver| {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            let (served, dropped) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let device = DeviceBuilder::new().name(r"\Device\Busy").create(driver, Busy(served.clone(), dropped.clone()))?;
            let answered = thread::scope(|scope| -> Result<u32> {
                let users: [_; 3] = core::array::from_fn(|_| {
                    scope.spawn(|| -> Result<u32> {
                        let opened = OpenDevice::open(r"\Device\Busy", sys::FILE_READ_DATA)?;
                        let mut answers = 0;
                        for _ in 0..4 {
                            match opened.device_control(0x22_2000, b"", &mut []) {
                                Ok(_) => answers += 1,
                                Err(error) => assert_eq!(error, NtError::DELETE_PENDING),
                            }
                        }
                        Ok(answers)
                    })
                });
                this_thread::stall(US);
                irql::with_raised(level, || drop(device))?;
                // Who came too late has found no device.
                Ok(users.into_iter().map(|user| user.unwrap().join().unwrap().unwrap_or(0)).sum())
            })?;
            driver::drain()?;
            assert_eq!((answered, dropped.load(Ordering::SeqCst)), (served.load(Ordering::SeqCst), 1));
        }
        Ok(())
    });
}
