//! Mistakes with locks, levels and regions.

use crate::{Case, Caught, always, sometimes};
use ksync_sys::*;
use test_support::*;

fn lock_mutex(mutex: &Mutex) {
    assert_eq!(wait(mutex.object()), STATUS_SUCCESS);
}

fn unlock_mutex(mutex: &Mutex) {
    raw!(KeReleaseMutex(mutex.ptr(), FALSE));
}

fn lock_fast(mutex: &FastMutex) {
    raw!(KeEnterCriticalRegion());
    raw!(ExAcquireFastMutexUnsafe(mutex.ptr()));
}

fn unlock_fast(mutex: &FastMutex) {
    raw!(ExReleaseFastMutexUnsafe(mutex.ptr()));
    raw!(KeLeaveCriticalRegion());
}

struct Resource(Place<ERESOURCE>);

impl Resource {
    fn new() -> Self {
        let resource = Self(Place::zeroed());
        raw!(ExInitializeResourceLite(resource.0.ptr()));
        resource
    }

    fn exclusive(&self) {
        raw!(KeEnterCriticalRegion());
        raw!(ExAcquireResourceExclusiveLite(self.0.ptr(), TRUE));
    }

    fn shared(&self) {
        raw!(KeEnterCriticalRegion());
        raw!(ExAcquireResourceSharedLite(self.0.ptr(), TRUE));
    }

    fn release(&self) {
        raw!(ExReleaseResourceLite(self.0.ptr()));
        raw!(KeLeaveCriticalRegion());
    }

    fn delete(&self) {
        raw!(ExDeleteResourceLite(self.0.ptr()));
    }
}

fn abba_of_mutexes(wrong: bool) {
    let (a, b) = (Mutex::new(), Mutex::new());
    let both = |first: &Mutex, second: &Mutex| {
        lock_mutex(first);
        lock_mutex(second);
        unlock_mutex(second);
        unlock_mutex(first);
    };
    let one = spawn(|| both(&a, &b));
    let two = spawn(|| if wrong { both(&b, &a) } else { both(&a, &b) });
    join_all([one, two]);
}

fn abba_of_a_mutex_and_a_fast_mutex(wrong: bool) {
    let (mutex, fast) = (Mutex::new(), FastMutex::new());
    let one = spawn(|| {
        lock_mutex(&mutex);
        lock_fast(&fast);
        unlock_fast(&fast);
        unlock_mutex(&mutex);
    });
    let two = spawn(|| {
        if wrong {
            lock_fast(&fast);
            lock_mutex(&mutex);
            unlock_mutex(&mutex);
            unlock_fast(&fast);
        } else {
            lock_fast(&fast);
            unlock_fast(&fast);
            lock_mutex(&mutex);
            unlock_mutex(&mutex);
        }
    });
    join_all([one, two]);
}

fn abba_of_resources(wrong: bool) {
    let (a, b) = (Resource::new(), Resource::new());
    let both = |first: &Resource, second: &Resource| {
        first.exclusive();
        second.shared();
        second.release();
        first.release();
    };
    let one = spawn(|| both(&a, &b));
    let two = spawn(|| if wrong { both(&b, &a) } else { both(&a, &b) });
    join_all([one, two]);
    a.delete();
    b.delete();
}

fn abba_of_a_push_lock_and_a_resource(wrong: bool) {
    let (push, resource) = (Place::<EX_PUSH_LOCK>::zeroed(), Resource::new());
    raw!(ExInitializePushLock(push.ptr()));
    let push_lock = || {
        raw!(KeEnterCriticalRegion());
        raw!(ExAcquirePushLockExclusiveEx(push.ptr(), 0));
    };
    let push_unlock = || {
        raw!(ExReleasePushLockExclusiveEx(push.ptr(), 0));
        raw!(KeLeaveCriticalRegion());
    };
    let one = spawn(|| {
        push_lock();
        resource.exclusive();
        resource.release();
        push_unlock();
    });
    let two = spawn(|| {
        if wrong {
            resource.exclusive();
            push_lock();
            push_unlock();
            resource.release();
        } else {
            push_lock();
            resource.exclusive();
            resource.release();
            push_unlock();
        }
    });
    join_all([one, two]);
    resource.delete();
}

