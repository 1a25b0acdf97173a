//! Special pool, and paged pool at raised levels: what touches pool that it must not is stopped where it does.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use ksim::explore::{Explore, Strategy, TokenError};
use ksim::{BugCheck, Machine, Outcome, RuleId, explore};
use ksync_sys::*;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use test_support::io::*;
use test_support::*;

#[inline(never)]
fn read(memory: PVOID, offset: isize) -> u8 {
    raw!(memory.cast::<u8>().wrapping_offset(offset).read_volatile())
}

#[inline(never)]
fn write(memory: PVOID, offset: isize) {
    raw!(memory.cast::<u8>().wrapping_offset(offset).write_volatile(1));
}

fn run(code: impl FnOnce()) -> Outcome {
    Machine::new().record_sites(true).run(code)
}

fn allocate_paged(bytes: usize) -> PVOID {
    raw!(ExAllocatePool2(POOL_FLAG_PAGED, bytes, TAG))
}

/// How the run ended: with a touch by that function, of which operation (0 reads, 1 writes), which the words describe.
#[track_caller]
fn touched(outcome: &Outcome, code: u32, operation: u64, function: &str, words: &str) -> BugCheck {
    let stop = outcome.bug_check().unwrap_or_else(|| panic!("no bug check: {outcome}"));
    assert_eq!(stop.code, code, "{outcome}");
    assert_eq!(stop.parameters[1], operation, "{outcome}");
    assert!(stop.parameters[0] != 0 && stop.parameters[2] != 0 && stop.parameters[3] == 0, "{outcome}");
    assert!(stop.meaning.contains(words), "{outcome}");
    let site = stop.call_sites.iter().find(|site| site.function.contains(function));
    let site = site.unwrap_or_else(|| panic!("{function} is not in {outcome}"));
    assert!(site.file.as_ref().is_some_and(|file| file.ends_with("special_pool.rs")) && site.line.is_some(), "{outcome}");
    stop.clone()
}

/// The report says where the block came from and went.
#[track_caller]
fn tells(stop: &BugCheck, whats: &[&str]) {
    let found: Vec<_> = stop.related.iter().map(|related| (related.what.as_str(), !related.call_sites.is_empty())).collect();
    let wanted: Vec<_> = whats.iter().map(|what| (*what, true)).collect();
    assert_eq!(found, wanted, "{stop}");
}

#[test]
fn freed_blocks_are_neither_read_nor_written() {
    const WHERE: [&str; 2] =
        ["the block of 64 bytes with tag 'Test' was allocated", "the block of 64 bytes with tag 'Test' was freed"];
    for level in [PASSIVE_LEVEL, APC_LEVEL, DISPATCH_LEVEL] {
        let outcome = run(|| {
            let memory = allocate(64);
            free(memory);
            at(level, || read(memory, 8));
        });
        let words = "hosted code read byte 8 of a block of 64 bytes with tag 'Test' that has been freed";
        let stop = touched(&outcome, 0xd5, 0, "special_pool::read", words);
        assert_eq!((stop.irql, stop.name), (level, "DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL"));
        tells(&stop, &WHERE);
        let outcome = run(|| {
            let memory = allocate(64);
            free(memory);
            at(level, || write(memory, 63));
        });
        let stop = touched(&outcome, 0xd5, 1, "special_pool::write", "wrote byte 63 of a block of 64 bytes");
        tells(&stop, &WHERE);
    }
    for (offset, words) in [(-1, "freed, right in front of it"), (64, "freed, right behind its end")] {
        let outcome = run(|| {
            let memory = allocate(64);
            free(memory);
            write(memory, offset);
        });
        touched(&outcome, 0xd5, 1, "special_pool::write", words);
    }
}

#[test]
fn a_block_that_was_freed_long_ago_is_known_as_long_as_there_are_few_others() {
    for (others, is_known) in [(1_000, true), (10_000, false)] {
        let outcome = run(|| {
            let memory = allocate(64);
            free(memory);
            for _ in 0..others {
                free(allocate(16));
            }
            read(memory, 0);
        });
        let stop = outcome.bug_check().expect("the page is not there");
        assert_eq!(stop.meaning.contains("a block of 64 bytes"), is_known, "{outcome}");
    }
}

