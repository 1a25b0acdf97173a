//! Routines that only images have: older names, the C runtime, services without a hosted form.

use super::script::Arg::{At, Compare, In, N};
use super::script::Script;
use super::{run, run_image};
use ksim::image::Image;
use ksim::{Machine, bug_check};

#[test]
fn queued_spin_locks_have_numbers() {
    let mut script = Script::new();
    let old = script.zeros(8);
    for number in [9, 7] {
        script.check("KeAcquireQueuedSpinLock", &[N(number)], 0);
        script.check("KeGetCurrentIrql", &[], 2);
        script.call("KeReleaseQueuedSpinLock", &[N(number), N(0)]);
        script.check("KeTryToAcquireQueuedSpinLockRaiseToSynch", &[N(number), At(old)], 1);
        script.check("KeGetCurrentIrql", &[], 12);
        script.call("KeReleaseQueuedSpinLock", &[N(number), In(old)]);
        script.check("KeGetCurrentIrql", &[], 0);
    }
    // One that is held, by this processor: the try fails, and the level is as before.
    script.check("KeAcquireQueuedSpinLockRaiseToSynch", &[N(4)], 0);
    script.check("KeTryToAcquireQueuedSpinLockRaiseToSynch", &[N(4), At(old)], 0);
    script.check("KeGetCurrentIrql", &[], 12);
    script.call("KeReleaseQueuedSpinLock", &[N(4), N(0)]);
    script.run();
}

#[test]
fn objects_that_were_made_to_stay_can_be_let_go() {
    const PERMANENT: u32 = 0x10;
    const KERNEL_HANDLE: u32 = 0x200;
    let mut script = Script::new();
    let (handle, string, name) = (script.zeros(8), script.zeros(16), script.wide("\\BaseNamedObjects\\stays"));
    script.call("RtlInitUnicodeString", &[At(string), At(name)]);
    // OBJECT_ATTRIBUTES, with the address that `memcpy` returns.
    let mut attributes = [0; 48];
    attributes[0] = 48;
    attributes[24..28].copy_from_slice(&(PERMANENT | KERNEL_HANDLE).to_le_bytes());
    let attributes = script.bytes(&attributes);
    let address = script.call("memcpy", &[At(string), At(string), N(0)]);
    script.call("memcpy", &[At(attributes.offset(16)), At(address), N(8)]);
    script.check("ZwCreateMutant", &[At(handle), N(0x1f_0001), At(attributes), N(0)], 0);
    script.check("ZwClose", &[In(handle)], 0);
    script.check("ZwOpenMutant", &[At(handle), N(0x1f_0001), At(attributes)], 0);
    script.check("ZwMakeTemporaryObject", &[In(handle)], 0);
    script.check("ZwMakeTemporaryObject", &[In(handle)], 0);
    script.check("ZwClose", &[In(handle)], 0);
    script.check("ZwOpenMutant", &[At(handle), N(0x1f_0001), At(attributes)], 0xc000_0034);
    script.run();
}

#[test]
fn variables_are_found_by_name_as_routines_are() {
    let mut script = Script::new();
    let string = script.zeros(16);
    for name in ["NtBuildNumber", "PsThreadType", "IoCallDriver"] {
        let text = script.wide(name);
        script.call("RtlInitUnicodeString", &[At(string), At(text)]);
        let found = script.call("MmGetSystemRoutineAddress", &[At(string)]);
        script.check("MmIsAddressValid", &[In(found)], 1);
    }
    let text = script.wide("KeNoSuchVariable");
    script.call("RtlInitUnicodeString", &[At(string), At(text)]);
    script.check("MmGetSystemRoutineAddress", &[At(string)], 0);
    script.run();
}

#[test]
fn stacks_have_limits() {
    let mut script = Script::new();
    let (low, high) = (script.zeros(8), script.zeros(8));
    script.call("IoGetStackLimits", &[At(low), At(high)]);
    let left = script.call("IoGetRemainingStackSize", &[]);
    [low, high, left].into_iter().for_each(|word| script.show(word));
    let [low, high, left] = script.shown()[..] else { panic!("three words") };
    assert!(low < high && left < high - low, "{low:#x} {high:#x} {left:#x}");
}

