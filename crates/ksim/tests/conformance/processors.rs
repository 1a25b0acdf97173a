//! A routine on all processors at once, and routines that are told of processors.

use ksim::explore::Strategy;
use ksim::{Machine, explore as search};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::*;

const IPI_LEVEL: KIRQL = 14;

type Everywhere<'a> = RefCell<Box<dyn FnMut() -> usize + 'a>>;

unsafe extern "system-unwind" fn worker(argument: ULONG_PTR) -> ULONG_PTR {
    // SAFETY: the argument is the closure of `everywhere`, which outlives the call.
    let code = unsafe { &*(argument as *const Everywhere<'_>) };
    // A bug check in it leaves the borrow behind.
    code.borrow_mut()()
}

/// Runs code on all processors. What a borrow there would hide is that none runs it within another.
fn everywhere(code: impl FnMut() -> usize) -> usize {
    let code: Everywhere<'_> = RefCell::new(Box::new(code));
    raw!(KeIpiGenericCall(Some(worker), (&raw const code) as usize))
}

fn processor() -> u32 {
    raw!(KeGetCurrentProcessorNumberEx(null_mut()))
}

#[test]
fn a_routine_runs_once_on_each_processor_at_ipi_level() {
    explore_on(&[1, 2, 4, 64], || {
        let ran = RefCell::new(Vec::new());
        let count = raw!(KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS)) as usize;
        for level in [PASSIVE_LEVEL, APC_LEVEL, DISPATCH_LEVEL, 13] {
            at(level, || {
                let here = processor();
                let result = everywhere(|| {
                    assert_eq!(irql(), IPI_LEVEL);
                    ran.borrow_mut().push(processor());
                    processor() as usize + 100
                });
                // The result is that of the calling processor, on which the caller still is.
                assert!(result == here as usize + 100 || level < DISPATCH_LEVEL);
                assert_eq!((processor(), irql()), (here, level));
            });
            let mut ran = std::mem::take(&mut *ran.borrow_mut());
            ran.sort_unstable();
            assert!(ran.into_iter().eq(0..count as u32));
        }
    });
}

#[test]
fn nothing_else_runs_meanwhile() {
    explore_on(&[2, 4], || {
        let (inside, done) = (Cell::new(false), Cell::new(0));
        let lock = SpinLock::new();
        let work = || {
            for _ in 0..5 {
                assert!(!inside.get());
                // Others turn on the lock when they are interrupted, or hold it.
                lock.with(|| {
                    assert!(!inside.get());
                    now();
                });
                assert!(!inside.get());
            }
            done.set(done.get() + 1);
        };
        let threads = [(); 3].map(|()| spawn(work));
        let dpc = Dpc::new(|| assert!(!inside.get()));
        let count = raw!(KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS));
        for _ in 0..3 {
            let left = Cell::new(count);
            everywhere(|| {
                inside.set(true);
                // Operations that others could see elsewhere.
                now();
                dpc.queue();
                now();
                left.set(left.get() - 1);
                inside.set(left.get() > 0);
                0
            });
            assert_eq!(left.get(), 0);
        }
        join_all(threads);
        assert_eq!(done.get(), 3);
        flush_dpcs();
    });
}

#[test]
fn which_processor_comes_first_is_open() {
    let orders = RefCell::new(std::collections::BTreeSet::new());
    for seed in 0..200 {
        let outcome = Machine::new().processors(3).seed(seed).run(|| {
            let order = RefCell::new(Vec::new());
            everywhere(|| {
                order.borrow_mut().push(processor());
                0
            });
            orders.borrow_mut().insert(order.take());
        });
        outcome.expect_clean();
    }
    assert_eq!(orders.borrow().len(), 6);
}

#[test]
fn all_schedules_of_a_call_beside_a_thread() {
    // The two values are changed together, so that none of the other thread's operations comes in between.
    let exploration = search().processors(2).strategy(Strategy::Exhaustive).check(|| {
        let (one, two, lock) = (Cell::new(0), Cell::new(0), SpinLock::new());
        let thread = spawn(|| {
            lock.with(|| one.set(one.get() + 1));
            now();
            lock.with(|| assert!(one.get() % 2 == 1 && one.get() == 1 + two.get()));
        });
        let first = Cell::new(true);
        everywhere(|| {
            if first.replace(false) {
                one.set(one.get() + 2);
            } else {
                two.set(two.get() + 2);
            }
            0
        });
        thread.join();
    });
    assert!(exploration.expect_clean().is_exhausted());
}

#[test]
fn a_dpc_calls_it_too() {
    explore_on(&[1, 2, 4], || {
        let ran = Cell::new(0);
        let dpc = Dpc::new(|| {
            let count = raw!(KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS)) as usize;
            everywhere(|| {
                ran.set(ran.get() + 1);
                0
            });
            assert_eq!((ran.get(), irql()), (count, DISPATCH_LEVEL));
        });
        dpc.queue();
        flush_dpcs();
        assert_ne!(ran.get(), 0);
    });
}

