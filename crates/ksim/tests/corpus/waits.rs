//! Mistakes with waits, events, semaphores.

use crate::{Case, Caught, always, sometimes, under, with};
use ksim::{FaultKind, RuleId};
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::{null, null_mut};
use test_support::*;

fn lost_wake_up(wrong: bool) {
    let (event, ready) = (Event::notification(), Cell::new(false));
    let producer = spawn(|| {
        ready.set(true);
        event.set();
    });
    if wrong {
        let seen = ready.get();
        // Another thread can set the event here.
        event.reset();
        if !seen {
            wait(event.object());
        }
    } else {
        while !ready.get() {
            wait(event.object());
        }
    }
    producer.join();
}

fn pulse_that_nobody_waits_for(wrong: bool) {
    let event = Event::notification();
    let waiter = spawn(|| {
        wait(event.object());
    });
    if wrong {
        event.pulse();
    } else {
        event.set();
    }
    waiter.join();
}

fn synchronization_event_for_two(wrong: bool) {
    let event = if wrong { Event::synchronization() } else { Event::notification() };
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            spawn(|| {
                wait(event.object());
            })
        })
        .collect();
    event.set();
    join_all(waiters);
}

fn one_release_for_two_waiters(wrong: bool) {
    let semaphore = Semaphore::new(0, 2);
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            spawn(|| {
                wait(semaphore.object());
            })
        })
        .collect();
    semaphore.release(if wrong { 1 } else { 2 });
    join_all(waiters);
}

fn sleep_in_a_dpc(wrong: bool) {
    let event = Event::notification();
    let dpc = Dpc::new(|| {
        if wrong {
            wait_until(event.object(), -MS);
        } else {
            poll(event.object());
        }
    });
    dpc.queue();
    flush_dpcs();
}

fn wait_under_a_spin_lock(wrong: bool) {
    let (lock, event) = (SpinLock::new(), Event::notification());
    event.set();
    let old = lock.acquire();
    if wrong {
        wait(event.object());
    }
    lock.release(old);
    if !wrong {
        wait(event.object());
    }
}

fn sleep_under_a_spin_lock(wrong: bool) {
    let lock = SpinLock::new();
    if wrong {
        lock.with(|| sleep(MS));
    } else {
        sleep(MS);
    }
}

fn wait_with_a_spin_lock_at_a_lowered_level(wrong: bool) {
    let lock = SpinLock::new();
    let old = lock.acquire();
    if wrong {
        // "The wait needs a lower level", so it is lowered, under the lock.
        lower(old);
        sleep(MS);
        raise(DISPATCH_LEVEL);
    }
    raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
    lower(old);
}

fn timeout_taken_for_success(wrong: bool) {
    let mutex = Mutex::new();
    let holder = spawn(|| {
        wait(mutex.object());
        sleep(SECOND);
        raw!(KeReleaseMutex(mutex.ptr(), FALSE));
    });
    settle();
    let status = wait_until(mutex.object(), -MS);
    // NT_SUCCESS(STATUS_TIMEOUT) holds.
    let granted = if wrong { status >= 0 } else { status == STATUS_SUCCESS };
    if granted {
        raw!(KeReleaseMutex(mutex.ptr(), FALSE));
    }
    holder.join();
}

fn timeout_that_never_happens(wrong: bool) {
    let mutex = Mutex::new();
    let status = wait_until(mutex.object(), -SECOND);
    assert_eq!(status, STATUS_SUCCESS);
    let other = spawn(|| {
        // A second is enough for everything, surely.
        let status = wait_until(mutex.object(), -SECOND);
        if wrong || status == STATUS_SUCCESS {
            raw!(KeReleaseMutex(mutex.ptr(), FALSE));
        }
    });
    sleep(MS);
    raw!(KeReleaseMutex(mutex.ptr(), FALSE));
    other.join();
}

fn alert_taken_for_success(wrong: bool) {
    let semaphore = Semaphore::new(1, 1);
    wait(semaphore.object());
    let worker = spawn(|| {
        let status = wait_mode(semaphore.object(), KernelMode, true, None);
        let granted = if wrong { status >= 0 } else { status == STATUS_SUCCESS };
        if granted {
            semaphore.release(1);
        }
    });
    settle();
    worker.alert(KernelMode);
    worker.join();
    semaphore.release(1);
}