#[test]
fn the_cancel_lock_is_the_one_with_its_number() {
    let mut script = Script::new();
    let old = script.zeros(8);
    script.call("KeAcquireQueuedSpinLock", &[N(7)]);
    script.call("IoAcquireCancelSpinLock", &[At(old)]);
    let outcome = run(&Machine::new(), &script.image());
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[0]), (bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION, 0x6b73_0007));
    // Where the rule is off, it is a spin lock as others are.
    let machine = Machine::new().check_rule(ksim::RuleId::CancelSpinLock, false);
    let outcome = run(&machine, &script.image());
    assert_eq!(outcome.bug_check().expect("a bug check").code, bug_check::SPIN_LOCK_ALREADY_OWNED);
    let mut script = Script::new();
    script.call("KeAcquireQueuedSpinLock", &[N(99)]);
    let outcome = run(&Machine::new(), &script.image());
    assert!(outcome.bug_check().expect("a bug check").meaning.contains("number 99"));
}

#[test]
fn acquisitions_raise_to_synch_level() {
    let mut script = Script::new();
    let (lock, handle) = (script.zeros(8), script.zeros(24));
    script.call("KeInitializeSpinLock", &[At(lock)]);
    script.check("KeAcquireSpinLockRaiseToSynch", &[At(lock)], 0);
    script.check("KeGetCurrentIrql", &[], 12);
    script.call("KeReleaseSpinLock", &[At(lock), N(0)]);
    let other = script.zeros(8);
    script.call("KeAcquireInStackQueuedSpinLockRaiseToSynch", &[At(other), At(handle)]);
    script.check("KeGetCurrentIrql", &[], 12);
    script.call("KeReleaseInStackQueuedSpinLock", &[At(handle)]);
    script.check("KeGetCurrentIrql", &[], 0);
    script.run();
}

#[test]
fn push_locks_and_regions_by_older_names() {
    let mut script = Script::new();
    let (push, fast, resource) = (script.zeros(8), script.zeros(56), script.zeros(104));
    script.call("KeEnterCriticalRegion", &[]);
    script.call("ExfAcquirePushLockExclusive", &[At(push)]);
    script.expect("the word", push, 1);
    script.check("ExfTryAcquirePushLockShared", &[At(push)], 0);
    script.call("ExfReleasePushLock", &[At(push)]);
    script.expect("the word", push, 0);
    script.call("ExfAcquirePushLockShared", &[At(push)]);
    script.check("ExfTryAcquirePushLockShared", &[At(push)], 1);
    script.call("ExfReleasePushLockShared", &[At(push)]);
    script.call("ExfReleasePushLock", &[At(push)]);
    script.call("ExfAcquirePushLockExclusive", &[At(push)]);
    script.call("ExfReleasePushLockExclusive", &[At(push)]);
    script.expect("the word", push, 0);
    script.call("ExInitializeResourceLite", &[At(resource)]);
    script.check("ExTryToAcquireResourceExclusiveLite", &[At(resource)], 1);
    script.call("ExReleaseResourceLite", &[At(resource)]);
    script.call("ExDeleteResourceLite", &[At(resource)]);
    script.call("KeLeaveCriticalRegion", &[]);
    // FAST_MUTEX: a count of 1, and an event at 24.
    let count = script.bytes(&1_u64.to_le_bytes());
    script.call("memcpy", &[At(fast), At(count), N(4)]);
    script.call("KeInitializeEvent", &[At(fast.offset(24)), N(1), N(0)]);
    // The thread itself began in a critical region, which it leaves for the sake of the test.
    script.call("KeLeaveCriticalRegion", &[]);
    script.check("KeAreApcsDisabled", &[], 0);
    script.call("ExEnterCriticalRegionAndAcquireFastMutexUnsafe", &[At(fast)]);
    script.check("KeAreApcsDisabled", &[], 1);
    script.call("ExReleaseFastMutexUnsafeAndLeaveCriticalRegion", &[At(fast)]);
    script.check("KeAreApcsDisabled", &[], 0);
    script.call("KeEnterCriticalRegion", &[]);
    script.run();
}

