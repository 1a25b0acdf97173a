//! Mistakes that a user-mode shim of these routines can make, and this kernel must not: one test each.

use ksim::{Machine, bug_check};
use ksync_sys::*;
use std::cell::Cell;
use test_support::*;

#[test]
fn levels_are_not_raised_downwards_or_lowered_upwards() {
    let raised = Machine::new().run(|| {
        raise(DISPATCH_LEVEL);
        raise(APC_LEVEL);
    });
    let stop = raised.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(stop.parameters[..3], [0x30, 2, 1]);
    let lowered = Machine::new().run(|| lower(DISPATCH_LEVEL));
    let stop = lowered.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(stop.parameters[..3], [0x31, 0, 2]);
}

#[test]
fn regions_are_counted_and_hold_apcs_back() {
    run(|| {
        leave_start_region();
        let (normal, special) = (Cell::new(0), Cell::new(0));
        let normal_apc = Apc::normal(current_thread(), || normal.set(normal.get() + 1));
        let special_apc = Apc::special(current_thread(), || special.set(special.get() + 1));
        assert_eq!(raw!(KeAreApcsDisabled()), FALSE);
        raw!(KeEnterCriticalRegion());
        raw!(KeEnterCriticalRegion());
        assert_ne!(raw!(KeAreApcsDisabled()), FALSE);
        assert_eq!(raw!(KeAreAllApcsDisabled()), FALSE);
        normal_apc.insert();
        raw!(KeLeaveCriticalRegion());
        assert_eq!(normal.get(), 0);
        raw!(KeLeaveCriticalRegion());
        assert_eq!(normal.get(), 1);
        raw!(KeEnterGuardedRegion());
        assert_ne!(raw!(KeAreAllApcsDisabled()), FALSE);
        special_apc.insert();
        assert_eq!(special.get(), 0);
        raw!(KeLeaveGuardedRegion());
        assert_eq!(special.get(), 1);
        enter_start_region();
    });
}

#[test]
fn relative_timeouts_of_semaphores_are_relative_and_modes_count() {
    run(|| {
        let semaphore = Semaphore::new(0, 1);
        let begin = now();
        assert_eq!(wait_until(semaphore.object(), -10 * MS), STATUS_TIMEOUT);
        assert_eq!(now() - begin, 10 * MS);
        let waiter = spawn(|| {
            assert_eq!(wait_mode(semaphore.object(), KernelMode, true, None), STATUS_ALERTED);
        });
        settle();
        waiter.alert(KernelMode);
        waiter.join();
    });
}

#[test]
fn all_dispatcher_objects_can_be_waited_on() {
    run(|| {
        let (mutex, timer) = (Mutex::new(), Timer::notification());
        assert_eq!(wait(mutex.object()), STATUS_SUCCESS);
        raw!(KeReleaseMutex(mutex.ptr(), FALSE));
        timer.set(-MS);
        assert_eq!(wait(timer.object()), STATUS_SUCCESS);
        assert_eq!(poll(current_thread()), STATUS_TIMEOUT);
        assert_eq!(poll(raw!(IoGetCurrentProcess()).cast()), STATUS_TIMEOUT);
    });
}

#[test]
fn absolute_timeouts_are_of_the_system_time() {
    run(|| {
        let event = Event::notification();
        let begin = now();
        let due = system_time() + 10 * SECOND;
        let setter = spawn(|| {
            sleep(SECOND);
            ksim::set_system_time(due);
        });
        assert_eq!(wait_until(event.object(), due), STATUS_TIMEOUT);
        assert_eq!(now() - begin, SECOND);
        setter.join();
    });
}

#[test]
fn semaphores_are_not_released_past_their_limit() {
    let outcome = Machine::new().run(|| _ = Semaphore::new(1, 1).release(1));
    let stop = outcome.expect_bug_check(bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED);
    assert_eq!(stop.parameters[0], u64::from(STATUS_SEMAPHORE_LIMIT_EXCEEDED as u32));
}