#[test]
fn behind_a_block_nothing_is() {
    for (size, offset, words) in [
        (64, 64, "byte 64 of a block of 64 bytes with tag 'Test', right behind its end"),
        (64, 100, "byte 100 of a block of 64 bytes with tag 'Test', 36 bytes behind its end"),
        (24, 32, "byte 32 of a block of 24 bytes with tag 'Test', 8 bytes behind its end"),
        (1, 16, "byte 16 of a block of 1 bytes with tag 'Test', 15 bytes behind its end"),
        (4096, 4096, "byte 4096 of a block of 4096 bytes with tag 'Test', right behind its end"),
        (5000, 8192, "byte 8192 of a block of 5000 bytes with tag 'Test', 3192 bytes behind its end"),
        (8192, -1, "byte -1 of a block of 8192 bytes with tag 'Test', right in front of it"),
    ] {
        let outcome = run(|| _ = read(allocate(size), offset));
        let stop = touched(&outcome, 0xd6, 0, "special_pool::read", words);
        tells(&stop, &[&format!("the block of {size} bytes with tag 'Test' was allocated")]);
        let outcome = run(|| write(allocate(size), offset));
        touched(&outcome, 0xd6, 1, "special_pool::write", words);
    }
}

#[test]
fn what_is_written_within_the_pages_of_a_block_is_found_when_it_is_freed() {
    for (size, offset, place) in [
        (24, 24, 0x24),
        (24, 31, 0x24),
        (1, 15, 0x24),
        (5000, 5000, 0x24),
        (5000, 8191, 0x24),
        (64, -1, 0x23),
        (64, -4032, 0x23),
        (4080, -16, 0x23),
    ] {
        for frees in [true, false] {
            let outcome = run(|| {
                let memory = allocate(size);
                write(memory, offset);
                if frees {
                    free(memory);
                }
            });
            let report = outcome.to_string();
            let stop = outcome.expect_bug_check(0xc1);
            let written = stop.parameters[1].wrapping_sub(stop.parameters[0]) as isize;
            assert_eq!((written, stop.parameters[3]), (offset, place), "{report}");
            assert!(stop.meaning.contains(&format!("byte {offset} of a block of {size} bytes with tag 'Test' was written")));
            assert_eq!(stop.routine, frees.then_some("ExFreePoolWithTag"));
            tells(&stop, &[&format!("the block of {size} bytes with tag 'Test' was allocated")]);
        }
    }
}

#[test]
fn blocks_are_aligned_as_in_nt_and_all_of_them_is_there() {
    let allocates = || {
        let blocks: Vec<_> = [1, 15, 16, 17, 24, 100, 4080, 4081, 4095, 4096, 4097, 10_000, 262_144, 262_145, 1 << 20]
            .into_iter()
            .map(|size| {
                let memory = allocate(size);
                assert_eq!(memory.addr() % if size >= 4096 { 4096 } else { 16 }, 0, "{size}");
                raw!(memory.cast::<u8>().write_bytes(7, size));
                (memory, size)
            })
            .collect();
        for (memory, size) in blocks {
            assert_eq!((read(memory, 0), read(memory, size as isize - 1)), (7, 7));
            free(memory);
        }
    };
    run(allocates).expect_clean();
    Machine::new().special_pool(false).run(allocates).expect_clean();
}

#[test]
fn a_block_that_is_too_large_or_one_of_too_many_is_an_ordinary_one() {
    let outcome = run(|| {
        let memory = allocate(300 << 10);
        write(memory, 300 << 10);
        free(memory);
    });
    assert_eq!(outcome.expect_bug_check(0xc4).parameters[0], 0x51);
    let outcome = run(|| {
        let blocks: Vec<_> = (0..5000).map(|_| allocate(32)).collect();
        let last = blocks[4999];
        blocks.into_iter().for_each(free);
        // There is room for it again.
        free(allocate(16));
        assert_eq!(read(last, 0), 0xdd);
        read(allocate(32), 32);
    });
    touched(&outcome, 0xd6, 0, "special_pool::read", "byte 32 of a block of 32 bytes");
}