fn abba_of_spin_locks_in_a_dpc(wrong: bool) {
    let (a, b) = (SpinLock::new(), SpinLock::new());
    let both = |first: &SpinLock, second: &SpinLock| {
        let old = first.acquire();
        raw!(KeAcquireSpinLockAtDpcLevel(second.ptr()));
        raw!(KeReleaseSpinLockFromDpcLevel(second.ptr()));
        first.release(old);
    };
    let dpc = Dpc::new(|| if wrong { both(&b, &a) } else { both(&a, &b) });
    dpc.queue();
    both(&a, &b);
    flush_dpcs();
}

fn cycle_of_four(wrong: bool) {
    let forks: Vec<_> = (0..4).map(|_| FastMutex::new()).collect();
    let philosophers: Vec<_> = (0..4)
        .map(|index| {
            let (left, right) = (&forks[index], &forks[(index + 1) % 4]);
            let (first, second) = if !wrong && index == 3 { (right, left) } else { (left, right) };
            spawn(move || {
                lock_fast(first);
                lock_fast(second);
                unlock_fast(second);
                unlock_fast(first);
            })
        })
        .collect();
    join_all(philosophers);
}

fn spin_lock_recursion(wrong: bool) {
    let lock = SpinLock::new();
    let update = |locked: bool| {
        if locked {
            return;
        }
        lock.with(|| ());
    };
    lock.with(|| update(!wrong));
}

fn shared_spin_lock_recursion(wrong: bool) {
    let lock = Place::<EX_SPIN_LOCK>::zeroed();
    let old = raw!(ExAcquireSpinLockShared(lock.ptr()));
    if wrong {
        raw!(ExAcquireSpinLockSharedAtDpcLevel(lock.ptr()));
        raw!(ExReleaseSpinLockSharedFromDpcLevel(lock.ptr()));
    }
    raw!(ExReleaseSpinLockShared(lock.ptr(), old));
}

fn fast_mutex_recursion(wrong: bool) {
    let mutex = FastMutex::new();
    mutex.acquire();
    if wrong {
        mutex.acquire();
    }
    mutex.release();
}

fn push_lock_recursion(wrong: bool) {
    let lock = Place::<EX_PUSH_LOCK>::zeroed();
    raw!(ExInitializePushLock(lock.ptr()));
    raw!(KeEnterCriticalRegion());
    raw!(ExAcquirePushLockExclusiveEx(lock.ptr(), 0));
    if wrong {
        raw!(ExAcquirePushLockSharedEx(lock.ptr(), 0));
    }
    raw!(ExReleasePushLockExclusiveEx(lock.ptr(), 0));
    raw!(KeLeaveCriticalRegion());
}

fn upgrade_of_a_resource(wrong: bool) {
    let resource = Resource::new();
    resource.shared();
    if !wrong {
        resource.release();
    }
    resource.exclusive();
    resource.release();
    if wrong {
        resource.release();
    }
    resource.delete();
}

fn queued_and_ordinary_use(wrong: bool) {
    let memory = allocate(size_of::<KSPIN_LOCK>());
    let lock = memory.cast::<KSPIN_LOCK>();
    raw!(KeInitializeSpinLock(lock));
    let handle = QueueHandle::new();
    raw!(KeAcquireInStackQueuedSpinLock(lock, handle.ptr()));
    handle.release();
    if wrong {
        let old = raw!(KeAcquireSpinLockRaiseToDpc(lock));
        raw!(KeReleaseSpinLock(lock, old));
    }
    free(memory);
}

fn mutex_of_another_thread(wrong: bool) {
    let mutex = Mutex::new();
    lock_mutex(&mutex);
    let helper = spawn(|| {
        if wrong {
            unlock_mutex(&mutex);
        }
    });
    helper.join();
    unlock_mutex(&mutex);
}

fn exit_with_a_mutex(wrong: bool) {
    let mutex = Mutex::new();
    let thread = spawn(|| {
        lock_mutex(&mutex);
        if !wrong {
            unlock_mutex(&mutex);
        }
    });
    thread.join();
}