fn timeout_of_several_taken_for_success(wrong: bool) {
    let (semaphore, event) = (Semaphore::new(1, 1), Event::notification());
    wait(semaphore.object());
    let worker = spawn(|| {
        let status = wait_many(&[event.object(), semaphore.object()], WaitAny, Some(-MS));
        let granted = if wrong { status >= 0 } else { status == STATUS_WAIT_1 };
        if granted {
            semaphore.release(1);
        }
    });
    worker.join();
    semaphore.release(1);
}

fn over_release_of_a_semaphore(wrong: bool) {
    let semaphore = Semaphore::new(1, 1);
    wait(semaphore.object());
    semaphore.release(1);
    if wrong {
        semaphore.release(1);
    }
}

fn event_set_after_its_memory_was_freed(wrong: bool) {
    let memory = allocate(size_of::<KEVENT>() + 8);
    let event = memory.cast::<KEVENT>();
    raw!(KeInitializeEvent(event, NotificationEvent, FALSE));
    let done = Cell::new(false);
    let worker = spawn(|| {
        done.set(true);
        raw!(KeSetEvent(event, 0, FALSE));
    });
    if wrong {
        // Sees that the work is done, and does not wait for who is about to say so.
        while !done.get() {
            sleep(1);
        }
        free(memory);
        worker.join();
    } else {
        worker.join();
        free(memory);
    }
}

fn event_freed_under_a_waiter(wrong: bool) {
    let memory = allocate(size_of::<KEVENT>());
    raw!(KeInitializeEvent(memory.cast(), NotificationEvent, FALSE));
    let waiter = spawn(|| {
        wait(memory);
    });
    settle();
    if !wrong {
        raw!(KeSetEvent(memory.cast(), 0, FALSE));
        waiter.join();
        free(memory);
    } else {
        free(memory);
        waiter.join();
    }
}

fn wait_for_an_apc_that_is_held_back(wrong: bool) {
    let event = Event::notification();
    let apc = Apc::normal(current_thread(), || _ = event.set());
    if !wrong {
        leave_start_region();
    }
    apc.insert();
    // The thread is inside a critical region from its start, and the APC that would set the event is held back.
    wait(event.object());
    if !wrong {
        enter_start_region();
    }
}

fn thread_that_waits_for_itself(wrong: bool) {
    let thread = spawn(|| {
        if wrong {
            wait(current_thread());
        }
    });
    thread.join();
}

fn too_many_objects_for_one_wait(wrong: bool) {
    let events: Vec<_> = (0..4).map(|_| Event::notification()).collect();
    events[2].set();
    let objects: Vec<_> = events.iter().map(|event| event.object()).collect();
    let blocks = Place::<[KWAIT_BLOCK; 4]>::zeroed();
    let blocks = if wrong { null_mut() } else { blocks.ptr().cast() };
    raw!(KeWaitForMultipleObjects(4, objects.as_ptr(), WaitAny, Executive, KernelMode, FALSE, null(), blocks));
}

fn set_with_wait_at_dispatch_level(wrong: bool) {
    let event = Event::notification();
    if wrong {
        at(DISPATCH_LEVEL, || raw!(KeSetEvent(event.ptr(), 0, TRUE)));
    } else {
        event.set();
        wait(event.object());
    }
}

fn user_wait_for_an_event_on_the_stack(wrong: bool) {
    let mut on_the_stack = std::mem::MaybeUninit::<KEVENT>::uninit();
    let elsewhere = Event::notification();
    let event = if wrong { on_the_stack.as_mut_ptr() } else { elsewhere.ptr() };
    raw!(KeInitializeEvent(event, NotificationEvent, TRUE));
    raw!(KeWaitForSingleObject(event.cast(), UserRequest, UserMode, FALSE, null()));
}

fn event_on_the_stack_of_a_thread_that_ended(wrong: bool) {
    let (shared, started) = (Cell::new(null_mut::<KEVENT>()), Event::notification());
    let owner = spawn(|| {
        let mut on_the_stack = std::mem::MaybeUninit::<KEVENT>::uninit();
        raw!(KeInitializeEvent(on_the_stack.as_mut_ptr(), NotificationEvent, FALSE));
        shared.set(on_the_stack.as_mut_ptr());
        started.set();
        sleep(MS);
        if !wrong {
            raw!(KeSetEvent(on_the_stack.as_mut_ptr(), 0, FALSE));
            sleep(MS);
        }
    });
    let waiter = spawn(|| {
        wait(started.object());
        wait(shared.get().cast());
    });
    join_all([owner, waiter]);
}

