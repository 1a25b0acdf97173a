//! Spin locks: rules 33 to 36, 38 and 39.

use ksim::Machine;
use ksync_sys::*;
use std::cell::Cell;
use test_support::*;

#[test]
fn rule_33_acquire_raises_and_release_restores() {
    run(|| {
        let lock = SpinLock::new();
        for level in [PASSIVE_LEVEL, APC_LEVEL, DISPATCH_LEVEL] {
            at(level, || {
                let old = lock.acquire();
                assert_eq!((old, irql()), (level, DISPATCH_LEVEL));
                lock.release(old);
                assert_eq!(irql(), level);
            });
        }
        let mut old = 0xff;
        raw!(KeAcquireSpinLock(lock.ptr(), &mut old));
        assert_eq!(old, PASSIVE_LEVEL);
        lock.release(old);
    });
}

#[test]
fn rule_33_spin_lock_excludes() {
    explore_on(&[1, 2, 4, 8], || {
        let (lock, inside, count) = (SpinLock::new(), Cell::new(0), Cell::new(0));
        let other = Event::notification();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    for _ in 0..10 {
                        lock.with(|| {
                            inside.set(inside.get() + 1);
                            other.state();
                            assert_eq!(inside.get(), 1);
                            count.set(count.get() + 1);
                            inside.set(0);
                        });
                    }
                })
            })
            .collect();
        join_all(threads);
        assert_eq!(count.get(), 40);
    });
}

#[test]
fn rule_33_release_restores_the_level_of_the_acquire() {
    let place = Place::<KSPIN_LOCK>::zeroed();
    let wrong = crash(0xc4, || {
        raise(APC_LEVEL);
        raw!(KeAcquireSpinLockRaiseToDpc(place.ptr()));
        raw!(KeReleaseSpinLock(place.ptr(), PASSIVE_LEVEL));
    });
    assert_eq!(wrong.parameters, [0x2_0015, 0, 1, place.object() as u64]);
    raw!(place.ptr().write(0));
    let lowered = crash(0xc4, || {
        raw!(KeAcquireSpinLockRaiseToDpc(place.ptr()));
        lower(PASSIVE_LEVEL);
        raw!(KeReleaseSpinLock(place.ptr(), PASSIVE_LEVEL));
    });
    assert_eq!(lowered.parameters[..3], [0x32, 0, place.object() as u64]);
}

#[test]
fn rule_33_acquire_above_dispatch_level_is_a_bug_check() {
    let stop = crash(0xc4, || {
        raise(3);
        SpinLock::new().acquire();
    });
    assert_eq!(stop.parameters[..3], [0x2_0011, 3, 2]);
}

#[test]
fn rule_34_recursion_and_release_of_a_free_lock() {
    let place = Place::<KSPIN_LOCK>::zeroed();
    let recursive = crash(0xf, || {
        raw!(KeAcquireSpinLockRaiseToDpc(place.ptr()));
        raw!(KeAcquireSpinLockAtDpcLevel(place.ptr()));
    });
    assert_eq!(recursive.parameters[0], place.object() as u64);
    raw!(place.ptr().write(0));
    let free = crash(0x10, || {
        raise(DISPATCH_LEVEL);
        raw!(KeReleaseSpinLock(place.ptr(), PASSIVE_LEVEL));
    });
    assert_eq!(free.parameters[0], place.object() as u64);
    let twice = crash(0x10, || {
        raise(DISPATCH_LEVEL);
        raw!(KeAcquireSpinLockAtDpcLevel(place.ptr()));
        raw!(KeReleaseSpinLockFromDpcLevel(place.ptr()));
        raw!(KeReleaseSpinLockFromDpcLevel(place.ptr()));
    });
    assert_eq!(twice.parameters[0], place.object() as u64);
}

#[test]
fn rule_35_at_dpc_level_forms() {
    run(|| {
        let lock = SpinLock::new();
        for level in [DISPATCH_LEVEL, 5, HIGH_LEVEL] {
            at(level, || {
                raw!(KeAcquireSpinLockAtDpcLevel(lock.ptr()));
                assert_eq!(irql(), level);
                raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
                assert_eq!(raw!(KeTryToAcquireSpinLockAtDpcLevel(lock.ptr())), TRUE);
                assert_eq!(raw!(KeTestSpinLock(lock.ptr())), FALSE);
                raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
                assert_eq!(raw!(KeTestSpinLock(lock.ptr())), TRUE);
            });
        }
    });
    for level in [PASSIVE_LEVEL, APC_LEVEL] {
        let stop = crash(0xc4, || {
            raise(level);
            raw!(KeAcquireSpinLockAtDpcLevel(SpinLock::new().ptr()));
        });
        assert_eq!(stop.parameters[..2], [0x40, u64::from(level)]);
    }
}

