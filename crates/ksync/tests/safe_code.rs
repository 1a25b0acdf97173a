//! What safe code can try against the library's objects: levels, places, destructors and callbacks that nobody would write, and that must not break anything.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use ksim::{Machine, Requestor, load_driver, open_device};
use ksync::NtError;
use ksync::device::{Device, DeviceBuilder, Dispatch, Disposition, Irp, OpenDevice, PendingIrp};
use ksync::dpc::{self, Dpc, Importance, Processor, ThreadedDpc};
use ksync::driver::{self, DriverObject, UnicodeStr};
use ksync::error::{NtStatus, Result};
use ksync::event::{Event, EventProperty, PinnedEvent};
use ksync::init::stack_try_pin_init;
use ksync::irql::{self, Irql};
use ksync::mutex::{FastLocked, KMutex, PushLocked, Rundown, SpinLocked};
use ksync::object::{KernelObject, MutantObject, ProcessObject, ThreadObject};
use ksync::pool::{KArc, KBox};
use ksync::region::{CriticalRegion, GuardedRegion};
use ksync::sys;
use ksync::thread::{self, this_thread};
use ksync::time::Timeout;
use ksync::timer::{HrTimer, PinnedTimer, Timer, TimerKind, delay_run};
use ksync::wait::{Dispatchable, WaitMode, WaitOptions, WaitResult, wait_any};
use ksync::work_item::{self, WorkItem};

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);

/// Under several schedules, on one processor and on several.
fn explore(code: impl Fn() -> Result) {
    for processors in [1, 2, 4] {
        for threaded in [true, false] {
            for seed in 0..10 {
                // Nothing may rest on it that a flush waits for threaded DPCs too.
                let machine =
                    Machine::new().processors(processors).threaded_dpcs(threaded).flushes_threaded_dpcs(seed % 2 == 0).seed(seed);
                machine.run(|| code().unwrap()).expect_clean();
            }
        }
    }
}

/// What a driver's entry does.
type Code = fn(&DriverObject) -> Result;

thread_local! {
    static CODE: Cell<Option<Code>> = const { Cell::new(None) };
}

/// A driver that runs code in its entry, so that all of it is the driver's.
mod code {
    use super::*;

    fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result {
        CODE.get().unwrap()(driver)
    }

    ksync::driver_entry!(entry);
}

fn with_driver(code: Code) {
    explore(|| {
        CODE.set(Some(code));
        load_driver("code", code::DriverEntry).unwrap().unload();
        Ok(())
    });
}

/// In a user-mode wait NT may page the stack out, on which what is waited for and the wait blocks may lie: the library keeps it in memory.
#[test]
fn a_user_mode_wait_may_name_what_lies_on_the_stack() {
    explore(|| {
        stack_try_pin_init!(let event = PinnedEvent::pin_init(EventProperty::Notification, false));
        let event = event?.into_ref().get_ref();
        stack_try_pin_init!(let timer = PinnedTimer::pin_init(TimerKind::Notification));
        let timer = timer?.into_ref().get_ref();
        let user = WaitOptions::new().mode(WaitMode::User).alertable(true);
        assert!(event.wait_with(user.timeout(Timeout::after(MS))).timed_out());
        timer.start(MS, Duration::ZERO)?;
        assert!(timer.wait_with(user).success());
        timer.start(MS, Duration::ZERO)?;
        assert_eq!(wait_any(&[event, timer], user), WaitResult::Signaled(1));
        timer.start(MS, Duration::ZERO)?;
        assert_eq!(wait_any(&[event, event, event, event, timer], user), WaitResult::Signaled(4));
        thread::scope(|scope| {
            let thread = scope.spawn(|| event.set())?;
            assert!(event.wait_with(user).success());
            thread.join()?.map(drop)
        })?;
        // The stack may go again as before, whoever had kept it.
        // SAFETY: what is on this stack is in no use by others.
        assert_eq!(unsafe { sys::KeSetKernelStackSwapEnable(sys::FALSE) }, sys::TRUE);
        assert!(event.wait_with(user).success());
        // SAFETY: as above.
        assert_eq!(unsafe { sys::KeSetKernelStackSwapEnable(sys::TRUE) }, sys::FALSE);
        Ok(())
    });
}

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

/// Sends a request of any kind with an output buffer, as the I/O manager does, and tells how it was completed.
fn send(file: &OpenDevice, major: u8, minor: u8, output: &mut [u8]) -> (i32, usize) {
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
            0x22_2000,
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
            let end = send(&file, major, minor, &mut output);
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
        drop((file, device));
        Ok(())
    });
}