#[test]
fn pool_by_all_its_names() {
    const TAG: u64 = u32::from_le_bytes(*b"Test") as u64;
    let mut script = Script::new();
    for (name, arguments) in [
        ("ExAllocatePool", vec![N(512), N(24)]),
        ("ExAllocatePoolWithTagPriority", vec![N(512), N(24), N(TAG), N(32)]),
        ("ExAllocatePoolWithQuota", vec![N(512 | 8), N(24)]),
        ("ExAllocatePoolWithQuotaTag", vec![N(512), N(24), N(TAG)]),
        ("ExAllocatePool3", vec![N(0x40), N(24), N(TAG), N(0), N(0)]),
    ] {
        let block = script.call(name, &arguments);
        // Memory that is written, and freed.
        script.call("memset", &[In(block), N(1), N(24)]);
        script.call("ExFreePool", &[In(block)]);
    }
    let block = script.call("ExAllocatePool3", &[N(0x40), N(8), N(TAG), N(0), N(0)]);
    script.check("ExFreePool2", &[In(block), N(TAG), N(0), N(0)], 0);
    // A parameter that this kernel does not know and that must not be ignored, and one that may.
    let parameter = script.bytes(&[3_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat());
    script.check("ExAllocatePool3", &[N(0x40), N(8), N(TAG), At(parameter), N(1)], 0);
    script.run();
}

#[test]
fn a_quota_that_fails_raises() {
    const TAG: u64 = u32::from_le_bytes(*b"Test") as u64;
    let mut script = Script::new();
    script.check("ExAllocatePoolWithQuotaTag", &[N(512 | 8), N(64), N(TAG)], 0);
    let image = Image::load(&script.image().bytes()).expect("sound");
    run_image(&Machine::new().pool_limit(32), &image).expect_clean();
    let mut script = Script::new();
    script.call("ExAllocatePoolWithQuotaTag", &[N(512), N(64), N(TAG)]);
    let image = Image::load(&script.image().bytes()).expect("sound");
    let outcome = run_image(&Machine::new().pool_limit(32), &image);
    let bug_check = outcome.bug_check().expect("nobody handles it");
    assert_eq!((bug_check.code, bug_check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, 0xc000_009a));
}

#[test]
fn objects_are_referenced_with_tags() {
    const TAG: u64 = u32::from_le_bytes(*b"Test") as u64;
    let mut script = Script::new();
    let (handle, object) = (script.zeros(8), script.zeros(8));
    let thread = script.call("PsGetCurrentThread", &[]);
    script.check("ObReferenceObjectByPointerWithTag", &[In(thread), N(0), N(0), N(0), N(TAG)], 0);
    script.call("ObfDereferenceObjectWithTag", &[In(thread), N(TAG)]);
    script.check("ObOpenObjectByPointerWithTag", &[In(thread), N(0x200), N(0), N(0x1f_ffff), N(0), N(0), N(TAG), At(handle)], 0);
    script.check("ObReferenceObjectByHandleWithTag", &[In(handle), N(0), N(0), N(0), N(TAG), At(object), N(0)], 0);
    script.check("ObIsKernelHandle", &[In(handle)], 1);
    script.check("ObIsKernelHandle", &[N(0x44)], 0);
    script.check("ObReferenceObjectSafeWithTag", &[In(object), N(TAG)], 1);
    script.call("ObDereferenceObject", &[In(object)]);
    script.call("ObDereferenceObject", &[In(object)]);
    script.check("ObCloseHandle", &[In(handle), N(0)], 0);
    let process = script.call("PsGetCurrentProcess", &[]);
    let id = script.call("PsGetCurrentProcessId", &[]);
    script.expect("the system process", id, 4);
    script.check("PsGetThreadProcessId", &[In(thread)], 4);
    script.check("PsGetCurrentThreadProcessId", &[], 4);
    script.check("PsIsSystemProcess", &[In(process)], 1);
    script.check("IoIsSystemThread", &[In(thread)], 1);
    let of_thread = script.call("PsGetThreadProcess", &[In(thread)]);
    script.check("memcmp", &[At(of_thread), At(process), N(8)], 0);
    let build = script.zeros(8);
    script.check("PsGetVersion", &[N(0), N(0), At(build), N(0)], 0);
    script.check("KeQueryMaximumProcessorCount", &[], 1);
    script.check("KeGetCurrentNodeNumber", &[], 0);
    script.check("KeQueryHighestNodeNumber", &[], 0);
    let (affinity, count) = (script.zeros(16), script.zeros(8));
    script.call("KeQueryNodeActiveAffinity", &[N(0), At(affinity), At(count)]);
    script.expect("the node's processors", affinity, 1);
    script.expect("how many", count, 1);
    script.call("KeQueryNodeActiveAffinity", &[N(1), At(affinity), N(0)]);
    script.expect("no node", affinity, 0);
    script.check("KeQueryNodeMaximumProcessorCount", &[N(0)], 1);
    script.check("KeQueryNodeMaximumProcessorCount", &[N(1)], 0);
    let (low, high) = (script.zeros(8), script.zeros(8));
    script.call("IoGetStackLimits", &[At(low), At(high)]);
    script.check("IoWithinStackLimits", &[In(low), N(16)], 1);
    script.check("IoWithinStackLimits", &[In(high), N(0)], 1);
    script.check("IoWithinStackLimits", &[In(high), N(1)], 0);
    script.check("IoWithinStackLimits", &[In(low), N(u64::MAX)], 0);
    script.check("KeGetRecommendedSharedDataAlignment", &[], 64);
    script.call("KeSetSystemAffinityThread", &[N(1)]);
    script.call("KeRevertToUserAffinityThread", &[]);
    script.run();
}

#[test]
fn mutants_and_semaphores_have_services() {
    const NOT_OWNED: u64 = 0xc000_0046;
    const LIMIT: u64 = 0xc000_0047;
    let mut script = Script::new();
    let (mutant, semaphore, previous) = (script.zeros(8), script.zeros(8), script.zeros(8));
    let now = script.zeros(8);
    script.check("ZwCreateMutant", &[At(mutant), N(0x1f_0001), N(0), N(1)], 0);
    // Acquired once more, and released as often.
    script.check("ZwWaitForSingleObject", &[In(mutant), N(0), At(now)], 0);
    script.check("ZwReleaseMutant", &[In(mutant), At(previous)], 0);
    script.expect_bytes("the count before", previous, &(-1_i32).to_le_bytes());
    script.check("ZwReleaseMutant", &[In(mutant), N(0)], 0);
    script.check("ZwReleaseMutant", &[In(mutant), N(0)], NOT_OWNED);
    script.check("ZwClose", &[In(mutant)], 0);
    script.check("ZwCreateSemaphore", &[At(semaphore), N(0x1f_0003), N(0), N(3), N(2)], 0xc000_000d);
    script.check("ZwCreateSemaphore", &[At(semaphore), N(0x1f_0003), N(0), N(1), N(2)], 0);
    script.check("ZwReleaseSemaphore", &[In(semaphore), N(2), N(0)], LIMIT);
    script.check("ZwReleaseSemaphore", &[In(semaphore), N(1), At(previous)], 0);
    script.expect_bytes("the count before", previous, &1_i32.to_le_bytes());
    for status in [0, 0, 0x102] {
        script.check("ZwWaitForSingleObject", &[In(semaphore), N(0), At(now)], status);
    }
    script.check("ZwReleaseSemaphore", &[In(semaphore), N(0), N(0)], 0xc000_000d);
    script.check("ZwReleaseMutant", &[In(semaphore), N(0)], 0xc000_0024);
    script.check("ZwClose", &[In(semaphore)], 0);
    script.run();
}

#[test]
fn the_c_runtime() {
    let mut script = Script::new();
    for (class, yes, no) in [
        ("isdigit", '7', 'x'),
        ("islower", 'q', 'Q'),
        ("isupper", 'Q', 'q'),
        ("isxdigit", 'f', 'g'),
        ("isprint", ' ', '\n'),
        ("isspace", '\t', 'a'),
    ] {
        script.check(class, &[N(yes as u64)], 1);
        script.check(class, &[N(no as u64)], 0);
    }
    let (text, wide) = (script.text(" -42x"), script.wide("+17"));
    script.check("atoi", &[At(text)], u64::from((-42_i32) as u32));
    script.check("atol", &[At(text)], u64::from((-42_i32) as u32));
    script.check("_wtoi", &[At(wide)], 17);
    script.check("_wtol", &[At(wide)], 17);
    let buffer = script.zeros(64);
    script.call("_itoa", &[N(-25_i64 as u64), At(buffer), N(10)]);
    script.expect_bytes("decimal", buffer, b"-25");
    script.call("_itow", &[N(0xab), At(buffer), N(16)]);
    script.expect_bytes("hexadecimal", buffer, b"a\0b\0");
    let numbers: Vec<u8> = [5_i32, -1, 9, 3, 3, 0].iter().flat_map(|number| number.to_le_bytes()).collect();
    let (numbers, key) = (script.bytes(&numbers), script.bytes(&9_i32.to_le_bytes()));
    script.call("qsort", &[At(numbers), N(6), N(4), Compare]);
    for (index, pair) in [[-1_i32, 0], [3, 3], [5, 9]].iter().enumerate() {
        let bytes: Vec<u8> = pair.iter().flat_map(|number| number.to_le_bytes()).collect();
        script.expect_bytes("sorted", numbers.offset(index * 8), &bytes);
    }
    let found = script.call("bsearch", &[At(key), At(numbers), N(6), N(4), Compare]);
    script.check("memcmp", &[In(found), At(key), N(4)], 0);
    script.check("bsearch", &[At(text), At(numbers), N(6), N(4), Compare], 0);
    script.call("srand", &[N(7)]);
    let one = script.call("rand", &[]);
    script.call("srand", &[N(7)]);
    let again = script.call("rand", &[]);
    script.check("memcmp", &[At(one), At(again), N(8)], 0);
    let at = script.call("memchr", &[At(text), N('4' as u64), N(5)]);
    script.check("atoi", &[In(at)], 42);
    script.check("memchr", &[At(text), N('z' as u64), N(5)], 0);
    script.run();
}

#[test]
fn checked_copies_and_more_strings() {
    const INVALID: u64 = 22;
    const RANGE: u64 = 34;
    let mut script = Script::new();
    let (buffer, source, wide) = (script.zeros(64), script.text("abc"), script.wide("xY"));
    script.check("memcpy_s", &[At(buffer), N(8), At(source), N(3)], 0);
    script.expect_bytes("copied", buffer, b"abc");
    script.check("memmove_s", &[At(buffer), N(2), At(source), N(3)], RANGE);
    script.expect_bytes("cleared as far as there is room", buffer, b"\0\0c");
    script.check("memcpy_s", &[At(buffer), N(8), N(0), N(3)], INVALID);
    script.check("strcpy_s", &[At(buffer), N(4), At(source)], 0);
    script.check("strcpy_s", &[At(buffer), N(3), At(source)], RANGE);
    script.expect_bytes("empty", buffer, b"\0bc");
    script.check("strncpy_s", &[At(buffer), N(3), At(source), N(u64::MAX)], 0);
    script.expect_bytes("truncated", buffer, b"ab");
    script.check("strcat_s", &[At(buffer), N(8), At(source)], 0);
    script.expect_bytes("appended", buffer, b"ababc");
    script.check("strncat_s", &[At(buffer), N(8), At(source), N(2)], 0);
    script.expect_bytes("appended in part", buffer, b"ababcab");
    script.check("strcat_s", &[At(buffer), N(8), At(source)], RANGE);
    script.check("strcat_s", &[N(0), N(8), At(source)], INVALID);
    script.check("wcscpy_s", &[At(buffer), N(4), At(wide)], 0);
    script.check("wcsncat_s", &[At(buffer), N(4), At(wide), N(1)], 0);
    script.expect_bytes("wide", buffer, b"x\0Y\0x\0");
    script.check("wcscat_s", &[At(buffer), N(4), At(wide)], RANGE);
    script.check("wcsncpy_s", &[At(buffer), N(4), At(wide), N(1)], 0);
    script.expect_bytes("wide", buffer, b"x\0\0\0x\0");
    let (mixed, mixed_wide) = (script.text("aBc"), script.wide("aB"));
    script.call("_strupr", &[At(mixed)]);
    script.expect_bytes("upper", mixed, b"ABC");
    script.call("_strlwr", &[At(mixed)]);
    script.call("_strrev", &[At(mixed)]);
    script.expect_bytes("lower, backwards", mixed, b"cba");
    script.call("_wcsupr", &[At(mixed_wide)]);
    script.call("_wcsrev", &[At(mixed_wide)]);
    script.expect_bytes("upper, backwards", mixed_wide, b"B\0A\0");
    script.call("_wcslwr", &[At(mixed_wide)]);
    script.expect_bytes("lower", mixed_wide, b"b\0a\0");
    let (set, set_wide) = (script.text("bc"), script.wide("ba"));
    script.check("strspn", &[At(mixed), At(set)], 2);
    script.check("strcspn", &[At(source), At(set)], 1);
    script.check("wcsspn", &[At(mixed_wide), At(set_wide)], 2);
    script.check("wcscspn", &[At(mixed_wide), At(wide)], 2);
    script.run();
}

#[test]
fn runs_of_clear_bits() {
    let mut script = Script::new();
    // Clear: 2 to 3, 8 to 12, 30 to 31.
    let words = 0x3fff_e0f3_u32;
    let (bitmap, words, at) = (script.zeros(16), script.bytes(&words.to_le_bytes()), script.zeros(64));
    script.call("RtlInitializeBitMap", &[At(bitmap), At(words), N(32)]);
    script.check("RtlFindFirstRunClear", &[At(bitmap), At(at)], 2);
    script.expect_bytes("its place", at, &2_u32.to_le_bytes());
    script.check("RtlFindNextForwardRunClear", &[At(bitmap), N(9), At(at)], 4);
    script.expect_bytes("the rest of it", at, &9_u32.to_le_bytes());
    script.check("RtlFindNextForwardRunClear", &[At(bitmap), N(32), At(at)], 0);
    script.check("RtlFindLastBackwardRunClear", &[At(bitmap), N(29), At(at)], 5);
    script.expect_bytes("its place", at, &8_u32.to_le_bytes());
    script.check("RtlFindLongestRunClear", &[At(bitmap), At(at)], 5);
    let two = script.zeros(32);
    script.check("RtlFindClearRuns", &[At(bitmap), At(two), N(2), N(0)], 2);
    script.expect_bytes("the first", two, &[2, 0, 0, 0, 2, 0, 0, 0]);
    script.check("RtlFindClearRuns", &[At(bitmap), At(two), N(2), N(1)], 2);
    script.expect_bytes("the longest", two, &[8, 0, 0, 0, 5, 0, 0, 0]);
    script.check("RtlFindLeastSignificantBit", &[N(0x30)], 4);
    script.check("RtlFindMostSignificantBit", &[N(0x30)], 5);
    script.check("RtlFindMostSignificantBit", &[N(0)], 0xff);
    script.check("RtlNumberOfSetBitsUlongPtr", &[N(0xf0f0)], 8);
    script.run();
}

#[test]
fn more_strings_dates_and_numbers() {
    let mut script = Script::new();
    let (source, room) = (script.text("abc"), script.zeros(32));
    let (one, other, wide) = (script.zeros(16), script.zeros(16), script.wide("Hi"));
    script.call("RtlInitString", &[At(one), At(source)]);
    script.call("RtlInitString", &[At(other), At(room)]);
    // An empty string with room for 5: its maximum is the second word.
    let five = script.bytes(&5_u16.to_le_bytes());
    script.call("memcpy", &[At(other.offset(2)), At(five), N(2)]);
    script.call("RtlCopyString", &[At(other), At(one)]);
    script.check("RtlPrefixString", &[At(one), At(other), N(0)], 1);
    script.check("RtlAppendAsciizToString", &[At(other), At(source)], 0xc000_0023);
    let tail = script.text("DE");
    script.check("RtlAppendAsciizToString", &[At(other), At(tail)], 0);
    script.expect_bytes("the string", room, b"abcDE");
    script.check("RtlPrefixString", &[At(other), At(one), N(0)], 0);
    script.check("RtlUpperChar", &[N(u64::from(b'q'))], u64::from(b'Q'));
    let counted = script.zeros(16);
    script.check("RtlInitUnicodeStringEx", &[At(counted), At(wide)], 0);
    let hash = script.zeros(8);
    script.check("RtlHashUnicodeString", &[At(counted), N(1), N(0), At(hash)], 0);
    script.expect("H times 65599, and I", hash, 72 * 65_599 + 73);
    script.check("RtlHashUnicodeString", &[At(counted), N(1), N(7), At(hash)], 0xc000_000d);
    // 1970-01-01.
    let (time, date, back) = (script.bytes(&116_444_736_000_000_000_i64.to_le_bytes()), script.zeros(16), script.zeros(8));
    script.call("RtlTimeToTimeFields", &[At(time), At(date)]);
    script.expect_bytes("the date", date, &[0xb2, 7, 1, 0, 1, 0, 0, 0]);
    script.check("RtlTimeFieldsToTime", &[At(date), At(back)], 1);
    script.check("memcmp", &[At(time), At(back), N(8)], 0);
    let seed = script.zeros(8);
    script.check("RtlRandomEx", &[At(seed)], 0x7fff_ffc3);
    script.expect("the next seed", seed, 0x7fff_ffc3);
    script.run();
}

#[test]
fn memory_is_locked_by_lists() {
    let mut script = Script::new();
    let buffer = script.zeros(64);
    script.check("MmSizeOfMdl", &[N(0x1ff0), N(0x20)], 48 + 16);
    let list = script.call("IoAllocateMdl", &[At(buffer), N(64), N(0), N(0), N(0)]);
    script.call("MmProbeAndLockPages", &[In(list), N(0), N(1)]);
    let mapped = script.call("MmMapLockedPages", &[In(list), N(0)]);
    script.call("memset", &[In(mapped), N(7), N(8)]);
    script.expect("the buffer", buffer, 0x0707_0707_0707_0707);
    script.call("MmUnmapLockedPages", &[In(mapped), In(list)]);
    script.call("MmUnlockPages", &[In(list)]);
    script.call("IoFreeMdl", &[In(list)]);
    script.run();
    // What is not there cannot be locked.
    let mut script = Script::new();
    let list = script.call("IoAllocateMdl", &[N(0x18), N(8), N(0), N(0), N(0)]);
    script.call("MmProbeAndLockPages", &[In(list), N(0), N(0)]);
    let outcome = run(&Machine::new(), &script.image());
    let check = outcome.bug_check().expect("nobody handles it");
    assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, 0xc000_0005));
}