#[test]
fn without_it_reads_go_unseen() {
    let wrong = || {
        let memory = allocate(64);
        read(memory, 64);
        free(memory);
        assert_eq!(read(memory, 8), 0xdd);
    };
    Machine::new().special_pool(false).run(wrong).expect_clean();
    use ksim::RuleId::{BeyondPoolTouched, FreedPoolTouched, PoolOverrun, PoolWrittenAfterFree};
    for rule in [PoolOverrun, PoolWrittenAfterFree, FreedPoolTouched, BeyondPoolTouched] {
        Machine::new().special_pool(true).check_rule(rule, false).run(wrong).expect_clean();
    }
    assert_eq!(Machine::new().special_pool(true).run(wrong).expect_bug_check(0xd6).parameters[1], 0);
}

#[test]
fn what_the_kernel_touches_for_a_driver_is_the_routines() {
    let waits = |timeout: PVOID| {
        let event = Event::notification();
        raw!(KeWaitForSingleObject(event.object(), Executive, KernelMode as _, FALSE, timeout.cast()));
    };
    let outcome = run(|| {
        let timeout = allocate(8);
        free(timeout);
        waits(timeout);
    });
    let words = "KeWaitForSingleObject was passed a bad pointer: it read byte 0 of a block of 8 bytes with tag 'Test' that has been freed";
    let stop = touched(&outcome, 0xcc, 0, "what_the_kernel_touches", words);
    assert_eq!(stop.name, "PAGE_FAULT_IN_FREED_SPECIAL_POOL");
    assert_eq!(stop.related.len(), 2);
    let outcome = run(|| waits(allocate(16).wrapping_byte_add(16)));
    let stop = touched(&outcome, 0xcd, 0, "what_the_kernel_touches", "16 bytes with tag 'Test', right behind its end");
    assert_eq!(stop.name, "PAGE_FAULT_BEYOND_END_OF_ALLOCATION");
}

#[test]
fn requests_and_device_extensions_are_of_special_pool() {
    let outcome = run(|| {
        let irp = raw!(IoAllocateIrp(1, FALSE));
        raw!(IoFreeIrp(irp));
        read(irp.cast(), 16);
    });
    touched(&outcome, 0xd5, 0, "special_pool::read", "with tag 'Irp ' that has been freed");
    let outcome = run(|| {
        let sample = Sample::try_load("sample", 32).expect("the driver loads");
        let extension = raw!((*sample.device()).DeviceExtension);
        raw!(IoDeleteDevice(sample.device()));
        read(extension, 0);
    });
    touched(&outcome, 0xd5, 0, "special_pool::read", "with tag 'Devi' that has been freed");
}

#[test]
fn what_a_panics_drops_touch_is_not_what_ended_the_run() {
    struct Touches(PVOID, isize);
    impl Drop for Touches {
        fn drop(&mut self) {
            write(self.0, self.1);
            black_box(read(self.0, self.1));
        }
    }
    for offset in [0, 64] {
        let outcome = run(|| {
            let memory = allocate(64);
            free(memory);
            let _touches = Touches(memory, offset);
            let other = allocate(64);
            let _other = Touches(other, 64);
            panic!("on purpose");
        });
        assert_eq!(outcome.panic().expect("a panic").message, "on purpose");
    }
    // What was let pass is not any more.
    for _ in 0..3 {
        touched(&run(|| write(allocate(64), 64)), 0xd6, 1, "special_pool::write", "right behind its end");
        let outcome = run(|| {
            let memory = allocate(64);
            free(memory);
            read(memory, 0);
        });
        touched(&outcome, 0xd5, 0, "special_pool::read", "byte 0");
    }
}

#[test]
fn what_machines_leave_stays_for_statics_that_point_to_it() {
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    let program = || {
        let memory = allocate(16);
        write(memory, 3);
        if LEFT.load(Relaxed) == 0 {
            LEFT.store(memory.addr(), Relaxed);
        }
        assert_eq!(read(LEFT.load(Relaxed) as PVOID, 3), 1);
    };
    // What other searches on this OS thread have left does not matter.
    let search = || explore().machine(Machine::new().special_pool(true)).progress(false).schedules(1_000).keep_going(true);
    assert_eq!(search().check(|| _ = allocate(16)).failures(), 1_000);
    for _ in 0..3 {
        LEFT.store(0, Relaxed);
        let outcome = run(program);
        assert!(outcome.is_completed(), "{outcome}");
        assert_eq!(outcome.left().pool.len(), 1);
        assert_eq!(run(program).left().pool.len(), 1);
        LEFT.store(0, Relaxed);
        let found = search().check(program);
        assert_eq!(found.failures(), 1_000);
        assert!(found.expect_failure().outcome.is_completed());
    }
}