fn exit_with_a_fast_mutex(wrong: bool) {
    let mutex = FastMutex::new();
    let thread = spawn(|| {
        mutex.acquire();
        if !wrong {
            mutex.release();
        }
    });
    thread.join();
}

fn exit_with_a_push_lock(wrong: bool) {
    let lock = Place::<EX_PUSH_LOCK>::zeroed();
    raw!(ExInitializePushLock(lock.ptr()));
    let thread = spawn(|| {
        raw!(KeEnterCriticalRegion());
        raw!(ExAcquirePushLockExclusiveEx(lock.ptr(), 0));
        if !wrong {
            raw!(ExReleasePushLockExclusiveEx(lock.ptr(), 0));
        }
        raw!(KeLeaveCriticalRegion());
    });
    thread.join();
}

fn exit_with_a_resource(wrong: bool) {
    let resource = Resource::new();
    let thread = spawn(|| {
        resource.exclusive();
        if wrong {
            raw!(KeLeaveCriticalRegion());
        } else {
            resource.release();
        }
    });
    thread.join();
    resource.delete();
}

fn resource_outside_a_region(wrong: bool) {
    let resource = Resource::new();
    // A system thread starts inside a critical region; code that an I/O request calls does not.
    leave_start_region();
    if wrong {
        raw!(ExAcquireResourceExclusiveLite(resource.0.ptr(), TRUE));
        raw!(ExReleaseResourceLite(resource.0.ptr()));
    } else {
        resource.exclusive();
        resource.release();
    }
    enter_start_region();
    resource.delete();
}

fn push_lock_outside_a_region(wrong: bool) {
    let lock = Place::<EX_PUSH_LOCK>::zeroed();
    raw!(ExInitializePushLock(lock.ptr()));
    leave_start_region();
    if !wrong {
        raw!(KeEnterCriticalRegion());
    }
    raw!(ExAcquirePushLockSharedEx(lock.ptr(), 0));
    raw!(ExReleasePushLockSharedEx(lock.ptr(), 0));
    if !wrong {
        raw!(KeLeaveCriticalRegion());
    }
    enter_start_region();
}

fn one_old_level_for_two_locks(wrong: bool) {
    let (a, b) = (SpinLock::new(), SpinLock::new());
    let mut old = a.acquire();
    let inner = b.acquire();
    if wrong {
        old = inner;
    }
    b.release(inner);
    a.release(old);
}

fn level_never_restored(wrong: bool) {
    let lock = SpinLock::new();
    let thread = spawn(|| {
        let old = lock.acquire();
        // A guard that looks at the current level, which is DISPATCH_LEVEL while it holds the lock, takes this way always.
        if wrong {
            raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
        } else {
            lock.release(old);
        }
    });
    thread.join();
}

fn fast_mutexes_released_out_of_order(wrong: bool) {
    let (a, b) = (FastMutex::new(), FastMutex::new());
    a.acquire();
    b.acquire();
    if wrong {
        a.release();
        b.release();
    } else {
        b.release();
        a.release();
    }
}

fn at_dpc_level_in_a_threaded_dpc(wrong: bool) {
    let lock = SpinLock::new();
    let dpc = Dpc::threaded(|| {
        if wrong {
            raw!(KeAcquireSpinLockAtDpcLevel(lock.ptr()));
            raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
        } else {
            let old = raw!(KeAcquireSpinLockForDpc(lock.ptr()));
            raw!(KeReleaseSpinLockForDpc(lock.ptr(), old));
        }
    });
    dpc.queue();
    flush_dpcs();
}

fn resource_never_acquired(wrong: bool) {
    let resource = Resource::new();
    // A shared guard that is made without an acquisition, and whose drop releases.
    if wrong {
        raw!(KeEnterCriticalRegion());
    } else {
        resource.shared();
    }
    resource.release();
    resource.delete();
}

fn push_lock_released_as_shared(wrong: bool) {
    let lock = Place::<EX_PUSH_LOCK>::zeroed();
    raw!(ExInitializePushLock(lock.ptr()));
    raw!(KeEnterCriticalRegion());
    raw!(ExAcquirePushLockExclusiveEx(lock.ptr(), 0));
    if wrong {
        raw!(ExReleasePushLockSharedEx(lock.ptr(), 0));
    } else {
        raw!(ExReleasePushLockExclusiveEx(lock.ptr(), 0));
    }
    raw!(KeLeaveCriticalRegion());
}