#[test]
fn what_is_not_for_ipi_level_is_found() {
    let event = Event::notification;
    let stop = crash(0xc4, || {
        everywhere(|| event().set() as usize);
    });
    assert_eq!((stop.routine, stop.irql, stop.parameters[0]), (Some("KeSetEvent"), IPI_LEVEL, 0x2_0016), "{stop}");
    let stop = crash(0xc4, || {
        everywhere(|| {
            sleep(MS);
            0
        });
    });
    assert_eq!((stop.routine, stop.parameters[1]), (Some("KeDelayExecutionThread"), u64::from(IPI_LEVEL)), "{stop}");
    let stop = crash(0xc4, || {
        everywhere(|| usize::from(SpinLock::new().acquire()));
    });
    assert_eq!(stop.routine, Some("KeAcquireSpinLockRaiseToDpc"), "{stop}");
    // Nor is the call itself.
    let stop = crash(0xa, || {
        everywhere(|| everywhere(|| 0));
    });
    assert_eq!((stop.routine, stop.parameters[1]), (Some("KeIpiGenericCall"), u64::from(IPI_LEVEL)), "{stop}");
    let stop = crash(0xc4, || {
        everywhere(|| usize::from(raise(HIGH_LEVEL)));
    });
    assert!(stop.meaning.contains("a routine of KeIpiGenericCall returned at another IRQL (15)"), "{stop}");
    let stop = crash(0xa, || {
        raw!(KeIpiGenericCall(None, 0));
    });
    assert!(stop.meaning.contains("no routine") && stop.parameters == [0, u64::from(IPI_LEVEL), 8, 0], "{stop}");
}

#[test]
fn a_lock_that_an_interrupted_processor_holds_is_never_got() {
    let mut stuck = 0;
    for seed in 0..40 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let lock = SpinLock::new();
            let thread = spawn(|| {
                lock.with(|| {
                    (0..5).for_each(|_| {
                        now();
                    })
                })
            });
            let here = processor();
            everywhere(|| {
                if processor() == here {
                    raw!(KeAcquireSpinLockAtDpcLevel(lock.ptr()));
                    raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
                }
                0
            });
            thread.join();
        });
        match outcome.deadlock() {
            Some(_) => stuck += 1,
            None => drop(outcome.expect_clean()),
        }
    }
    assert!(stuck > 0);
}

/// What a routine was told, and what it says to the processor of that index.
struct Told {
    changes: RefCell<Vec<(KE_PROCESSOR_CHANGE_NOTIFY_STATE, u32, u8, NTSTATUS)>>,
    refuses: Option<u32>,
}

unsafe extern "system-unwind" fn told(context: PVOID, change: *mut KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT, status: *mut NTSTATUS) {
    // SAFETY: the context is the test's, which outlives the registration.
    let told = unsafe { &*context.cast_const().cast::<Told>() };
    // SAFETY: the kernel passes both, valid until the routine returns.
    let change = unsafe { change.read() };
    told.changes.borrow_mut().push((change.State, change.NtNumber, change.ProcNumber.Number, change.Status));
    if told.refuses == Some(change.NtNumber) && change.State == KeProcessorAddStartNotify {
        // SAFETY: as above.
        unsafe { status.write(STATUS_INSUFFICIENT_RESOURCES) };
    }
    assert_eq!(irql(), PASSIVE_LEVEL);
}

fn register(told_of: &Told, flags: u32) -> PVOID {
    raw!(KeRegisterProcessorChangeCallback(Some(told), std::ptr::from_ref(told_of).cast_mut().cast(), flags))
}

#[test]
fn a_routine_is_told_of_the_processors_that_are_there() {
    let outcome = Machine::new().processors(3).run(|| {
        let all = Told { changes: RefCell::default(), refuses: None };
        let registration = register(&all, KE_PROCESSOR_CHANGE_ADD_EXISTING);
        assert!(!registration.is_null());
        let expected = (0..3_u8).flat_map(|cpu| {
            [KeProcessorAddStartNotify, KeProcessorAddCompleteNotify].map(|state| (state, u32::from(cpu), cpu, STATUS_SUCCESS))
        });
        assert!(all.changes.take().into_iter().eq(expected));
        let none = register(&all, 0);
        assert!(all.changes.borrow().is_empty());
        for registration in [registration, none] {
            raw!(KeDeregisterProcessorChangeCallback(registration));
        }
        let refuses = Told { changes: RefCell::default(), refuses: Some(1) };
        assert!(register(&refuses, KE_PROCESSOR_CHANGE_ADD_EXISTING).is_null());
        let last = (KeProcessorAddFailureNotify, 1, 1, STATUS_INSUFFICIENT_RESOURCES);
        assert_eq!(refuses.changes.borrow().last(), Some(&last));
        assert!(raw!(KeRegisterProcessorChangeCallback(None, null_mut(), 0)).is_null());
    });
    outcome.expect_clean();
}

#[test]
fn registrations_for_processors_are_taken_back_once() {
    let all = Told { changes: RefCell::default(), refuses: None };
    let outcome = Machine::new().run(|| {
        let registration = register(&all, 0);
        for _ in 0..2 {
            raw!(KeDeregisterProcessorChangeCallback(registration));
        }
    });
    assert!(outcome.bug_check().is_some(), "{outcome}");
    crash(0xa, || {
        at(DISPATCH_LEVEL, || register(&all, 0));
    });
}