#[test]
fn types_of_objects_are_variables() {
    let names =
        ["CmKeyObjectType", "MmSectionObjectType", "PsJobType", "SeTokenObjectType", "ExDesktopObjectType", "NtGlobalFlag"];
    let image = Image::load(&super::pe::Pe::new(&[0xc3; 4096], &[0; 64], &names).bytes()).expect("sound");
    assert_eq!(image.imports().filter(|import| import.available).count(), names.len());
}

#[test]
fn texts_are_scanned() {
    let mut script = Script::new();
    let (text, format) = (script.text(" 12 -0x1F name[ab]77"), script.text("%d %i %4s%*[^[][%[a-c]]%I64u"));
    let (one, two, quad) = (script.zeros(8), script.zeros(8), script.zeros(8));
    let (name, set) = (script.zeros(16), script.zeros(16));
    let arguments = [At(text), At(format), At(one), At(two), At(name), N(16), At(set), N(16), At(quad)];
    // The fifth conversion skips what it reads, of which there is nothing.
    script.check("sscanf_s", &arguments, 3);
    script.expect("the decimal number", one, 12);
    script.expect("the one with its prefix", two, u64::from(0_u32.wrapping_sub(0x1f)));
    script.expect_bytes("the text", name, b"name\0");
    let (text, format) = (script.text("7 abc"), script.text("%hhx%s"));
    script.check("sscanf_s", &[At(text), At(format), At(one), At(set), N(3)], 1);
    script.expect("the byte", one, 7);
    script.expect_bytes("what does not fit", set, b"\0");
    let (text, format) = (script.wide("ff end"), script.wide("%x %ls"));
    script.check("swscanf_s", &[At(text), At(format), At(one), At(name), N(16)], 2);
    script.expect("the hexadecimal number", one, 0xff);
    script.expect_bytes("the wide text", name, b"e\0n\0d\0\0\0");
    let (text, format) = (script.text("123456"), script.text("%d"));
    script.check("_snscanf_s", &[At(text), N(3), At(format), At(one)], 1);
    script.expect("the first three digits", one, 123);
    let empty = script.text("  ");
    script.check("sscanf_s", &[At(empty), At(format), At(one)], 0xffff_ffff);
    script.run();
}

