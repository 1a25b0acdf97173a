//! Device timers, and what a driver keeps with its object.

use ksim::Machine;
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::io::*;
use test_support::*;

/// What a device's timer does.
type Tick<'a> = RefCell<Box<dyn FnMut(*mut DEVICE_OBJECT) + 'a>>;

fn ticking<'a>(tick: impl FnMut(*mut DEVICE_OBJECT) + 'a) -> Tick<'a> {
    RefCell::new(Box::new(tick))
}

unsafe extern "system-unwind" fn call_tick(device: *mut DEVICE_OBJECT, context: PVOID) {
    // SAFETY: the context is a test's closure, which outlives the timer.
    let tick = unsafe { &*context.cast_const().cast::<Tick<'_>>() };
    tick.borrow_mut()(device);
}

fn initialize(device: *mut DEVICE_OBJECT, tick: &Tick<'_>) -> NTSTATUS {
    raw!(IoInitializeTimer(device, Some(call_tick), std::ptr::from_ref(tick).cast_mut().cast()))
}

#[test]
fn a_devices_timer_is_called_once_a_second() {
    explore(|| {
        let sample = Sample::load("sample");
        let device = sample.device();
        let times = RefCell::new(Vec::new());
        let tick = ticking(|seen| {
            assert_eq!((seen, irql()), (device, DISPATCH_LEVEL));
            times.borrow_mut().push(now());
        });
        assert!(raw!((*device).Timer).is_null());
        assert_eq!(initialize(device, &tick), STATUS_SUCCESS);
        assert!(!raw!((*device).Timer).is_null());
        sleep(3 * SECOND);
        assert!(times.borrow().is_empty(), "it is not started");
        let start = now();
        at(DISPATCH_LEVEL, || raw!(IoStartTimer(device)));
        // It is, already.
        raw!(IoStartTimer(device));
        sleep(4 * SECOND + SECOND / 2);
        at(DISPATCH_LEVEL, || raw!(IoStopTimer(device)));
        let seen = times.take();
        assert!(seen[0] - start <= SECOND, "{seen:?}");
        assert!((4..=5).contains(&seen.len()), "{seen:?}");
        assert!(seen.windows(2).all(|pair| pair[1] - pair[0] == SECOND), "{seen:?}");
        sleep(3 * SECOND);
        assert!(times.borrow().is_empty(), "it is stopped");
        raw!(IoStopTimer(device));
        raw!(IoStartTimer(device));
        sleep(2 * SECOND);
        assert!(times.borrow().len() >= 2);
        // The device's deletion stops the timer, and frees it.
        sample.unload();
        times.take();
        sleep(2 * SECOND);
        assert!(times.borrow().is_empty());
    });
}

#[test]
fn each_device_has_its_own_timer() {
    explore(|| {
        let samples = ["one", "two", "three"].map(Sample::load);
        let counts = [(); 3].map(|()| Cell::new(0));
        let ticks = [0, 1, 2].map(|index: usize| {
            let count = &counts[index];
            ticking(move |_| count.set(count.get() + 1))
        });
        for (sample, tick) in samples.iter().zip(&ticks) {
            assert_eq!(initialize(sample.device(), tick), STATUS_SUCCESS);
        }
        raw!(IoStartTimer(samples[0].device()));
        raw!(IoStartTimer(samples[2].device()));
        sleep(2 * SECOND + MS);
        raw!(IoStopTimer(samples[0].device()));
        raw!(IoStartTimer(samples[1].device()));
        let first = counts[0].get();
        sleep(2 * SECOND);
        assert!(first >= 2);
        assert_eq!(counts[0].get(), first);
        assert_eq!(counts[1].get(), 2);
        assert!(counts[2].get() >= 4);
        samples.into_iter().for_each(Sample::unload);
    });
}

#[test]
fn another_routine_may_be_given_while_the_timer_is_stopped() {
    run(|| {
        let sample = Sample::load("sample");
        let (one, two) = (Cell::new(0), Cell::new(0));
        let first = ticking(|_| one.set(one.get() + 1));
        let second = ticking(|_| two.set(two.get() + 1));
        assert_eq!(initialize(sample.device(), &first), STATUS_SUCCESS);
        let timer = raw!((*sample.device()).Timer);
        assert_eq!(initialize(sample.device(), &second), STATUS_SUCCESS);
        assert_eq!(raw!((*sample.device()).Timer), timer);
        raw!(IoStartTimer(sample.device()));
        sleep(2 * SECOND);
        assert_eq!(one.get(), 0);
        assert!(two.get() > 0);
        sample.unload();
    });
}

#[test]
fn a_stop_waits_for_the_routine() {
    let met = Cell::new(false);
    for seed in 0..60 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let sample = Sample::load("sample");
            let device = sample.device();
            let running = Cell::new(false);
            let tick = ticking(|_| {
                running.set(true);
                for _ in 0..4 {
                    raw!(KeStallExecutionProcessor(10));
                }
                running.set(false);
            });
            assert_eq!(initialize(device, &tick), STATUS_SUCCESS);
            // The routine runs on the processor that started the timer, and this thread on the other one.
            raw!(KeSetSystemAffinityThreadEx(1));
            raw!(IoStartTimer(device));
            raw!(KeSetSystemAffinityThreadEx(2));
            // About when it comes: some schedules stop it in the midst. (Looking at the clock lets others act.)
            sleep(SECOND);
            now();
            met.set(met.get() || running.get());
            raw!(IoStopTimer(device));
            assert!(!running.get(), "the routine runs after IoStopTimer");
            sample.unload();
        });
        outcome.expect_clean();
    }
    assert!(met.get(), "no schedule stopped a timer whose routine ran");
}