/// A processor that is idle is in a thread which the object manager knows nothing of: to count a reference to it is to write to memory that is not its own.
#[test]
fn the_thread_of_an_idle_processor_is_no_object() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    explore(|| {
        let last = Processor::from_index(u32::try_from(thread::available_parallelism().get() - 1).unwrap()).unwrap();
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        let look = move || {
            let (thread, process) = (ThreadObject::current(), ProcessObject::current());
            assert_eq!((thread.id(), &thread), (this_thread::id(), &thread.clone()));
            assert_eq!((thread.is_terminated(), process.is_terminated()), (Ok(false), Ok(false)));
            assert_eq!((this_thread::is_terminating(), this_thread::priority()), (Ok(false), thread.priority()));
            *keep.lock().unwrap() = Some((thread, process));
        };
        dpc::run_once_on(last, look).map_err(|refused| refused.error)?;
        driver::drain()?;
        let (thread, _process) = kept.lock().unwrap().take().unwrap();
        if thread.id().get() == 0 {
            SEEN.fetch_add(1, Ordering::Relaxed);
            assert_eq!(thread.open(sys::GENERIC_ALL).map(drop), Err(NtError::INVALID_CID));
            assert_eq!(thread.set_priority(8), Err(NtError::INVALID_CID));
            assert_eq!(thread.priority(), Ok(0));
            assert_eq!(thread.exit_status(), Ok(None));
            assert_eq!(thread.wait(), WaitResult::Failed(NtError::INVALID_CID));
            assert_eq!(wait_any(&[&thread], WaitOptions::new()), WaitResult::Failed(NtError::INVALID_CID));
            let again = thread.into_raw();
            // SAFETY: the reference was given up just now.
            drop(unsafe { ThreadObject::from_raw(again) });
        }
        Ok(())
    });
    assert!(SEEN.load(Ordering::Relaxed) > 0);
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

#[test]
fn draining_in_a_work_item_is_an_error() {
    with_driver(|driver| {
        let refused = Arc::new(AtomicU32::new(0));
        let counter = refused.clone();
        let item = WorkItem::new(driver, move || {
            assert_eq!(driver::drain(), Err(NtError::WOULD_DEADLOCK));
            counter.fetch_add(1, Ordering::Relaxed);
        })?;
        item.enqueue()?;
        item.flush()?;
        assert_eq!(refused.load(Ordering::Relaxed), 1);
        let counter = refused.clone();
        work_item::post(driver, move || {
            assert_eq!(driver::drain(), Err(NtError::WOULD_DEADLOCK));
            counter.fetch_add(1, Ordering::Relaxed);
        })?;
        driver::drain()?;
        assert_eq!(refused.load(Ordering::Relaxed), 2);
        Ok(())
    });
}

/// The wait that takes a mutant once more than it can count raises an exception, which stops the system.
#[test]
fn a_mutant_is_not_taken_more_often_than_it_can_count() {
    explore(|| {
        let user = ksim::create_mutant(false).unwrap() as sys::HANDLE;
        let mutant: MutantObject = KernelObject::from_handle(user, sys::SYNCHRONIZE)?;
        assert!(mutant.wait().success() && mutant.wait().success());
        // SAFETY: the mutant is alive, and only its owner, which is this thread, uses it.
        let state = unsafe { &raw mut (*mutant.as_raw()).Header.SignalState };
        // SAFETY: as above. It makes as if the mutant had been taken so often.
        unsafe { state.write(i32::MIN + 1) };
        assert!(mutant.wait().success());
        let refused = WaitResult::Failed(NtError::MUTANT_LIMIT_EXCEEDED);
        assert_eq!(mutant.wait(), refused);
        assert_eq!(mutant.wait_with(Timeout::POLL.into()), refused);
        assert_eq!(wait_any(&[&mutant], WaitOptions::new()), refused);
        mutant.release()?;
        // SAFETY: as above.
        unsafe { state.write(-1) };
        mutant.release()?;
        mutant.release()?;
        assert_eq!(mutant.is_free(), Ok(true));
        // SAFETY: the handle was opened above.
        assert_eq!(unsafe { sys::ZwClose(user) }, 0);
        Ok(())
    });
}

/// What does all it can when it is dropped, wherever that is.
struct Busy {
    dpc: Option<Dpc>,
    threaded: Option<ThreadedDpc>,
    timer: Option<Timer>,
    precise: Option<HrTimer>,
    item: Option<WorkItem>,
    event: Event,
    dropped: Arc<AtomicU32>,
}

