//! Routines for waiting and locking that only images have.

use super::run;
use super::script::Arg::{At, Compare, In, N};
use super::script::{Data, Script};
use ksim::{Machine, bug_check};

const TIMEOUT: u64 = 0x102;
const NEVER: u64 = 0;

/// A script with a queue, and so many entries in it.
fn queue(entries: usize) -> (Script, Data, Vec<Data>) {
    let mut script = Script::new();
    let queue = script.zeros(64);
    script.call("KeInitializeQueue", &[At(queue), N(0)]);
    let entries: Vec<Data> = (0..entries).map(|_| script.zeros(16)).collect();
    for (index, &entry) in entries.iter().enumerate() {
        script.check("KeInsertQueue", &[At(queue), At(entry)], index as u64);
    }
    (script, queue, entries)
}

/// The word at `place` is to be the address of `entry`.
fn expect_entry(script: &mut Script, place: Data, entry: Data) {
    // `memcpy` of nothing returns the address that it is passed.
    let address = script.call("memcpy", &[At(entry), At(entry), N(0)]);
    script.check("memcmp", &[At(place), At(address), N(8)], 0);
}

#[test]
fn several_entries_are_removed_at_once() {
    let (mut script, queue, entries) = queue(4);
    let (array, now) = (script.zeros(40), script.zeros(8));
    script.check("KeRemoveQueueEx", &[At(queue), N(0), N(0), N(NEVER), At(array), N(3)], 3);
    for (index, &entry) in entries[..3].iter().enumerate() {
        expect_entry(&mut script, array.offset(index * 8), entry);
        script.expect("the entry's link", entry, 0);
    }
    script.expect("the place behind", array.offset(24), 0);
    script.check("KeReadStateQueue", &[At(queue)], 1);
    // Fewer than there is room for.
    script.check("KeRemoveQueueEx", &[At(queue), N(0), N(0), N(NEVER), At(array), N(5)], 1);
    expect_entry(&mut script, array, entries[3]);
    script.check("KeReadStateQueue", &[At(queue)], 0);
    script.check("KeRemoveQueueEx", &[At(queue), N(0), N(0), At(now), At(array), N(5)], 1);
    script.expect("the status", array, TIMEOUT);
    // What was removed may be inserted again.
    script.check("KeInsertQueue", &[At(queue), At(entries[1])], 0);
    script.check("KeRemoveQueueEx", &[At(queue), N(0), N(0), N(NEVER), At(array), N(1)], 1);
    expect_entry(&mut script, array, entries[1]);
    script.check("KeRundownQueue", &[At(queue)], 0);
    script.run();
}

#[test]
fn a_removal_that_is_alertable_is_alerted() {
    let (mut script, queue, _) = queue(0);
    let array = script.zeros(16);
    let thread = script.call("KeGetCurrentThread", &[]);
    script.call("KeAlertThread", &[In(thread), N(0)]);
    script.check("KeRemoveQueueEx", &[At(queue), N(0), N(1), N(NEVER), At(array), N(2)], 1);
    script.expect("STATUS_ALERTED", array, 0x101);
    script.run();
}

#[test]
fn a_removal_of_nothing_is_a_mistake() {
    let (mut script, queue, _) = queue(1);
    let array = script.zeros(16);
    script.call("KeRemoveQueueEx", &[At(queue), N(0), N(0), N(NEVER), At(array), N(0)]);
    let outcome = run(&Machine::new(), &script.image());
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[0]), (bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION, 0x6b73_0005));
}

#[test]
fn cache_aware_push_locks() {
    let mut script = Script::new();
    let lock = script.call("ExAllocateCacheAwarePushLock", &[]);
    script.call("KeEnterCriticalRegion", &[]);
    let first = script.call("ExAcquireCacheAwarePushLockSharedEx", &[In(lock), N(0)]);
    let second = script.call("ExAcquireCacheAwarePushLockSharedEx", &[In(lock), N(0)]);
    script.call("ExReleaseCacheAwarePushLockSharedEx", &[In(second), N(0)]);
    script.call("ExReleaseCacheAwarePushLockSharedEx", &[In(first), N(0)]);
    script.call("ExAcquireCacheAwarePushLockExclusiveEx", &[In(lock), N(0)]);
    script.check("ExfTryAcquirePushLockShared", &[In(lock)], 0);
    script.call("ExReleaseCacheAwarePushLockExclusiveEx", &[In(lock), N(0)]);
    script.call("ExAcquireCacheAwarePushLockExclusive", &[In(lock)]);
    script.check("ExfTryAcquirePushLockShared", &[In(lock)], 0);
    script.call("ExReleaseCacheAwarePushLockExclusive", &[In(lock)]);
    script.call("KeLeaveCriticalRegion", &[]);
    script.call("ExFreeCacheAwarePushLock", &[In(lock)]);
    script.run();
}

#[test]
fn a_cache_aware_push_lock_is_not_freed_while_it_is_held() {
    let mut script = Script::new();
    let lock = script.call("ExAllocateCacheAwarePushLock", &[]);
    script.call("KeEnterCriticalRegion", &[]);
    script.call("ExAcquireCacheAwarePushLockSharedEx", &[In(lock), N(0)]);
    script.call("ExFreeCacheAwarePushLock", &[In(lock)]);
    let outcome = run(&Machine::new(), &script.image());
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[0]), (bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION, 0x100b), "{check}");
}