fn lock_released_twice(wrong: bool) {
    let lock = SpinLock::new();
    let old = lock.acquire();
    raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
    if wrong {
        // What `drop` does after an explicit unlock.
        raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
    }
    lower(old);
}

fn guard_on_another_thread(wrong: bool) {
    let mutex = FastMutex::new();
    lock_fast(&mutex);
    if wrong {
        let other = spawn(|| unlock_fast(&mutex));
        other.join();
    }
    unlock_fast(&mutex);
}

fn uninitialised_spin_lock(wrong: bool) {
    let memory = allocate(64);
    raw!(memory.cast::<u8>().write_bytes(0xcd, 64));
    if !wrong {
        raw!(KeInitializeSpinLock(memory.cast()));
    }
    let old = raw!(KeAcquireSpinLockRaiseToDpc(memory.cast()));
    raw!(KeReleaseSpinLock(memory.cast(), old));
    free(memory);
}

fn moved_fast_mutex(wrong: bool) {
    let (first, second) = (FastMutex::new(), Place::<FAST_MUTEX>::zeroed());
    if wrong {
        raw!(second.ptr().write(first.read()));
    } else {
        raw!(ExInitializeFastMutex(second.ptr()));
    }
    raw!(ExAcquireFastMutex(second.ptr()));
    raw!(ExReleaseFastMutex(second.ptr()));
}

fn initialised_while_held(wrong: bool) {
    let mutex = Mutex::new();
    lock_mutex(&mutex);
    if wrong {
        raw!(KeInitializeMutex(mutex.ptr(), 0));
    }
    unlock_mutex(&mutex);
}

fn region_never_left(wrong: bool) {
    let thread = spawn(|| {
        raw!(KeEnterCriticalRegion());
        if !wrong {
            raw!(KeLeaveCriticalRegion());
        }
    });
    thread.join();
}

fn region_left_twice(wrong: bool) {
    raw!(KeEnterGuardedRegion());
    raw!(KeLeaveGuardedRegion());
    if wrong {
        raw!(KeLeaveGuardedRegion());
    }
}

fn levels_out_of_order(wrong: bool) {
    let passive = raise(APC_LEVEL);
    let apc = raise(DISPATCH_LEVEL);
    if wrong {
        lower(passive);
    }
    lower(apc);
    lower(passive);
}

fn level_lowered_by_raise(wrong: bool) {
    let old = raise(DISPATCH_LEVEL);
    if wrong {
        raise(PASSIVE_LEVEL);
    }
    lower(old);
}

fn passive_routine_under_a_spin_lock(wrong: bool) {
    let lock = SpinLock::new();
    let create = || spawn(|| ());
    let thread = if wrong { lock.with(create) } else { create() };
    thread.join();
}

fn data_without_its_lock(wrong: bool) {
    let (lock, count) = (FastMutex::new(), std::cell::Cell::new(0));
    let add = || {
        if !wrong {
            lock.acquire();
        }
        let before = count.get();
        // Anything that another thread can see may let it run here.
        raw!(KeQueryInterruptTime());
        count.set(before + 1);
        if !wrong {
            lock.release();
        }
    };
    join_all([spawn(add), spawn(add)]);
    assert_eq!(count.get(), 2);
}

fn shared_behind_an_exclusive_owner(wrong: bool) {
    let (mutex, resource) = (Mutex::new(), Place::<ERESOURCE>::zeroed());
    raw!(ExInitializeResourceLite(resource.ptr()));
    let with = |acquire: unsafe extern "system-unwind" fn(*mut ERESOURCE, BOOLEAN) -> BOOLEAN, within: &dyn Fn()| {
        raw!(KeEnterCriticalRegion());
        raw!(acquire(resource.ptr(), TRUE));
        within();
        raw!(ExReleaseResourceLite(resource.ptr()));
        raw!(KeLeaveCriticalRegion());
    };
    let take_mutex = || {
        wait(mutex.object());
        mutex.release();
    };
    let one = spawn(|| {
        wait(mutex.object());
        with(ExAcquireResourceSharedLite, &|| ());
        mutex.release();
    });
    let two = spawn(|| if wrong { with(ExAcquireResourceSharedLite, &take_mutex) } else { take_mutex() });
    let three = spawn(|| {
        sleep(MS);
        with(ExAcquireResourceExclusiveLite, &|| ());
    });
    join_all([one, two, three]);
    raw!(ExDeleteResourceLite(resource.ptr()));
}