impl Busy {
    fn new(driver: &DriverObject, dropped: &Arc<AtomicU32>) -> Result<Self> {
        let busy = Self {
            dpc: Some(Dpc::new(|| {})?),
            threaded: Some(ThreadedDpc::new(|| {})?),
            timer: Some(Timer::new(|| {}, true)?),
            precise: Some(HrTimer::new(|| {})?),
            item: Some(WorkItem::new(driver, || {})?),
            event: Event::new(EventProperty::Notification, true)?,
            dropped: dropped.clone(),
        };
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let level = irql::current();
        assert!(level <= Irql::DISPATCH);
        self.event.set().unwrap();
        // While an image is being drained these are refused.
        let _ = self.dpc.as_ref().unwrap().enqueue();
        let _ = self.threaded.as_ref().unwrap().enqueue();
        let _ = self.timer.as_ref().unwrap().start(US, Duration::ZERO);
        let _ = self.precise.as_ref().unwrap().start(US, Duration::ZERO);
        let _ = self.item.as_ref().unwrap().enqueue();
        let _ = delay_run(US, || {});
        let _ = dpc::run_once(|| {});
        let flushed = self.dpc.as_ref().unwrap().flush();
        assert!(flushed.is_ok() || level > Irql::PASSIVE || flushed == Err(NtError::WOULD_DEADLOCK));
        drop((self.dpc.take(), self.threaded.take(), self.timer.take(), self.precise.take(), self.item.take()));
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Closures are dropped by whoever uses them last: a drop at each level, a DPC, a threaded DPC, a worker. What they own does what it likes there.
#[test]
fn what_closures_own_may_do_anything_when_it_is_dropped() {
    with_driver(|driver| {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            let dropped = Arc::new(AtomicU32::new(0));
            let owned = || -> Result<_> {
                let busy = Busy::new(driver, &dropped)?;
                // The closure goes on while its handle is dropped.
                Ok(move || {
                    for _ in 0..3 {
                        this_thread::stall(US);
                    }
                    let _ = &busy;
                })
            };
            let (ordinary, threaded) = (Timer::new(owned()?, false)?, Timer::new(owned()?, true)?);
            let (precise, dpc) = (HrTimer::new(owned()?)?, Dpc::new(owned()?)?);
            let (threaded_dpc, item) = (ThreadedDpc::new(owned()?)?, WorkItem::new(driver, owned()?)?);
            delay_run(US, owned()?).map_err(|refused| refused.error)?;
            dpc::run_once(owned()?).map_err(|refused| refused.error)?;
            work_item::post(driver, owned()?)?;
            let last = Processor::from_index(u32::try_from(thread::available_parallelism().get() - 1).unwrap()).unwrap();
            for dpc in [&*dpc, &*threaded_dpc] {
                dpc.set_target(last)?;
                dpc.set_importance(Importance::High);
            }
            irql::with_raised(level, || -> Result {
                ordinary.start(US, Duration::ZERO)?;
                threaded.start(US, Duration::ZERO)?;
                precise.start(US, Duration::ZERO)?;
                dpc.enqueue()?;
                threaded_dpc.enqueue()?;
                item.enqueue()?;
                for _ in 0..2 {
                    this_thread::stall(US);
                }
                drop((ordinary, threaded, precise, dpc, threaded_dpc, item));
                Ok(())
            })??;
            driver::drain()?;
            assert_eq!(dropped.load(Ordering::SeqCst), 9);
        }
        Ok(())
    });
}

/// More aligned than pool is.
#[repr(align(256))]
struct Aligned(u64);

impl Aligned {
    fn check(&self) -> u64 {
        assert!((&raw const *self).addr().is_multiple_of(256));
        self.0
    }
}

/// The count of `Nothing`s that are alive.
static NOTHINGS: AtomicUsize = AtomicUsize::new(0);
/// The tests that count them, one at a time.
static COUNTING: Mutex<()> = Mutex::new(());

/// A value of no size, which owns something all the same.
struct Nothing;

impl Nothing {
    fn new() -> Self {
        NOTHINGS.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        NOTHINGS.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn what_closures_own_keeps_its_alignment_and_its_size() {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    NOTHINGS.store(0, Ordering::SeqCst);
    with_driver(|driver| {
        let sum = Arc::new(AtomicUsize::new(0));
        // Aligned, large, and nothing at all.
        let owned = |number: u64| {
            let (aligned, large, nothing, sum) = (Aligned(number), [number; 64], Nothing::new(), sum.clone());
            move || {
                let (_, _) = (&nothing, &aligned);
                assert!(large.iter().all(|&word| word == number));
                sum.fetch_add(usize::try_from(aligned.check()).unwrap(), Ordering::SeqCst);
            }
        };
        let timers = [Timer::new(owned(1), false)?, Timer::new(owned(10), true)?];
        for timer in &timers {
            timer.start(MS, Duration::ZERO)?;
        }
        let precise = HrTimer::new(owned(100))?;
        precise.start(US, Duration::ZERO)?;
        let dpc = Dpc::new(owned(1000))?;
        dpc.enqueue()?;
        let threaded = ThreadedDpc::new(owned(10_000))?;
        threaded.enqueue()?;
        let item = WorkItem::new(driver, owned(100_000))?;
        item.enqueue()?;
        delay_run(US, owned(1_000_000)).map_err(|refused| refused.error)?;
        dpc::run_once(owned(10_000_000)).map_err(|refused| refused.error)?;
        work_item::post(driver, owned(100_000_000))?;
        let last = owned(1_000_000_000);
        let result = thread::spawn(move || (last(), Aligned(7)))?.join()?;
        assert_eq!(result.1.check(), 7);
        dpc::run_once_per_core(owned(0))?;
        assert_eq!(KBox::new(Aligned(8))?.check(), 8);
        assert_eq!(KArc::new(Aligned(9))?.check(), 9);
        drop((KBox::new(Nothing::new())?, KArc::new(Nothing::new())?, KBox::new([(); usize::MAX])?));
        assert_eq!(KBox::<[u8; 1 << 46]>::new_uninit().map(drop), Err(NtError::INSUFFICIENT_RESOURCES));
        this_thread::sleep(5 * MS)?;
        drop((timers, precise, dpc, threaded, item));
        driver::drain()?;
        assert_eq!(sum.load(Ordering::SeqCst), 1_111_111_111);
        assert_eq!(NOTHINGS.load(Ordering::SeqCst), 0);
        Ok(())
    });
}

/// A closure that panics stops a hosted machine as a bug check; what it owns is not dropped twice on the way.
#[test]
fn a_panic_in_a_closure_is_reported_and_frees_nothing_twice() {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    fn panicking() -> impl Fn() + Send + Sync {
        let (nothing, text) = (Nothing::new(), String::from("on purpose"));
        move || {
            let _ = &nothing;
            panic!("{text}");
        }
    }
    let starts: [(&str, Code); 9] = [
        ("timer", |_| {
            let timer = Timer::new(panicking(), false)?;
            timer.start(US, MS)?;
            this_thread::sleep(MS)
        }),
        ("dpc", |_| Dpc::new(panicking())?.enqueue().map(drop)),
        ("threaded dpc", |_| {
            let dpc = ThreadedDpc::new(panicking())?;
            dpc.enqueue()?;
            dpc.flush()
        }),
        ("threaded timer", |_| {
            let timer = Timer::new(panicking(), true)?;
            timer.start(US, MS)?;
            this_thread::sleep(MS)
        }),
        ("hr timer", |_| {
            let timer = HrTimer::new(panicking())?;
            timer.start(US, US)?;
            this_thread::sleep(MS)
        }),
        ("work item", |driver| {
            let item = WorkItem::new(driver, panicking())?;
            item.enqueue()?;
            item.flush()
        }),
        ("post", |driver| {
            work_item::post(driver, panicking())?;
            this_thread::sleep(MS)
        }),
        ("delayed", |_| {
            delay_run(US, panicking()).map_err(|refused| refused.error)?;
            this_thread::sleep(MS)
        }),
        ("per core", |_| dpc::run_once_per_core(panicking())),
    ];
    for (name, start) in starts {
        NOTHINGS.store(0, Ordering::SeqCst);
        CODE.set(Some(start));
        let outcome = Machine::new().processors(2).run(|| {
            let _ = load_driver("panics", code::DriverEntry);
        });
        let report = outcome.to_string();
        assert!(!outcome.is_completed() && report.contains("on purpose"), "{name}: {report}");
        // Once, or not at all where the machine stopped first. One that was dropped twice would be a huge number.
        assert!(NOTHINGS.load(Ordering::SeqCst) <= 1, "{name}");
    }
}

/// Forgotten handles leak what they stand for, which then is never due any more: nothing of the image runs after a drain.
#[test]
fn forgotten_handles_leak_and_are_stopped_by_a_drain() {
    for processors in [1, 2, 4, 64] {
        let outcome = Machine::new().processors(processors).run(|| {
            let runs = Arc::new(AtomicU32::new(0));
            let count = || {
                let runs = runs.clone();
                move || {
                    runs.fetch_add(1, Ordering::SeqCst);
                }
            };
            let (timer, threaded) = (Timer::new(count(), false).unwrap(), Timer::new(count(), true).unwrap());
            let (precise, dpc, threaded_dpc) =
                (HrTimer::new(count()).unwrap(), Dpc::new(count()).unwrap(), ThreadedDpc::new(count()).unwrap());
            timer.start(US, MS).unwrap();
            threaded.start(US, MS).unwrap();
            precise.start(US, MS).unwrap();
            dpc.enqueue().unwrap();
            threaded_dpc.enqueue().unwrap();
            let sleeper = count();
            let thread = thread::spawn(move || {
                this_thread::sleep(MS).unwrap();
                sleeper();
            });
            core::mem::forget((timer, threaded, precise, dpc, threaded_dpc, thread));
            driver::drain().unwrap();
            let before = runs.load(Ordering::SeqCst);
            this_thread::sleep(20 * MS).unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), before);
            assert!(before >= 3, "{before}");
        });
        assert!(outcome.is_completed(), "{outcome}");
        assert!(outcome.left().timers.is_empty(), "{outcome}");
        assert!(outcome.left().pool.len() >= 6, "{outcome}");
    }
}

/// What a forgotten guard leaves behind in a thread, a worker, or a DPC.
const FORGOTTEN: [(&str, fn()); 9] = [
    ("level", || core::mem::forget(irql::raise(Irql::APC))),
    ("dispatch level", || core::mem::forget(irql::raise(Irql::DISPATCH))),
    ("critical region", || core::mem::forget(CriticalRegion::enter())),
    ("guarded region", || core::mem::forget(GuardedRegion::enter())),
    ("spin lock", || {
        let lock = KBox::leak(KBox::new(SpinLocked::const_new(1)).unwrap());
        core::mem::forget(lock.lock());
    }),
    ("fast mutex", || {
        if let Ok(lock) = FastLocked::new(1) {
            core::mem::forget(KBox::leak(KBox::new(lock).unwrap()).lock());
        }
    }),
    ("push lock", || {
        let lock = KBox::leak(KBox::new(PushLocked::const_new(1)).unwrap());
        core::mem::forget(lock.lock());
    }),
    ("mutex", || {
        if let Ok(lock) = KMutex::new(1) {
            core::mem::forget(KBox::leak(KBox::new(lock).unwrap()).lock());
        }
    }),
    ("rundown", || {
        let rundown = KBox::leak(KBox::new(Rundown::new()).unwrap());
        core::mem::forget(rundown.acquire());
    }),
];

/// Runs code somewhere.
type Place = fn(&DriverObject, fn()) -> Result;

/// A guard that was forgotten leaks its lock, or stops the system where its thread or routine ends, by the bug check that is for that.
#[test]
fn forgotten_guards_stop_the_system_at_worst() {
    let places: [(&str, Place); 5] = [
        ("thread", |_, forget| thread::spawn(forget)?.join()),
        ("dpc", |_, forget| {
            let dpc = Dpc::new(forget)?;
            dpc.enqueue()?;
            dpc.flush()
        }),
        ("threaded dpc", |_, forget| {
            let dpc = ThreadedDpc::new(forget)?;
            dpc.enqueue()?;
            dpc.flush()
        }),
        ("timer", |_, forget| {
            let timer = Timer::new(forget, false)?;
            timer.start(US, Duration::ZERO)?;
            this_thread::sleep(MS)
        }),
        ("work item", |driver, forget| {
            let item = WorkItem::new(driver, forget)?;
            item.enqueue()?;
            item.flush()
        }),
    ];
    thread_local! {
        static WHAT: Cell<Option<fn()>> = const { Cell::new(None) };
        static WHERE: Cell<Option<Place>> = const { Cell::new(None) };
    }
    let mut stopped = 0;
    for (what, forget) in FORGOTTEN {
        for (place, run) in places {
            WHAT.set(Some(forget));
            WHERE.set(Some(run));
            CODE.set(Some(|driver| WHERE.get().unwrap()(driver, WHAT.get().unwrap())));
            let outcome = Machine::new().processors(2).run(|| {
                let _ = load_driver("forgets", code::DriverEntry).map(|driver| driver.unload());
            });
            let Some(stop) = outcome.bug_check() else {
                assert!(outcome.is_completed(), "{what} in a {place}: {outcome}");
                continue;
            };
            stopped += 1;
            // Those of a level, a region or a lock at the end of a routine or a thread, of pool at an unload, and of waits in a threaded DPC.
            let expected = [0x1, 0x20, 0xb8, 0xc4, 0xc7, 0xc8, 0xe1, 0x133, 0x153, 0x4000_008a];
            assert!(expected.contains(&stop.code), "{what} in a {place}: {outcome}");
        }
    }
    assert!(stopped >= 20, "{stopped}");
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
