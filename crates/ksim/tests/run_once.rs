//! RTL_RUN_ONCE.

use ksync_sys::*;
use std::cell::Cell;
use std::ptr::null_mut;
use test_support::{Place, explore, join_all, raw, run, sleep, spawn};

const RESULT: usize = 0x1230;

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
    static FAILURES: Cell<u32> = const { Cell::new(0) };
}

unsafe extern "system-unwind" fn initialize(_: *mut RTL_RUN_ONCE, _: PVOID, context: *mut PVOID) -> ULONG {
    RUNS.set(RUNS.get() + 1);
    sleep(test_support::MS);
    if FAILURES.get() > 0 {
        FAILURES.set(FAILURES.get() - 1);
        return 0;
    }
    raw!(*context = RESULT as PVOID);
    1
}

#[test]
fn one_thread_initialises_and_the_others_wait_for_the_result() {
    explore(|| {
        RUNS.set(0);
        FAILURES.set(0);
        let once = Place::<RTL_RUN_ONCE>::zeroed();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    let mut result = null_mut();
                    let status = raw!(RtlRunOnceExecuteOnce(once.ptr(), Some(initialize), null_mut(), &mut result));
                    assert_eq!((status, result as usize), (STATUS_SUCCESS, RESULT));
                })
            })
            .collect();
        join_all(threads);
        assert_eq!(RUNS.get(), 1);
    });
}

#[test]
fn after_a_failure_another_thread_initialises() {
    explore(|| {
        RUNS.set(0);
        FAILURES.set(2);
        let (once, succeeded) = (Place::<RTL_RUN_ONCE>::zeroed(), Cell::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    let status = raw!(RtlRunOnceExecuteOnce(once.ptr(), Some(initialize), null_mut(), null_mut()));
                    succeeded.set(succeeded.get() + u32::from(status == STATUS_SUCCESS));
                })
            })
            .collect();
        join_all(threads);
        assert_eq!((RUNS.get(), succeeded.get()), (3, 2));
    });
}

#[test]
fn asynchronous_initialisations_run_in_parallel_and_the_first_wins() {
    run(|| {
        let once = Place::<RTL_RUN_ONCE>::zeroed();
        raw!(RtlRunOnceInitialize(once.ptr()));
        let mut result = null_mut();
        assert_eq!(raw!(RtlRunOnceBeginInitialize(once.ptr(), RTL_RUN_ONCE_CHECK_ONLY, &mut result)), STATUS_UNSUCCESSFUL);
        for _ in 0..2 {
            assert_eq!(raw!(RtlRunOnceBeginInitialize(once.ptr(), RTL_RUN_ONCE_ASYNC, &mut result)), STATUS_PENDING);
        }
        assert_eq!(raw!(RtlRunOnceBeginInitialize(once.ptr(), 0, &mut result)), STATUS_INVALID_PARAMETER);
        assert_eq!(raw!(RtlRunOnceComplete(once.ptr(), RTL_RUN_ONCE_ASYNC, RESULT as PVOID)), STATUS_SUCCESS);
        assert_eq!(raw!(RtlRunOnceComplete(once.ptr(), RTL_RUN_ONCE_ASYNC, null_mut())), STATUS_UNSUCCESSFUL);
        assert_eq!(raw!(RtlRunOnceBeginInitialize(once.ptr(), RTL_RUN_ONCE_CHECK_ONLY, &mut result)), STATUS_SUCCESS);
        assert_eq!(result as usize, RESULT);
    });
}

#[test]
fn bad_flags_and_contexts_are_errors() {
    run(|| {
        let once = Place::<RTL_RUN_ONCE>::zeroed();
        let mut result = null_mut();
        let both = RTL_RUN_ONCE_CHECK_ONLY | RTL_RUN_ONCE_ASYNC;
        assert_eq!(raw!(RtlRunOnceBeginInitialize(once.ptr(), both, &mut result)), STATUS_INVALID_PARAMETER_2);
        assert_eq!(raw!(RtlRunOnceBeginInitialize(once.ptr(), 0x80, &mut result)), STATUS_INVALID_PARAMETER_2);
        assert_eq!(raw!(RtlRunOnceComplete(once.ptr(), 0, null_mut())), STATUS_UNSUCCESSFUL);
        assert_eq!(raw!(RtlRunOnceBeginInitialize(once.ptr(), 0, &mut result)), STATUS_PENDING);
        assert_eq!(raw!(RtlRunOnceComplete(once.ptr(), 0, 1 as PVOID)), STATUS_INVALID_PARAMETER_3);
        assert_eq!(raw!(RtlRunOnceComplete(once.ptr(), 0, null_mut())), STATUS_SUCCESS);
    });
}