#[test]
fn a_cache_aware_push_lock_that_is_not_freed_is_left() {
    let mut script = Script::new();
    script.call("ExAllocateCacheAwarePushLock", &[]);
    let outcome = run(&Machine::new(), &script.image());
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[0]), (bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION, 0x62), "{check}");
}

#[test]
fn a_cache_aware_push_lock_is_released_by_who_holds_it() {
    let mut script = Script::new();
    let lock = script.call("ExAllocateCacheAwarePushLock", &[]);
    script.call("KeEnterCriticalRegion", &[]);
    script.call("ExReleaseCacheAwarePushLockExclusiveEx", &[In(lock), N(0)]);
    let outcome = run(&Machine::new(), &script.image());
    assert_eq!(outcome.bug_check().expect("a bug check").code, bug_check::KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE);
}

#[test]
fn an_interrupt_is_connected_and_kept_out() {
    let mut script = Script::new();
    let interrupt = script.zeros(8);
    // The service routine is never called: only the level and the lock are looked at.
    let connect = [At(interrupt), Compare, N(0), N(0), N(0x51), N(6), N(7), N(1), N(0), N(1), N(0)];
    script.check("IoConnectInterrupt", &connect, 0);
    script.check("IoConnectInterrupt", &connect, 0xc000_000d);
    script.check("KeAcquireInterruptSpinLock", &[In(interrupt)], 0);
    script.check("KeGetCurrentIrql", &[], 7);
    script.call("KeReleaseInterruptSpinLock", &[In(interrupt), N(0)]);
    script.check("KeGetCurrentIrql", &[], 0);
    script.call("IoDisconnectInterrupt", &[In(interrupt)]);
    script.check("IoConnectInterrupt", &connect, 0);
    script.call("IoDisconnectInterrupt", &[In(interrupt)]);
    script.run();
}

#[test]
fn a_routine_of_an_image_on_all_processors() {
    for (routine, result) in [("KeGetCurrentIrql", "e"), ("KeGetCurrentProcessorNumberEx", "1")] {
        let mut script = Script::new();
        let text = script.wide(routine);
        let string = script.zeros(16);
        script.call("RtlInitUnicodeString", &[At(string), At(text)]);
        script.call("KeSetSystemAffinityThread", &[N(2)]);
        let address = script.call("MmGetSystemRoutineAddress", &[At(string)]);
        // What the processor of the caller returns: the thread is on that again.
        let returned = script.call("KeIpiGenericCall", &[In(address), N(0)]);
        let level = script.call("KeGetCurrentIrql", &[]);
        let on = script.call("KeGetCurrentProcessorNumberEx", &[N(0)]);
        script.call("KeRevertToUserAffinityThread", &[]);
        [returned, level, on].into_iter().for_each(|word| script.show(word));
        let outcome = run(&Machine::new().processors(3), &script.image()).expect_clean();
        assert_eq!(outcome.debug_output(), [result, "0", "1"]);
    }
}

#[test]
fn an_ideal_processor_by_group_and_number() {
    let mut script = Script::new();
    let (wanted, missing) = (script.bytes(&[1, 0, 1, 0]), script.bytes(&[2, 0, 0, 0]));
    let before = script.bytes(&[0xff; 4]);
    let a_while = script.bytes(&(-10_000_i64).to_le_bytes());
    let thread = script.call("KeGetCurrentThread", &[]);
    script.check("KeSetIdealProcessorEx", &[In(thread), At(wanted), N(0)], 0);
    script.check("KeSetIdealProcessorEx", &[In(thread), At(missing), At(before)], 0xc000_000d);
    script.check("KeSetIdealProcessorEx", &[In(thread), At(wanted), At(before)], 0);
    script.call("KeDelayExecutionThread", &[N(0), N(0), At(a_while)]);
    let on = script.call("KeGetCurrentProcessorNumberEx", &[N(0)]);
    script.show(on);
    // The group and number before: those that were set first.
    let same = script.call("RtlCompareMemory", &[At(before), At(wanted), N(4)]);
    script.show(same);
    let outcome = run(&Machine::new().groups(&[2, 2]), &script.image()).expect_clean();
    assert_eq!(outcome.debug_output(), ["0", "c000000d", "0", "3", "4"]);
}

#[test]
fn a_thread_runs_on_its_ideal_processor_where_that_is_idle() {
    for ideal in [1, 2] {
        let mut script = Script::new();
        let a_while = script.bytes(&(-10_000_i64).to_le_bytes());
        let thread = script.call("KeGetCurrentThread", &[]);
        let before = script.call("KeSetIdealProcessorThread", &[In(thread), N(ideal)]);
        // MAXIMUM_PROCESSORS changes nothing.
        let now = script.call("KeSetIdealProcessorThread", &[In(thread), N(64)]);
        script.call("KeDelayExecutionThread", &[N(0), N(0), At(a_while)]);
        let on = script.call("KeGetCurrentProcessorNumberEx", &[N(0)]);
        [before, now, on].into_iter().for_each(|word| script.show(word));
        let outcome = run(&Machine::new().processors(3), &script.image()).expect_clean();
        assert_eq!(outcome.debug_output(), ["0".to_owned(), ideal.to_string(), ideal.to_string()]);
    }
}