#[test]
fn very_many_machines_may_leave_blocks() {
    // 36,000 blocks, which would cost the host twice as many entries of its 65,530 if they were apart.
    for _ in 0..9 {
        let outcome = run(|| (0..4_000).for_each(|_| _ = allocate(16)));
        assert_eq!(outcome.left().pool.len(), 4_000);
    }
    touched(&run(|| write(allocate(64), 64)), 0xd6, 1, "special_pool::write", "right behind its end");
}

/// Who reads does so only after it has let others act, and who frees does not wait for it.
fn freed_too_early() {
    let memory = allocate(64);
    let event = Event::notification();
    let other = spawn(|| {
        event.state();
        event.state();
        read(memory, 5);
    });
    event.set();
    free(memory);
    other.join();
}

fn search() -> Explore {
    explore().processors(2).progress(false).schedules(2_000)
}

#[test]
fn a_search_finds_it_whatever_the_number_of_jobs_and_its_token_repeats_it() {
    for machine in [Machine::new().processors(2), Machine::new().processors(2).special_pool(true)] {
        let results = [1, 2].map(|jobs| {
            let jobs = NonZeroUsize::new(jobs).expect("not 0");
            let found = search().machine(machine.clone()).jobs(jobs).check(freed_too_early);
            let failure = found.expect_failure();
            let words = "read byte 5 of a block of 64 bytes with tag 'Test' that has been freed";
            let stop = touched(&failure.outcome, 0xd5, 0, "special_pool::read", words);
            assert_eq!(stop.related.len(), 2, "{failure}");
            (failure.schedule, failure.token.clone(), failure.preemptions)
        });
        assert_eq!(results[0], results[1]);
        let (_, token, _) = &results[0];
        for _ in 0..3 {
            let again = search().replay(token, freed_too_early).expect("it fits");
            assert_eq!(again.expect_failure().outcome.bug_check().map(|stop| stop.code), Some(0xd5));
        }
        let ordinary = search().machine(Machine::new().processors(2).special_pool(false)).replay(token, freed_too_early);
        assert_eq!(ordinary.err(), Some(TokenError::Settings));
    }
    let ordinary = search().machine(Machine::new().processors(2).special_pool(false)).check(freed_too_early);
    ordinary.expect_clean();
}

#[test]
fn a_failure_of_a_schedule_without_it_is_repeated_without_it() {
    // Touches what it must not, unseen, in front of what fails seldom; with special pool it fails by that, and more seldom.
    let program = || {
        let memory = allocate(64);
        free(memory);
        let event = Event::notification();
        let other = spawn(|| {
            event.set();
        });
        event.state();
        if event.state() != 0 {
            assert_ne!(read(memory, 0), 0xdd, "it is read");
        }
        other.join();
    };
    let found: Vec<_> = (0..20)
        .map(|seed| search().seed(seed).check(program).expect_failure().clone())
        .filter(|failure| failure.outcome.panic().is_some())
        .collect();
    assert!(!found.is_empty(), "most schedules have no special pool");
    for failure in found {
        let again = search().replay(&failure.token, program).expect("it fits");
        assert!(again.expect_failure().outcome.panic().is_some_and(|panic| panic.message.contains("it is read")));
        let again = search().replay(&failure.found, program).expect("it fits");
        assert!(again.expect_failure().outcome.panic().is_some());
    }
}

#[test]
fn a_systematic_search_has_it_in_all_schedules() {
    for strategy in [Strategy::Exhaustive, Strategy::Bounded { preemptions: 2 }] {
        let found = [1, 2].map(|jobs| {
            let search = explore().processors(2).progress(false).strategy(strategy).jobs(NonZeroUsize::new(jobs).expect("not 0"));
            let found = search.clone().check(freed_too_early);
            let failure = found.expect_failure();
            touched(&failure.outcome, 0xd5, 0, "special_pool::read", "that has been freed");
            assert!(search.replay(&failure.token, freed_too_early).expect("it fits").failure().is_some());
            failure.token.clone()
        });
        assert_eq!(found[0], found[1]);
    }
}