#[test]
fn a_timers_routine_may_complete_requests() {
    explore(|| {
        let sample = Sample::load("sample");
        let held: Cell<*mut IRP> = Cell::new(null_mut());
        let held = &held;
        // What the driver does: it holds a request, and lets it go when a second or two have passed.
        thread_local! { static HELD: Cell<*mut IRP> = const { Cell::new(null_mut()) }; }
        sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
            raw!(IoMarkIrpPending(irp));
            HELD.set(irp);
            STATUS_PENDING
        });
        let tick = ticking(|_| {
            held.set(HELD.replace(null_mut()));
            if !held.get().is_null() {
                succeed(held.get());
            }
        });
        assert_eq!(initialize(sample.device(), &tick), STATUS_SUCCESS);
        raw!(IoStartTimer(sample.device()));
        let handle = sample.open();
        let answer = handle.device_control(BUFFERED, &[], 0);
        assert_eq!(answer.status, STATUS_SUCCESS);
        drop(handle);
        sample.unload();
    });
}

#[test]
fn memory_for_a_timer_may_be_lacking() {
    run(|| {
        let sample = Sample::load("sample");
        sample.unload();
    });
    let sizes = Cell::new(0);
    let outcome = Machine::new().pool_limit(600).run(|| {
        let sample = Sample::load("sample");
        let blocks: Vec<_> = std::iter::repeat_with(|| allocate(16)).take_while(|block| !block.is_null()).collect();
        sizes.set(blocks.len());
        let tick = ticking(|_| unreachable!("it is never started"));
        assert_eq!(initialize(sample.device(), &tick), STATUS_INSUFFICIENT_RESOURCES);
        assert!(raw!((*sample.device()).Timer).is_null());
        blocks.into_iter().for_each(free);
        assert_eq!(initialize(sample.device(), &tick), STATUS_SUCCESS);
        sample.unload();
    });
    outcome.expect_clean();
    assert!(sizes.get() > 0);
}

#[test]
fn extensions_of_a_driver_go_with_its_object() {
    explore(|| {
        let sample = Sample::load("sample");
        let driver = raw!((*sample.device()).DriverObject);
        let (mut one, mut two, mut again) = (null_mut(), null_mut(), 8 as PVOID);
        let name = |number: usize| number as PVOID;
        assert!(raw!(IoGetDriverObjectExtension(driver, name(1))).is_null());
        assert_eq!(raw!(IoAllocateDriverObjectExtension(driver, name(1), 64, &mut one)), STATUS_SUCCESS);
        assert_eq!(raw!(IoAllocateDriverObjectExtension(driver, name(2), 8, &mut two)), STATUS_SUCCESS);
        assert_eq!(raw!(IoAllocateDriverObjectExtension(driver, name(1), 8, &mut again)), STATUS_OBJECT_NAME_COLLISION);
        assert!(again.is_null());
        assert_eq!(raw!(one.cast::<[u64; 8]>().read()), [0; 8]);
        raw!(one.cast::<u64>().write(77));
        at(DISPATCH_LEVEL, || {
            assert_eq!(raw!(IoGetDriverObjectExtension(driver, name(1))), one);
            assert_eq!(raw!(IoGetDriverObjectExtension(driver, name(2))), two);
        });
        assert_eq!(raw!(one.cast::<u64>().read()), 77);
        // Nobody frees them: the driver's pool is checked here, and what is left when the machine ends.
        sample.unload();
    });
}

#[test]
fn extensions_of_two_drivers_are_apart() {
    run(|| {
        let samples = ["one", "two"].map(Sample::load);
        let drivers = samples.each_ref().map(|sample| raw!((*sample.device()).DriverObject));
        let name = 5 as PVOID;
        let memory = drivers.map(|driver| {
            let mut memory = null_mut();
            assert_eq!(raw!(IoAllocateDriverObjectExtension(driver, name, 8, &mut memory)), STATUS_SUCCESS);
            memory
        });
        assert_ne!(memory[0], memory[1]);
        for (driver, memory) in drivers.into_iter().zip(memory) {
            assert_eq!(raw!(IoGetDriverObjectExtension(driver, name)), memory);
        }
        samples.into_iter().for_each(Sample::unload);
    });
}