#[test]
fn timers_take_absolute_times_need_no_dpc_and_can_be_waited_on() {
    run(|| {
        let timer = Timer::synchronization();
        let begin = now();
        timer.set(system_time() + 5 * SECOND);
        assert_eq!(wait(timer.object()), STATUS_SUCCESS);
        assert_eq!(now() - begin, 5 * SECOND);
        assert!(!timer.state());
    });
}

unsafe extern "system-unwind" fn count_processor(_dpc: *mut KDPC, context: PVOID, done: PVOID, _: PVOID) {
    // SAFETY: the context is the test's cell, which outlives the call.
    let count = unsafe { &*context.cast::<Cell<u32>>() };
    count.set(count.get() + 1);
    raw!(KeSignalCallDpcDone(done));
}

#[test]
fn dpcs_have_importance_threads_and_calls_on_all_processors() {
    let outcome = Machine::new().processors(3).run(|| {
        let order = Cell::new(0);
        let note = |digit: u32| order.set(order.get() * 10 + digit);
        let (low, high) = (Dpc::new(|| note(1)), Dpc::new(|| note(2)).importance(HighImportance));
        let (low, high) = (low.on(0), high.on(0));
        raw!(KeSetSystemAffinityThreadEx(1));
        at(DISPATCH_LEVEL, || {
            low.queue();
            high.queue();
        });
        flush_dpcs();
        assert_eq!(order.get(), 21);
        let level = Cell::new(9);
        let threaded = Dpc::threaded(|| level.set(irql()));
        threaded.queue();
        flush_dpcs();
        assert_eq!(level.get(), PASSIVE_LEVEL);
        let count = Cell::new(0_u32);
        raw!(KeGenericCallDpc(Some(count_processor), (&raw const count).cast_mut().cast()));
        assert_eq!(count.get(), 3);
    });
    outcome.expect_clean();
}

#[test]
fn reader_writer_spin_locks_raise_the_level_and_return_the_old_one() {
    run(|| {
        let lock = Place::<EX_SPIN_LOCK>::zeroed();
        let apc = raise(APC_LEVEL);
        let old = raw!(ExAcquireSpinLockExclusive(lock.ptr()));
        assert_eq!((old, irql()), (APC_LEVEL, DISPATCH_LEVEL));
        raw!(ExReleaseSpinLockExclusive(lock.ptr(), old));
        assert_eq!(irql(), APC_LEVEL);
        lower(apc);
    });
}

#[test]
fn recursive_spin_locks_are_reported_and_do_not_hang() {
    let outcome = Machine::new().run(|| {
        let lock = SpinLock::new();
        lock.acquire();
        lock.acquire();
    });
    outcome.expect_bug_check(bug_check::SPIN_LOCK_ALREADY_OWNED);
}

#[test]
fn raising_the_level_is_cheap() {
    let outcome = Machine::new().run(|| {
        for _ in 0..100_000 {
            let old = raise(DISPATCH_LEVEL);
            lower(old);
        }
    });
    let outcome = outcome.expect_clean();
    // No thread of the host, and no other of the machine, has anything to do with it.
    assert_eq!(outcome.statistics().threads, 1);
    assert_eq!(outcome.statistics().virtual_time, std::time::Duration::ZERO);
}

#[test]
fn delays_are_alertable_and_can_be_absolute() {
    run(|| {
        let sleeper = spawn(|| {
            let interval = -SECOND;
            assert_eq!(raw!(KeDelayExecutionThread(KernelMode, TRUE, &interval)), STATUS_ALERTED);
        });
        settle();
        sleeper.alert(KernelMode);
        sleeper.join();
        let begin = now();
        let until = system_time() + 3 * SECOND;
        assert_eq!(raw!(KeDelayExecutionThread(KernelMode, FALSE, &until)), STATUS_SUCCESS);
        assert_eq!(now() - begin, 3 * SECOND);
    });
}