/// How the run ended: with a touch of paged pool, and by which parameters.
#[track_caller]
fn paged_out(outcome: &Outcome, code: u32, irql: u8, operation: u64, function: &str, words: &str) {
    let stop = outcome.bug_check().unwrap_or_else(|| panic!("no bug check: {outcome}"));
    assert_eq!((stop.code, stop.parameters[1], stop.parameters[2]), (code, u64::from(irql), operation), "{outcome}");
    assert!(stop.meaning.contains(words), "{outcome}");
    assert!(stop.call_sites.iter().any(|site| site.function.contains(function)), "{outcome}");
    tells(stop, &["the block of 100 bytes with tag 'Test' was allocated"]);
}

fn forced() -> Machine {
    Machine::new().record_sites(true).force_irql_checking(true)
}

#[test]
fn paged_pool_is_not_touched_at_dispatch_level() {
    for special in [true, false] {
        let forced = || forced().special_pool(special);
        let words = "paged pool at IRQL 2: byte 8 of a block of 100 bytes of paged pool with tag 'Test'";
        let outcome = forced().run(|| {
            let memory = allocate_paged(100);
            at(DISPATCH_LEVEL, || read(memory, 8));
        });
        paged_out(&outcome, 0xd1, 2, 0, "special_pool::read", &format!("hosted code read {words}"));
        let outcome = forced().run(|| {
            let memory = allocate_paged(100);
            let lock = SpinLock::new();
            lock.with(|| write(memory, 8));
        });
        paged_out(&outcome, 0xd1, 2, 1, "special_pool::write", &format!("hosted code wrote {words}"));
        let outcome = forced().run(|| {
            let memory = allocate_paged(100);
            let dpc = Dpc::new(|| write(memory, 8));
            dpc.queue();
            sleep(SECOND);
        });
        paged_out(&outcome, 0xd1, 2, 1, "special_pool::write", words);
        assert!(outcome.bug_check().expect("above").in_dpc);
        // The kernel, on a driver's behalf.
        let outcome = forced().run(|| {
            let memory = allocate_paged(100);
            raw!(memory.write_bytes(0, 100));
            let event = Event::notification();
            at(DISPATCH_LEVEL, || {
                raw!(KeWaitForSingleObject(event.object(), Executive, KernelMode as _, FALSE, memory.wrapping_byte_add(8).cast()))
            });
        });
        paged_out(
            &outcome,
            0xa,
            2,
            0,
            "paged_pool_is_not_touched",
            &format!("KeWaitForSingleObject was passed a bad pointer: it read {words}"),
        );
    }
    // Where that is not asked for, it goes unseen.
    let outcome = Machine::new().run(|| {
        let memory = allocate_paged(100);
        at(DISPATCH_LEVEL, || read(memory, 8));
        free(memory);
    });
    outcome.expect_clean();
}

#[test]
fn paged_pool_is_there_below_dispatch_level() {
    forced()
        .run(|| {
            let memory = allocate_paged(100);
            let other = allocate(100);
            for level in [APC_LEVEL, DISPATCH_LEVEL, 5, APC_LEVEL] {
                at(level, || read(other, 0));
                write(memory, 8);
                at(APC_LEVEL, || write(memory, 9));
            }
            at(DISPATCH_LEVEL, || at(5, || write(other, 0)));
            write(memory, 10);
            free(memory);
            let memory = allocate_paged(100);
            write(memory, 1);
            free(memory);
            free(other);
        })
        .expect_clean();
    // What is left is looked at when the run is over, at whatever level it ends.
    let outcome = forced().run(|| {
        let memory = allocate_paged(100);
        write(memory, 100);
        let dpc = Dpc::new(|| {});
        dpc.queue();
    });
    outcome.expect_bug_check(0xc1);
}