pub(crate) const CASES: &[Case] = &[
    sometimes(
        "lost_wake_up",
        "An event is reset between the test of the flag and the wait.",
        Caught::Deadlock,
        200,
        lost_wake_up,
    ),
    sometimes(
        "pulse_that_nobody_waits_for",
        "An event is pulsed before the other thread waits.",
        Caught::Deadlock,
        100,
        pulse_that_nobody_waits_for,
    ),
    always(
        "synchronization_event_for_two",
        "A synchronization event is set once for two waiters.",
        Caught::Deadlock,
        synchronization_event_for_two,
    ),
    always(
        "one_release_for_two_waiters",
        "A semaphore is released by 1 for two waiters.",
        Caught::Deadlock,
        one_release_for_two_waiters,
    ),
    always("sleep_in_a_dpc", "A DPC routine waits.", Caught::By("WaitInDpc"), sleep_in_a_dpc),
    always(
        "wait_under_a_spin_lock",
        "A thread waits under a spin lock.",
        Caught::By("IrqlKeWaitForever"),
        wait_under_a_spin_lock,
    ),
    always("sleep_under_a_spin_lock", "A thread sleeps under a spin lock.", Caught::By("IrqlKeApcLte1"), sleep_under_a_spin_lock),
    always(
        "wait_with_a_spin_lock_at_a_lowered_level",
        "The level is lowered under a spin lock, for a wait.",
        Caught::By("SpinLockHeldInWait"),
        wait_with_a_spin_lock_at_a_lowered_level,
    ),
    always(
        "timeout_taken_for_success",
        "NT_SUCCESS is asked of a wait for a mutex that timed out.",
        Caught::By("Exception"),
        timeout_taken_for_success,
    ),
    under(
        &[FaultKind::Timeout],
        always(
            "timeout_that_never_happens",
            "The status of a wait with a generous timeout is not looked at.",
            Caught::By("Exception"),
            timeout_that_never_happens,
        ),
    ),
    with(
        |machine| machine.check_rule(RuleId::WaitStatus, true),
        always(
            "alert_taken_for_success",
            "NT_SUCCESS is asked of a wait for a semaphore that an alert ended (a rule that is off by default).",
            Caught::By("WaitStatus"),
            alert_taken_for_success,
        ),
    ),
    with(
        |machine| machine.check_rule(RuleId::WaitStatus, true),
        always(
            "timeout_of_several_taken_for_success",
            "NT_SUCCESS is asked of a wait for an event or a semaphore that timed out (a rule that is off by default).",
            Caught::By("WaitStatus"),
            timeout_of_several_taken_for_success,
        ),
    ),
    always(
        "over_release_of_a_semaphore",
        "A semaphore is released past its limit.",
        Caught::By("Exception"),
        over_release_of_a_semaphore,
    ),
    sometimes(
        "event_set_after_its_memory_was_freed",
        "An event's owner sees a flag and frees it before the other thread sets it.",
        Caught::By("Uninitialized"),
        200,
        event_set_after_its_memory_was_freed,
    ),
    always(
        "event_freed_under_a_waiter",
        "An event is freed while a thread waits for it.",
        Caught::By("DeletedWhileOwned"),
        event_freed_under_a_waiter,
    ),
    always(
        "wait_for_an_apc_that_is_held_back",
        "A thread in a critical region waits for what only its own normal APC does.",
        Caught::Deadlock,
        wait_for_an_apc_that_is_held_back,
    ),
    always("thread_that_waits_for_itself", "A thread waits for its own end.", Caught::Deadlock, thread_that_waits_for_itself),
    always(
        "too_many_objects_for_one_wait",
        "A wait names four objects without wait blocks of its own.",
        Caught::By("WaitObjects"),
        too_many_objects_for_one_wait,
    ),
    always(
        "set_with_wait_at_dispatch_level",
        "KeSetEvent is called with Wait = TRUE at DISPATCH_LEVEL.",
        Caught::By("IrqlKeSetEvent"),
        set_with_wait_at_dispatch_level,
    ),
    always(
        "user_wait_for_an_event_on_the_stack",
        "A user-mode wait names an event on the stack.",
        Caught::By("UserWaitOnStack"),
        user_wait_for_an_event_on_the_stack,
    ),
    always(
        "event_on_the_stack_of_a_thread_that_ended",
        "A thread ends while another waits for an event on its stack.",
        Caught::By("StackObjectInUse"),
        event_on_the_stack_of_a_thread_that_ended,
    ),
];