#[test]
fn strings_are_made_and_converted() {
    let mut script = Script::new();
    let (source, made, again) = (script.wide("Ab\u{e9}"), script.zeros(16), script.zeros(16));
    script.check("RtlCreateUnicodeString", &[At(made), At(source)], 1);
    script.expect("its lengths", made, 0x8_0006);
    script.check("RtlDowncaseUnicodeString", &[At(again), At(made), N(1)], 0);
    script.check("RtlCompareUnicodeString", &[At(made), At(again), N(1)], 0);
    script.check("RtlxUnicodeStringToAnsiSize", &[At(made)], 4);
    script.check("RtlValidateUnicodeString", &[N(0), At(made)], 0);
    script.call("RtlFreeUnicodeString", &[At(again)]);
    script.check("RtlDuplicateUnicodeString", &[N(1), At(made), At(again)], 0);
    script.check("RtlCompareUnicodeString", &[At(made), At(again), N(0)], 0);
    script.call("RtlFreeUnicodeString", &[At(made)]);
    script.call("RtlFreeUnicodeString", &[At(again)]);
    let (bytes, size) = (script.zeros(16), script.zeros(8));
    script.check("RtlUnicodeToMultiByteN", &[At(bytes), N(16), At(size), At(source), N(6)], 0);
    script.expect_bytes("in the code page", bytes, b"Ab\xe9");
    script.check("RtlUnicodeToUTF8N", &[At(bytes), N(3), At(size), At(source), N(6)], 0xc000_0023);
    script.expect("without half a character", size, 2);
    script.check("RtlUnicodeToUTF8N", &[At(bytes), N(16), At(size), At(source), N(6)], 0);
    script.expect_bytes("in UTF-8", bytes, b"Ab\xc3\xa9");
    script.check("RtlUTF8ToUnicodeN", &[At(again), N(16), At(size), At(bytes), N(4)], 0);
    script.expect_bytes("and back", again, b"A\0b\0\xe9\0");
    let guid = script.bytes(&(1..=16).collect::<Vec<u8>>());
    script.check("RtlStringFromGUID", &[At(guid), At(made)], 0);
    script.expect("its length", made, 0x4e_004c);
    script.check("RtlGUIDFromString", &[At(made), At(bytes)], 0);
    script.expect_bytes("the identifier", bytes, &[1, 2, 3, 4, 5, 6, 7, 8]);
    script.call("RtlFreeUnicodeString", &[At(made)]);
    let (time, seconds) = (script.zeros(8), script.zeros(8));
    script.call("RtlSecondsSince1970ToTime", &[N(1), At(time)]);
    script.expect("the time", time, 116_444_736_010_000_000);
    script.check("RtlTimeToSecondsSince1970", &[At(time), At(seconds)], 1);
    script.expect("the seconds", seconds, 1);
    let (number, end) = (script.wide(" 0x1fz"), script.zeros(8));
    script.check("wcstoul", &[At(number), At(end), N(0)], 0x1f);
    script.check("wcstombs", &[At(bytes), At(source), N(16)], 3);
    script.check("mbstowcs", &[At(again), At(bytes), N(16)], 3);
    let digits = script.zeros(8);
    script.check("_itoa_s", &[N(255), At(digits), N(8), N(16)], 0);
    script.expect_bytes("the digits", digits, b"ff");
    script.run();
}