/// Threads of two processors, one of which is mostly at DISPATCH_LEVEL while the other touches paged pool.
fn at_both_levels(wrong: bool) {
    let memory = allocate_paged(100);
    let (lock, event) = (SpinLock::new(), Event::notification());
    let mut count = 0;
    let mut under_lock = || {
        for _ in 0..2 {
            let old = lock.acquire();
            event.state();
            count += 1;
            if wrong && count == 2 {
                write(memory, 8);
            }
            lock.release(old);
        }
    };
    let other = spawn(|| {
        for index in 0..4 {
            write(memory, index);
            event.state();
        }
        event.set();
    });
    under_lock();
    wait(event.object());
    read(memory, 3);
    other.join();
    let dpc = Dpc::new(|| _ = event.state());
    dpc.queue();
    read(memory, 3);
    raw!(KeFlushQueuedDpcs());
    free(memory);
}

#[test]
fn a_processor_at_dispatch_level_leaves_paged_pool_to_the_others() {
    for special in [true, false] {
        for processors in [1, 2, 4] {
            let machine = forced().processors(processors).special_pool(special);
            explore().machine(machine).schedules(300).progress(false).check(|| at_both_levels(false)).expect_clean();
        }
        let machine = Machine::new().processors(2).force_irql_checking(true).special_pool(special);
        let results = [1, 2].map(|jobs| {
            let jobs = NonZeroUsize::new(jobs).expect("not 0");
            let found = explore().machine(machine.clone()).jobs(jobs).progress(false).check(|| at_both_levels(true));
            let failure = found.expect_failure();
            paged_out(&failure.outcome, 0xd1, 2, 1, "special_pool::write", "wrote paged pool at IRQL 2");
            failure.token.clone()
        });
        assert_eq!(results[0], results[1]);
    }
    let search = explore().machine(forced().processors(2)).progress(false).strategy(Strategy::Exhaustive);
    search.check(|| at_both_levels(false)).expect_clean();
}

/// Initialises a list of entries of 40 bytes.
fn list() -> Place<LOOKASIDE_LIST_EX> {
    let list = Place::zeroed();
    assert_eq!(raw!(ExInitializeLookasideListEx(list.ptr(), None, None, NonPagedPoolNx, 0, 40, TAG, 0)), STATUS_SUCCESS);
    list
}

#[test]
fn what_a_lookaside_list_keeps_is_not_touched() {
    let outcome = run(|| {
        let list = list();
        let entries = [(); 3].map(|()| raw!(ExAllocateFromLookasideListEx(list.ptr())));
        for entry in entries {
            raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        }
        read(entries[1], 16);
    });
    let words = "hosted code read byte 16 of a block of 40 bytes with tag 'Test' that has been freed to its lookaside list";
    let stop = touched(&outcome, 0xd5, 0, "special_pool::read", words);
    tells(&stop, &["the block of 40 bytes with tag 'Test' was allocated", "the block of 40 bytes with tag 'Test' was freed"]);
    // Whoever gets it has all of it, as it was.
    let uses = || {
        let list = list();
        for entries in [1, 4, 6] {
            let entries: Vec<_> = (0..entries).map(|_| raw!(ExAllocateFromLookasideListEx(list.ptr()))).collect();
            for &entry in &entries {
                write(entry, 0);
                write(entry, 39);
            }
            for entry in entries {
                raw!(ExFreeToLookasideListEx(list.ptr(), entry));
            }
        }
        let entry = raw!(ExAllocateFromLookasideListEx(list.ptr()));
        assert_eq!(read(entry, 39), 1);
        raw!(ExFlushLookasideListEx(list.ptr()));
        raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        raw!(ExDeleteLookasideListEx(list.ptr()));
    };
    run(uses).expect_clean();
    Machine::new().special_pool(false).run(uses).expect_clean();
    // Nothing is lost where the list is never deleted.
    let outcome = run(|| {
        let list = list();
        let entry = raw!(ExAllocateFromLookasideListEx(list.ptr()));
        raw!(ExFreeToLookasideListEx(list.ptr(), entry));
    });
    assert_eq!((outcome.is_completed(), outcome.left().pool.len()), (true, 1), "{outcome}");
}