fn rundown_under_a_lock_of_its_users(wrong: bool) {
    let (mutex, rundown) = (Mutex::new(), Place::<EX_RUNDOWN_REF>::zeroed());
    raw!(ExInitializeRundownProtection(rundown.ptr()));
    let user = spawn(|| {
        if raw!(ExAcquireRundownProtection(rundown.ptr())) != 0 {
            wait(mutex.object());
            mutex.release();
            raw!(ExReleaseRundownProtection(rundown.ptr()));
        }
    });
    sleep(MS);
    wait(mutex.object());
    if !wrong {
        mutex.release();
    }
    raw!(ExWaitForRundownProtectionRelease(rundown.ptr()));
    if wrong {
        mutex.release();
    }
    user.join();
}

pub(crate) const CASES: &[Case] = &[
    sometimes(
        "shared_behind_an_exclusive_owner",
        "Two threads take a mutex and share a resource in opposite orders, and a third wants the resource exclusively, behind whom they would wait.",
        Caught::By("LockOrder"),
        3,
        shared_behind_an_exclusive_owner,
    ),
    sometimes(
        "rundown_under_a_lock_of_its_users",
        "A thread waits for a rundown under a mutex that those take who are protected.",
        Caught::By("LockOrder"),
        3,
        rundown_under_a_lock_of_its_users,
    ),
    sometimes("abba_of_mutexes", "Two threads take two mutexes in opposite orders.", Caught::By("LockOrder"), 3, abba_of_mutexes),
    sometimes(
        "abba_of_a_mutex_and_a_fast_mutex",
        "Two threads take a mutex and a fast mutex in opposite orders.",
        Caught::By("LockOrder"),
        3,
        abba_of_a_mutex_and_a_fast_mutex,
    ),
    sometimes(
        "abba_of_resources",
        "Two threads take two resources in opposite orders, one of each pair shared.",
        Caught::By("LockOrder"),
        3,
        abba_of_resources,
    ),
    sometimes(
        "abba_of_a_push_lock_and_a_resource",
        "Two threads take a push lock and a resource in opposite orders.",
        Caught::By("LockOrder"),
        3,
        abba_of_a_push_lock_and_a_resource,
    ),
    sometimes(
        "abba_of_spin_locks_in_a_dpc",
        "A DPC takes two spin locks in the opposite order of a thread.",
        Caught::By("LockOrder"),
        3,
        abba_of_spin_locks_in_a_dpc,
    ),
    sometimes(
        "cycle_of_four",
        "Four threads take their left lock and then their right one.",
        Caught::By("LockOrder"),
        3,
        cycle_of_four,
    ),
    sometimes(
        "data_without_its_lock",
        "A count is read, changed and written without its lock.",
        Caught::Panic,
        100,
        data_without_its_lock,
    ),
    always(
        "spin_lock_recursion",
        "A function takes the spin lock that its caller holds.",
        Caught::By("SpinLock"),
        spin_lock_recursion,
    ),
    always(
        "shared_spin_lock_recursion",
        "A reader-writer spin lock is taken shared by a processor that shares it.",
        Caught::By("SpinLock"),
        shared_spin_lock_recursion,
    ),
    always("fast_mutex_recursion", "A fast mutex is taken by its owner.", Caught::By("SelfDeadlock"), fast_mutex_recursion),
    always("push_lock_recursion", "A push lock is taken by its owner.", Caught::By("SelfDeadlock"), push_lock_recursion),
    always(
        "upgrade_of_a_resource",
        "A shared owner of a resource asks to own it exclusively.",
        Caught::By("SelfDeadlock"),
        upgrade_of_a_resource,
    ),
    always(
        "queued_and_ordinary_use",
        "A spin lock is used as a queued and as an ordinary one.",
        Caught::By("OneKindOfSpinLock"),
        queued_and_ordinary_use,
    ),
    always("mutex_of_another_thread", "A mutex is released by another thread.", Caught::By("Exception"), mutex_of_another_thread),
    always(
        "guard_on_another_thread",
        "A fast mutex is released by another thread.",
        Caught::By("WrongThread"),
        guard_on_another_thread,
    ),
    always("exit_with_a_mutex", "A thread ends while it owns a mutex.", Caught::By("MutexHeldAtExit"), exit_with_a_mutex),
    always(
        "exit_with_a_fast_mutex",
        "A thread ends while it owns a fast mutex.",
        Caught::By("ThreadEndedOwning"),
        exit_with_a_fast_mutex,
    ),
    always(
        "exit_with_a_push_lock",
        "A thread ends while it holds a push lock.",
        Caught::By("PushLockHeldAtExit"),
        exit_with_a_push_lock,
    ),
    always(
        "exit_with_a_resource",
        "A thread ends while it owns a resource.",
        Caught::By("ExclusiveResourceAccess"),
        exit_with_a_resource,
    ),
    always(
        "resource_outside_a_region",
        "A resource is taken with normal kernel APCs enabled.",
        Caught::By("WithinCriticalRegion"),
        resource_outside_a_region,
    ),
    always(
        "push_lock_outside_a_region",
        "A push lock is taken with normal kernel APCs enabled.",
        Caught::By("PushLockWithinRegion"),
        push_lock_outside_a_region,
    ),
    always(
        "one_old_level_for_two_locks",
        "One variable keeps the old level of two spin locks.",
        Caught::By("IrqlKeReleaseSpinLock"),
        one_old_level_for_two_locks,
    ),
    always(
        "level_never_restored",
        "A spin lock is released without restoring the level.",
        Caught::By("RegionsAtExit"),
        level_never_restored,
    ),
    always(
        "fast_mutexes_released_out_of_order",
        "Two fast mutexes, each with the old level inside, are released in the order of their acquisition.",
        Caught::By("FastMutexReleaseIrql"),
        fast_mutexes_released_out_of_order,
    ),
    always(
        "at_dpc_level_in_a_threaded_dpc",
        "A threaded DPC takes a spin lock by the routine for DISPATCH_LEVEL.",
        Caught::By("SpinLockDpc"),
        at_dpc_level_in_a_threaded_dpc,
    ),
    always(
        "resource_never_acquired",
        "A resource is released that was not acquired.",
        Caught::By("ResourceNotOwned"),
        resource_never_acquired,
    ),
    always(
        "push_lock_released_as_shared",
        "A push lock is acquired exclusively and released as shared.",
        Caught::By("PushLockRelease"),
        push_lock_released_as_shared,
    ),
    always("lock_released_twice", "A spin lock is released twice.", Caught::By("SpinLockNotOwned"), lock_released_twice),
    always(
        "uninitialised_spin_lock",
        "A spin lock is used without its initialisation.",
        Caught::By("Uninitialized"),
        uninitialised_spin_lock,
    ),
    always("moved_fast_mutex", "A fast mutex is moved after its initialisation.", Caught::By("Uninitialized"), moved_fast_mutex),
    always(
        "initialised_while_held",
        "A mutex is initialised again while it is owned.",
        Caught::By("Reinitialized"),
        initialised_while_held,
    ),
    always("region_never_left", "A thread ends inside a critical region.", Caught::By("RegionsAtExit"), region_never_left),
    always("region_left_twice", "A guarded region is left twice.", Caught::By("RegionLeft"), region_left_twice),
    always(
        "levels_out_of_order",
        "Two raised levels are lowered in the wrong order.",
        Caught::By("IrqlKeRaiseLower2"),
        levels_out_of_order,
    ),
    always(
        "level_lowered_by_raise",
        "KeRaiseIrql is called to lower the level.",
        Caught::By("IrqlKeRaiseLower"),
        level_lowered_by_raise,
    ),
    always(
        "passive_routine_under_a_spin_lock",
        "A thread is created under a spin lock.",
        Caught::By("IrqlPsPassive"),
        passive_routine_under_a_spin_lock,
    ),
];
