//! Interrupts: who serves them, at which level, and what keeps them out.

use ksim::{InterruptLine, assign_interrupt, interrupt};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::*;

const VECTOR: u32 = 0x51;
const LEVEL: KIRQL = 6;

/// What a device's service routine does.
type Service<'a> = RefCell<Box<dyn FnMut() -> bool + 'a>>;

fn serving<'a>(service: impl FnMut() -> bool + 'a) -> Service<'a> {
    RefCell::new(Box::new(service))
}

unsafe extern "system-unwind" fn serve(_interrupt: *mut KINTERRUPT, context: PVOID) -> BOOLEAN {
    // SAFETY: the context is a test's closure, which outlives the connection.
    let service = unsafe { &*context.cast_const().cast::<Service<'_>>() };
    BOOLEAN::from(service.borrow_mut()())
}

unsafe extern "system-unwind" fn synchronize(context: PVOID) -> BOOLEAN {
    // SAFETY: as above.
    let service = unsafe { &*context.cast_const().cast::<Service<'_>>() };
    BOOLEAN::from(service.borrow_mut()())
}

/// How a test connects.
#[derive(Clone, Copy)]
struct How {
    vector: u32,
    irql: KIRQL,
    synchronize: KIRQL,
    mode: KINTERRUPT_MODE,
    shared: bool,
    lock: *mut KSPIN_LOCK,
}

const PLAIN: How = How { vector: VECTOR, irql: LEVEL, synchronize: LEVEL, mode: LevelSensitive, shared: false, lock: null_mut() };

fn try_connect(service: &Service<'_>, how: How) -> Result<*mut KINTERRUPT, NTSTATUS> {
    let mut interrupt = null_mut();
    let context = std::ptr::from_ref(service).cast_mut().cast();
    let status = raw!(IoConnectInterrupt(
        &mut interrupt,
        Some(serve),
        context,
        how.lock,
        how.vector,
        how.irql,
        how.synchronize,
        how.mode,
        BOOLEAN::from(how.shared),
        1,
        FALSE
    ));
    if status == STATUS_SUCCESS { Ok(interrupt) } else { Err(status) }
}

fn connect(service: &Service<'_>, how: How) -> *mut KINTERRUPT {
    try_connect(service, how).expect("it can be connected")
}

fn synchronized(interrupt: *mut KINTERRUPT, code: impl FnMut() -> bool) -> bool {
    let code = serving(code);
    raw!(KeSynchronizeExecution(interrupt, Some(synchronize), (&raw const code).cast_mut().cast())) != 0
}

#[test]
fn a_service_routine_runs_at_the_level_of_its_interrupt() {
    explore(|| {
        let log = Log::default();
        let dpc = Dpc::new(|| log.push(format!("DPC at {}", irql())));
        let service = serving(|| {
            log.push(format!("served at {}", irql()));
            assert!(dpc.queue());
            true
        });
        assert!(!interrupt(VECTOR), "nobody has connected it");
        let connected = connect(&service, How { synchronize: LEVEL + 1, ..PLAIN });
        assert!(interrupt(VECTOR));
        assert!(!interrupt(VECTOR + 1));
        flush_dpcs();
        assert_eq!((log.take().join(", "), irql()), ("served at 7, DPC at 2".to_owned(), PASSIVE_LEVEL));
        at(DISPATCH_LEVEL, || assert!(interrupt(VECTOR)));
        flush_dpcs();
        assert_eq!(log.len(), 2);
        raw!(IoDisconnectInterrupt(connected));
        assert!(!interrupt(VECTOR));
    });
}

#[test]
fn a_synchronized_routine_keeps_the_interrupt_out() {
    explore_on(&[2, 3], || {
        let count = Cell::new(0);
        let add = || {
            let before = count.get();
            // Anything that another processor can see lets it act.
            now();
            count.set(before + 1);
            irql() == LEVEL
        };
        let service = serving(add);
        let connected = connect(&service, PLAIN);
        let device = spawn(|| (0..3).for_each(|_| assert!(interrupt(VECTOR))));
        for _ in 0..2 {
            assert!(synchronized(connected, add));
        }
        assert!(!synchronized(connected, || false));
        let old = raw!(KeAcquireInterruptSpinLock(connected));
        assert_eq!((old, irql()), (PASSIVE_LEVEL, LEVEL));
        add();
        raw!(KeReleaseInterruptSpinLock(connected, old));
        device.join();
        assert_eq!((count.get(), irql()), (6, PASSIVE_LEVEL));
        raw!(IoDisconnectInterrupt(connected));
    });
}

#[test]
fn devices_share_a_vector() {
    run(|| {
        let log = Log::default();
        let mine = Cell::new(2);
        let services = [1, 2, 3].map(|number| {
            let (log, mine) = (&log, &mine);
            serving(move || {
                log.push(number);
                mine.get() == number
            })
        });
        let shared = How { shared: true, ..PLAIN };
        let connected = services.each_ref().map(|service| connect(service, shared));
        assert_eq!(try_connect(&services[0], PLAIN), Err(STATUS_INVALID_PARAMETER), "others have it");
        let latched = How { mode: Latched, ..shared };
        assert_eq!(try_connect(&services[0], latched), Err(STATUS_INVALID_PARAMETER), "in another mode");
        assert!(interrupt(VECTOR));
        assert_eq!(log.take(), ["1", "2"], "the one whose device it was ends the search");
        mine.set(9);
        assert!(!interrupt(VECTOR));
        assert_eq!(log.take(), ["1", "2", "3"]);
        connected.into_iter().for_each(|interrupt| raw!(IoDisconnectInterrupt(interrupt)));
        // Of devices that ask once, each is asked.
        let connected = services.each_ref().map(|service| connect(service, latched));
        mine.set(1);
        assert!(interrupt(VECTOR));
        assert_eq!(log.take(), ["1", "2", "3"]);
        connected.into_iter().for_each(|interrupt| raw!(IoDisconnectInterrupt(interrupt)));
    });
}

#[test]
fn interrupts_of_one_device_share_a_lock() {
    explore_on(&[2, 3], || {
        let lock = Place::<KSPIN_LOCK>::zeroed();
        let inside = Cell::new(0);
        let code = || {
            inside.set(inside.get() + 1);
            now();
            assert_eq!((inside.get(), irql()), (1, LEVEL + 2));
            inside.set(0);
            true
        };
        let (one, two) = (serving(code), serving(code));
        let how = How { synchronize: LEVEL + 2, lock: lock.ptr(), ..PLAIN };
        let first = connect(&one, how);
        let second = connect(&two, How { vector: VECTOR + 1, irql: LEVEL + 2, ..how });
        let device = spawn(|| assert!(interrupt(VECTOR)));
        assert!(interrupt(VECTOR + 1));
        assert!(synchronized(first, code));
        device.join();
        raw!(IoDisconnectInterrupt(first));
        raw!(IoDisconnectInterrupt(second));
    });
}

#[test]
fn a_service_routine_does_not_run_once_it_is_disconnected() {
    let code = || {
        let gone = Cell::new(false);
        let service = serving(|| {
            assert!(!gone.get());
            now();
            assert!(!gone.get());
            true
        });
        let connected = connect(&service, PLAIN);
        // Two processors that are interrupted at once, of which one may find the interrupt gone when the other has served it.
        let devices = [(); 2].map(|()| spawn(|| assert!(interrupt(VECTOR) || gone.get())));
        raw!(IoDisconnectInterrupt(connected));
        gone.set(true);
        join_all(devices);
    };
    for seed in 0..300 {
        ksim::Machine::new().processors(3).seed(seed).run(code).expect_clean();
    }
}

#[test]
fn connections_that_cannot_be() {
    run(|| {
        let service = serving(|| true);
        for how in [
            How { irql: DISPATCH_LEVEL, ..PLAIN },
            How { synchronize: LEVEL - 1, ..PLAIN },
            How { irql: 13, synchronize: 13, ..PLAIN },
        ] {
            assert_eq!(try_connect(&service, how), Err(STATUS_INVALID_PARAMETER));
        }
        let mut interrupt = null_mut();
        let mut connect = |routine, processors| {
            raw!(IoConnectInterrupt(
                &mut interrupt,
                routine,
                null_mut(),
                null_mut(),
                VECTOR,
                LEVEL,
                LEVEL,
                Latched,
                FALSE,
                processors,
                FALSE
            ))
        };
        assert_eq!(connect(None, 1), STATUS_INVALID_PARAMETER);
        assert_eq!(connect(Some(serve), 0), STATUS_INVALID_PARAMETER);
        assert!(interrupt.is_null());
    });
    let outcome = ksim::Machine::new().pool_limit(64).run(|| {
        assert_eq!(try_connect(&serving(|| true), PLAIN), Err(STATUS_INSUFFICIENT_RESOURCES));
    });
    outcome.expect_clean();
}

#[test]
fn what_a_service_routine_must_not_do() {
    // It must not wait, nor touch dispatcher objects, nor come back at another level, nor keep itself out.
    let serve_with = |code: u32, service: &dyn Fn(*mut KINTERRUPT)| {
        crash(code, || {
            let connected = Cell::new(null_mut());
            let service = serving(|| {
                service(connected.get());
                true
            });
            connected.set(connect(&service, PLAIN));
            interrupt(VECTOR);
        })
    };
    let event = Event::notification;
    assert_eq!(serve_with(0xc4, &|_| assert_eq!(event().set(), 0)).parameters[0], 0x2_0016);
    assert_eq!(serve_with(0xc4, &|_| assert_eq!(raise(LEVEL + 1), LEVEL)).parameters, [0x111, serve as *const () as u64, 6, 7]);
    let stop = serve_with(0xf, &|interrupt| assert!(synchronized(interrupt, || true)));
    assert_eq!(stop.routine, Some("KeSynchronizeExecution"));
    let stop = serve_with(0xa, &|interrupt| {
        raise(LEVEL + 1);
        synchronized(interrupt, || true);
    });
    assert_eq!((stop.parameters[1], stop.routine), (7, Some("KeSynchronizeExecution")));
}

#[test]
fn an_interrupt_is_disconnected_before_its_driver_goes() {
    let service = serving(|| true);
    let context = &raw const service;
    thread_local! { static CONTEXT: Cell<PVOID> = const { Cell::new(null_mut()) }; }
    CONTEXT.set(context.cast_mut().cast());
    unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
        unsafe extern "system-unwind" fn unload(_driver: *mut DRIVER_OBJECT) {}
        raw!((*driver).DriverUnload = Some(unload));
        let mut interrupt = null_mut();
        raw!(IoConnectInterrupt(
            &mut interrupt,
            Some(serve),
            CONTEXT.get(),
            null_mut(),
            VECTOR,
            LEVEL,
            LEVEL,
            Latched,
            FALSE,
            1,
            FALSE
        ))
    }
    let stop = crash(0xce, || ksim::load_driver("sample", entry).expect("it loads").unload());
    assert!(stop.meaning.contains("interrupt 0x51 connected"), "{stop}");
}

#[test]
#[should_panic(expected = "holds the interrupt back")]
fn a_processor_at_the_level_takes_no_interrupt() {
    run(|| {
        let service = serving(|| true);
        let connected = connect(&service, PLAIN);
        at(LEVEL, || interrupt(VECTOR));
        raw!(IoDisconnectInterrupt(connected));
    });
}

/// Memory that stands for a physical device object, of which only the address is looked at.
fn device() -> Place<DEVICE_OBJECT> {
    Place::zeroed()
}

fn specified(
    device: &Place<DEVICE_OBJECT>,
    service: &Service<'_>,
    place: &mut *mut KINTERRUPT,
) -> IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS {
    IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS {
        PhysicalDeviceObject: device.ptr(),
        InterruptObject: place,
        ServiceRoutine: Some(serve),
        ServiceContext: std::ptr::from_ref(service).cast_mut().cast(),
        SpinLock: null_mut(),
        SynchronizeIrql: LEVEL + 1,
        FloatingSave: FALSE,
        ShareVector: FALSE,
        Vector: VECTOR,
        Irql: LEVEL,
        InterruptMode: LevelSensitive,
        ProcessorEnableMask: 1,
        Group: 0,
    }
}

fn connect_ex(version: u32, parameters: IO_CONNECT_INTERRUPT_PARAMETERS_0) -> (NTSTATUS, u32) {
    let mut parameters = IO_CONNECT_INTERRUPT_PARAMETERS { Version: version, Anonymous: parameters };
    let status = raw!(IoConnectInterruptEx(&mut parameters));
    (status, parameters.Version)
}

fn disconnect_ex(version: u32, interrupt: *mut KINTERRUPT) {
    let connection = IO_INTERRUPT_CONNECTION { InterruptObject: interrupt };
    raw!(IoDisconnectInterruptEx(&IO_DISCONNECT_INTERRUPT_PARAMETERS { Version: version, ConnectionContext: connection }));
}

#[test]
fn an_interrupt_is_connected_as_it_is_specified() {
    explore(|| {
        let (served, device) = (Cell::new(0), device());
        let service = serving(|| {
            assert_eq!(irql(), LEVEL + 1);
            served.set(served.get() + 1);
            true
        });
        for version in [CONNECT_FULLY_SPECIFIED, CONNECT_FULLY_SPECIFIED_GROUP] {
            let mut connected = null_mut();
            let wanted = specified(&device, &service, &mut connected);
            let parameters = IO_CONNECT_INTERRUPT_PARAMETERS_0 { FullySpecified: wanted };
            assert_eq!(connect_ex(version, parameters), (STATUS_SUCCESS, version));
            // The other routines take the object, whichever way it was connected.
            assert!(interrupt(VECTOR) && synchronized(connected, || irql() == LEVEL + 1));
            assert_eq!(connect_ex(version, parameters), (STATUS_INVALID_PARAMETER, version), "nobody shares it");
            disconnect_ex(version, connected);
            assert!(!interrupt(VECTOR));
            for wrong in [
                IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS { PhysicalDeviceObject: null_mut(), ..wanted },
                IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS { ServiceRoutine: None, ..wanted },
                IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS { ProcessorEnableMask: 0, ..wanted },
                IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS { SynchronizeIrql: LEVEL - 1, ..wanted },
            ] {
                let parameters = IO_CONNECT_INTERRUPT_PARAMETERS_0 { FullySpecified: wrong };
                assert_eq!(connect_ex(version, parameters), (STATUS_INVALID_PARAMETER, version));
            }
        }
        assert_eq!(served.get(), 2);
        // Group 1 has no processors. The older version knows no groups.
        let mut connected = null_mut();
        let wanted = IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS { Group: 1, ..specified(&device, &service, &mut connected) };
        let parameters = IO_CONNECT_INTERRUPT_PARAMETERS_0 { FullySpecified: wanted };
        assert_eq!(connect_ex(CONNECT_FULLY_SPECIFIED_GROUP, parameters).0, STATUS_INVALID_PARAMETER);
        assert_eq!(connect_ex(CONNECT_FULLY_SPECIFIED, parameters).0, STATUS_SUCCESS);
        disconnect_ex(CONNECT_FULLY_SPECIFIED, connected);
    });
}

#[test]
fn an_interrupt_is_connected_by_the_line_of_its_device() {
    explore(|| {
        let device = device();
        let level = Cell::new(0);
        let service = serving(|| {
            level.set(irql());
            true
        });
        let mut connected = null_mut();
        let line = IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS {
            PhysicalDeviceObject: device.ptr(),
            InterruptObject: &mut connected,
            ServiceRoutine: Some(serve),
            ServiceContext: (&raw const service).cast_mut().cast(),
            SpinLock: null_mut(),
            SynchronizeIrql: 0,
            FloatingSave: FALSE,
        };
        let message = IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS {
            PhysicalDeviceObject: device.ptr(),
            ConnectionContext: IO_INTERRUPT_CONNECTION_CONTEXT { InterruptObject: line.InterruptObject },
            MessageServiceRoutine: None,
            ServiceContext: line.ServiceContext,
            SpinLock: null_mut(),
            SynchronizeIrql: LEVEL + 2,
            FloatingSave: FALSE,
            FallBackServiceRoutine: Some(serve),
        };
        let by_line = IO_CONNECT_INTERRUPT_PARAMETERS_0 { LineBased: line };
        let by_message = IO_CONNECT_INTERRUPT_PARAMETERS_0 { MessageBased: message };
        assert_eq!(connect_ex(CONNECT_LINE_BASED, by_line).0, STATUS_NOT_FOUND, "the device has none");
        assign_interrupt(device.ptr(), InterruptLine { vector: VECTOR, irql: LEVEL, latched: true, shared: false });
        assert_eq!(connect_ex(CONNECT_LINE_BASED, by_line), (STATUS_SUCCESS, CONNECT_LINE_BASED));
        assert!(interrupt(VECTOR));
        assert_eq!(level.get(), LEVEL, "0 stands for the level of the interrupt itself");
        disconnect_ex(CONNECT_LINE_BASED, raw!((&raw const connected).read()));
        // A device without messages is connected by its line, which the version tells.
        assert_eq!(connect_ex(CONNECT_MESSAGE_BASED, by_message), (STATUS_SUCCESS, CONNECT_LINE_BASED));
        assert!(interrupt(VECTOR));
        assert_eq!(level.get(), LEVEL + 2);
        disconnect_ex(CONNECT_LINE_BASED, raw!((&raw const connected).read()));
        let none = IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS { FallBackServiceRoutine: None, ..message };
        let none = IO_CONNECT_INTERRUPT_PARAMETERS_0 { MessageBased: none };
        assert_eq!(connect_ex(CONNECT_MESSAGE_BASED, none), (STATUS_INVALID_PARAMETER, CONNECT_MESSAGE_BASED));
        // What the system does not have is answered by what it has.
        assert_eq!(connect_ex(17, by_line), (STATUS_NOT_SUPPORTED, CONNECT_FULLY_SPECIFIED_GROUP));
    });
    let stop = crash(0xc4, || disconnect_ex(CONNECT_MESSAGE_BASED, null_mut()));
    assert!(stop.meaning.contains("by version 3"), "{stop}");
}