#[test]
fn an_entry_goes_back_to_its_list_once() {
    for special in [true, false] {
        let machine = Machine::new().special_pool(special).record_sites(true);
        let give = |list: &Place<LOOKASIDE_LIST_EX>, entry| raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        let get = |list: &Place<LOOKASIDE_LIST_EX>| raw!(ExAllocateFromLookasideListEx(list.ptr()));
        let outcome = machine.run(|| {
            let list = list();
            let entries = [get(&list), get(&list)];
            entries.into_iter().for_each(|entry| give(&list, entry));
            give(&list, entries[0]);
        });
        assert_eq!(outcome.expect_bug_check(0xc2).parameters[0], 7);
        // Of another list, fresh or not, while there is room in that one and when there is not.
        for fresh in [true, false] {
            for full in [true, false] {
                let outcome = machine.run(|| {
                    let (own, other) = (list(), list());
                    if !fresh {
                        let entry = get(&own);
                        give(&own, entry);
                    }
                    let entry = get(&own);
                    if full {
                        let entries = [(); 4].map(|()| get(&other));
                        entries.into_iter().for_each(|entry| give(&other, entry));
                    }
                    give(&other, entry);
                });
                let stop = outcome.expect_bug_check(0xc4);
                assert_eq!(stop.parameters[0], 0x6b73_0005);
                let words = "a block of 40 bytes with tag 'Test' was freed to a lookaside list that has not given it out";
                assert_eq!(stop.meaning, words);
            }
        }
        // Of no list.
        let outcome = machine.run(|| give(&list(), allocate(41)));
        assert_eq!(outcome.expect_bug_check(0xc4).parameters[0], 0x6b73_0005);
        // What is written behind it is seen when it goes back.
        let outcome = machine.run(|| {
            let list = list();
            let entry = get(&list);
            write(entry, 40);
            give(&list, entry);
        });
        outcome.expect_bug_check(if special { 0xc1 } else { 0xc4 });
    }
    // With special pool it is known which blocks a list keeps.
    let outcome = run(|| {
        let list = list();
        let entry = raw!(ExAllocateFromLookasideListEx(list.ptr()));
        raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        free(entry);
    });
    assert_eq!(outcome.expect_bug_check(0xc2).parameters[0], 7);
}

#[test]
fn a_lookup_at_the_edge_of_memory() {
    // An address of the host's, in no pool.
    let outcome = run(|| {
        let place = Box::new(7_u64);
        free(allocate(8));
        assert_eq!(read((&raw const *place).cast_mut().cast(), 0), 7);
        read(null_mut::<u8>().wrapping_add(0x10).cast(), 0);
    });
    outcome.expect_bug_check(0x7e);
}

/// Paged blocks may have pages of their own where there is no special pool, and are checked by the rule of ordinary ones.
#[test]
fn paged_blocks_in_pages_are_not_special_by_that() {
    let machine = || Machine::new().force_irql_checking(true).special_pool(false);
    let overrun = || {
        let memory = allocate_paged(100);
        write(memory, 100);
        free(memory);
    };
    let ordinary = |outcome: &Outcome| {
        let stop = outcome.bug_check().unwrap_or_else(|| panic!("no bug check: {outcome}"));
        assert_eq!((stop.code, stop.parameters[0]), (0xc4, 0x51), "{outcome}");
    };
    ordinary(&machine().run(overrun));
    ordinary(&machine().check_rule(RuleId::SpecialPoolCorruption, false).run(overrun));
    machine().check_rule(RuleId::PoolOverrun, false).run(overrun).expect_clean();
    let special = machine().special_pool(true).check_rule(RuleId::SpecialPoolCorruption, false);
    special.run(overrun).expect_clean();
}

/// At DISPATCH_LEVEL all of its pages are gone, also what is next to the block in them.
#[test]
fn what_is_next_to_a_paged_block_is_paged_too() {
    let outcome = Machine::new().record_sites(true).force_irql_checking(true).special_pool(false).run(|| {
        let memory = allocate_paged(100);
        at(DISPATCH_LEVEL, || read(memory, 104));
    });
    paged_out(&outcome, 0xd1, 2, 0, "special_pool::read", "byte 104 of a block of 100 bytes of paged pool with tag 'Test'");
}

/// What a token stands for does not rest on the rules.
#[test]
fn a_token_fits_where_rules_are_off() {
    let search =
        |machine: Machine| explore().machine(machine.processors(2).special_pool(true)).strategy(Strategy::Random).progress(false);
    let found = search(Machine::new()).check(freed_too_early);
    let token = &found.failure().expect("it fails").token;
    let lenient = Machine::new().check_rule(RuleId::FreedPoolTouched, false);
    assert!(search(lenient).replay(token, freed_too_early).is_ok());
}