#[test]
fn rule_36_queued_lock_raises_and_restores() {
    run(|| {
        let lock = SpinLock::new();
        for level in [PASSIVE_LEVEL, APC_LEVEL, DISPATCH_LEVEL] {
            at(level, || {
                let handle = QueueHandle::new();
                handle.acquire(&lock);
                assert_eq!((irql(), handle.read().OldIrql), (DISPATCH_LEVEL, level));
                handle.release();
                assert_eq!(irql(), level);
            });
        }
        at(DISPATCH_LEVEL, || {
            let handle = QueueHandle::new();
            raw!(KeAcquireInStackQueuedSpinLockAtDpcLevel(lock.ptr(), handle.ptr()));
            raw!(KeReleaseInStackQueuedSpinLockFromDpcLevel(handle.ptr()));
            assert_eq!(irql(), DISPATCH_LEVEL);
        });
    });
}

#[test]
fn rule_36_queued_lock_is_first_come_first_served() {
    for seed in 0..20 {
        Machine::new()
            .processors(5)
            .seed(seed)
            .run(|| {
                let (lock, log, own) = (SpinLock::new(), Log::default(), QueueHandle::new());
                let arrived = Cell::new(0);
                // Each DPC turns on the lock on a processor of its own, in an order that we know.
                let dpcs: Vec<_> = [3u8, 1, 4, 2]
                    .into_iter()
                    .map(|processor| {
                        let (lock, log, arrived) = (&lock, &log, &arrived);
                        Dpc::new(move || {
                            let handle = QueueHandle::new();
                            arrived.set(arrived.get() + 1);
                            raw!(KeAcquireInStackQueuedSpinLockAtDpcLevel(lock.ptr(), handle.ptr()));
                            log.push(processor);
                            raw!(KeReleaseInStackQueuedSpinLockFromDpcLevel(handle.ptr()));
                        })
                        .on(processor)
                        .importance(HighImportance)
                    })
                    .collect();
                let before = raise(DISPATCH_LEVEL);
                while processor() != 0 {
                    lower(before);
                    sleep(MS);
                    raise(DISPATCH_LEVEL);
                }
                own.acquire(&lock);
                for (count, dpc) in dpcs.iter().enumerate() {
                    dpc.queue();
                    while arrived.get() <= count {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    for _ in 0..100 {
                        raw!(KeStallExecutionProcessor(1));
                    }
                }
                assert_eq!(log.len(), 0);
                own.release();
                lower(before);
                flush_dpcs();
                assert_eq!(log.take(), ["3", "1", "4", "2"]);
            })
            .expect_clean();
    }
}

#[test]
fn rule_36_queued_lock_excludes() {
    explore_on(&[1, 2, 4, 8], || {
        let (lock, inside, count) = (SpinLock::new(), Cell::new(0), Cell::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    for _ in 0..10 {
                        let handle = QueueHandle::new();
                        handle.acquire(&lock);
                        inside.set(inside.get() + 1);
                        raw!(KeTestSpinLock(lock.ptr()));
                        assert_eq!(inside.get(), 1);
                        count.set(count.get() + 1);
                        inside.set(0);
                        handle.release();
                    }
                })
            })
            .collect();
        join_all(threads);
        assert_eq!(count.get(), 40);
    });
}

#[test]
fn rule_36_one_lock_is_not_used_both_ways() {
    // In pool it is known to be the same lock still when it is free.
    let queued_second = crash(0xc4, || {
        let (lock, handle) = (allocate(8).cast(), QueueHandle::new());
        let old = raw!(KeAcquireSpinLockRaiseToDpc(lock));
        raw!(KeReleaseSpinLock(lock, old));
        raw!(KeAcquireInStackQueuedSpinLock(lock, handle.ptr()));
    });
    assert_eq!(queued_second.parameters[0], 0x1008);
    let queued_first = crash(0xc4, || {
        let (lock, handle) = (allocate(8).cast(), QueueHandle::new());
        raw!(KeAcquireInStackQueuedSpinLock(lock, handle.ptr()));
        raw!(KeReleaseInStackQueuedSpinLock(handle.ptr()));
        raw!(KeAcquireSpinLockRaiseToDpc(lock));
    });
    assert_eq!(queued_first.parameters[0], 0x1008);
    let place = Place::<KSPIN_LOCK>::zeroed();
    let released_otherwise = crash(0xc4, || {
        let handle = QueueHandle::new();
        raw!(KeAcquireInStackQueuedSpinLock(place.ptr(), handle.ptr()));
        raw!(KeReleaseSpinLock(place.ptr(), PASSIVE_LEVEL));
    });
    assert_eq!(released_otherwise.parameters[..2], [0x1009, place.object() as u64]);
}

