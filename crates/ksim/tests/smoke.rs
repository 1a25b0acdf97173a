//! The machine itself: runs, ends, traces.

use ksim::Machine;
use ksync_sys::*;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

struct Shared {
    event: MaybeUninit<KEVENT>,
    count: Cell<u32>,
    lock: KSPIN_LOCK,
}

unsafe extern "system-unwind" fn worker(context: PVOID) {
    let shared = context.cast::<Shared>();
    for _ in 0..100 {
        unsafe {
            let lock = &raw mut (*shared).lock;
            let old = KeAcquireSpinLockRaiseToDpc(lock);
            (*shared).count.set((*shared).count.get() + 1);
            KeReleaseSpinLock(lock, old);
        }
    }
    unsafe {
        KeSetEvent((*shared).event.as_mut_ptr(), 0, 0);
    }
}

#[test]
fn threads_and_locks() {
    for seed in 0..20 {
        let run = || {
            Machine::new()
                .processors(4)
                .seed(seed)
                .run(|| {
                    let mut shared = Shared { event: MaybeUninit::uninit(), count: Cell::new(0), lock: 0 };
                    unsafe {
                        KeInitializeEvent(shared.event.as_mut_ptr(), SynchronizationEvent, 0);
                        let mut handles = vec![];
                        for _ in 0..4 {
                            let mut handle = null_mut();
                            assert_eq!(
                                PsCreateSystemThread(
                                    &mut handle,
                                    0,
                                    null_mut(),
                                    null_mut(),
                                    null_mut(),
                                    Some(worker),
                                    (&raw mut shared).cast()
                                ),
                                0
                            );
                            let mut object = null_mut();
                            assert_eq!(ObReferenceObjectByHandle(handle, 0, null_mut(), 0, &mut object, null_mut()), 0);
                            ZwClose(handle);
                            handles.push(object);
                        }
                        for object in handles {
                            assert_eq!(KeWaitForSingleObject(object, 0, 0, 0, null()), 0);
                            ObfDereferenceObject(object);
                        }
                    }
                    assert_eq!(shared.count.get(), 400);
                    unsafe {
                        DbgPrint(c"count %d %s\n".as_ptr(), shared.count.get(), c"ok".as_ptr());
                    }
                })
                .expect_clean()
        };
        let one = run();
        let two = run();
        assert_eq!(one.trace(), two.trace());
        assert_eq!(one.debug_output(), ["count 400 ok"]);
        println!("{:?}", one.statistics());
    }
}

#[test]
fn ends() {
    let outcome = Machine::new().run(|| unsafe {
        let mut lock = 0;
        KeAcquireSpinLockRaiseToDpc(&mut lock);
        KeAcquireSpinLockRaiseToDpc(&mut lock);
    });
    println!("{outcome}");
    outcome.expect_bug_check(0xf);
    let outcome = Machine::new().run(|| {
        let x: Option<u32> = None;
        x.expect("hello");
    });
    println!("{outcome}");
    assert!(outcome.panic().is_some());
    let outcome = Machine::new().run(|| unsafe {
        let mut event = MaybeUninit::<KEVENT>::uninit();
        KeInitializeEvent(event.as_mut_ptr(), SynchronizationEvent, 0);
        let delay = -10_000_000;
        let t = KeQueryInterruptTime();
        KeDelayExecutionThread(0, 0, &delay);
        assert_eq!(KeQueryInterruptTime() - t, 10_000_000);
        assert_eq!(KeWaitForSingleObject(event.as_mut_ptr().cast(), 0, 0, 0, &delay), STATUS_TIMEOUT);
        KeWaitForSingleObject(event.as_mut_ptr().cast(), 0, 0, 0, null());
    });
    println!("{outcome}");
    assert!(outcome.deadlock().is_some());
}