#[test]
fn older_names_of_routines_and_of_paged_lists() {
    let mut script = Script::new();
    let list = script.zeros(128);
    let head = script.zeros(16);
    let entry = script.zeros(16);
    script.call("ExInitializePagedLookasideList", &[At(list), N(0), N(0), N(0), N(64), N(0x7473_6574), N(0)]);
    let block = script.call("ExAllocateFromPagedLookasideList", &[At(list)]);
    script.call("ExFreeToPagedLookasideList", &[At(list), In(block)]);
    script.call("ExDeletePagedLookasideList", &[At(list)]);
    script.check("FirstEntrySList", &[At(head)], 0);
    script.call("ExpInterlockedPushEntrySList", &[At(head), At(entry)]);
    let first = script.call("FirstEntrySList", &[At(head)]);
    script.check("ExpInterlockedPopEntrySList", &[At(head)], 0);
    script.check("KeIsExecutingDpc", &[], 0);
    script.check("PsGetCurrentThreadPreviousMode", &[], 0);
    let _ = first;
    let mutex = script.zeros(64);
    script.call("KeInitializeMutex", &[At(mutex), N(0)]);
    script.check("KeWaitForMutexObject", &[At(mutex), N(0), N(0), N(0), N(0)], 0);
    script.check("KeReleaseMutex", &[At(mutex), N(0)], 0);
    script.call("DbgBreakPoint", &[]);
    let outcome = run(&Machine::new(), &script.image());
    let check = outcome.bug_check().expect("nobody handles it");
    assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, 0x8000_0003), "{check}");
}