/// The release that restores no level leaves that to the caller, whichever acquisition raised it.
#[test]
fn rule_33_release_without_a_level_and_lowered_after() {
    run(|| {
        let lock = SpinLock::new();
        let old = lock.acquire();
        raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
        assert_eq!(irql(), DISPATCH_LEVEL);
        raw!(KeLowerIrql(old));
    });
}

#[test]
fn rule_36_word_on_the_stack_may_become_another_lock() {
    run(|| {
        let place = SpinLock::new();
        place.with(|| {});
        // A lock whose memory has been reused for one of the other kind looks like this.
        let handle = QueueHandle::new();
        handle.acquire(&place);
        handle.release();
        place.with(|| {});
    });
}

#[test]
fn rule_36_handle_is_not_shared() {
    let stop = crash(0xc4, || {
        let (lock, one, two) = (SpinLock::new(), QueueHandle::new(), QueueHandle::new());
        one.acquire(&lock);
        raw!(two.ptr().write(one.read()));
        two.release();
    });
    assert_eq!((stop.parameters[0], stop.routine), (0x4_0006, Some("KeReleaseInStackQueuedSpinLock")));
}

#[test]
fn rule_38_for_dpc_forms_raise_where_needed() {
    explore(|| {
        let lock = SpinLock::new();
        let count = Cell::new(0);
        let work = || {
            let level = irql();
            let old = raw!(KeAcquireSpinLockForDpc(lock.ptr()));
            assert_eq!((old, irql()), (level, DISPATCH_LEVEL));
            count.set(count.get() + 1);
            raw!(KeReleaseSpinLockForDpc(lock.ptr(), old));
            assert_eq!(irql(), level);
        };
        let (threaded, ordinary) = (Dpc::threaded(work), Dpc::new(work));
        threaded.queue();
        ordinary.queue();
        work();
        flush_dpcs();
        sleep(MS);
        assert_eq!(count.get(), 3);
        let queued = SpinLock::new();
        let handle = QueueHandle::new();
        raw!(KeAcquireInStackQueuedSpinLockForDpc(queued.ptr(), handle.ptr()));
        assert_eq!(irql(), DISPATCH_LEVEL);
        raw!(KeReleaseInStackQueuedSpinLockForDpc(handle.ptr()));
        assert_eq!(irql(), PASSIVE_LEVEL);
    });
}

/// A uniprocessor build leaves the word 0, and a second try succeeds. The hosted kernel is always the multiprocessor one, with one
/// processor too.
#[test]
fn rule_39_one_processor_still_has_the_multiprocessor_kernel() {
    run(|| {
        let lock = SpinLock::new();
        let old = lock.acquire();
        assert_ne!(lock.read(), 0);
        assert_eq!(raw!(KeTryToAcquireSpinLockAtDpcLevel(lock.ptr())), FALSE);
        lock.release(old);
        assert_eq!(lock.read(), 0);
    });
}

#[test]
fn rule_40_what_is_not_done_under_a_spin_lock() {
    let under_lock = |code: u32, mistake: fn()| {
        let lock = Place::<KSPIN_LOCK>::zeroed();
        crash(code, || {
            raw!(KeAcquireSpinLockRaiseToDpc(lock.ptr()));
            mistake();
        })
    };
    // No exceptions, no pageable memory, no waits.
    let raised = under_lock(0xc4, || raw!(ExRaiseStatus(STATUS_INSUFFICIENT_RESOURCES)));
    assert_eq!(raised.parameters[..2], [0x2_0008, 2]);
    let paged = under_lock(0xc2, || {
        raw!(ExAllocatePool2(POOL_FLAG_PAGED, 16, TAG));
    });
    assert_eq!(paged.parameters[..2], [0x8, 2]);
    let waited = under_lock(0xc4, || {
        wait(current_thread());
    });
    assert_eq!(waited.parameters[..2], [0x121, 2]);
}
