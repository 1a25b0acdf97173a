//! Hosted code that touches what is not there, on the host where that is caught.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use ksim::{BugCheck, Machine, Outcome, explore};
use ksync_sys::*;
use std::arch::asm;
use std::cell::Cell;
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use test_support::*;

const ACCESS_VIOLATION: u64 = 0xc000_0005;

/// Within the first page, which no process has.
const LOW: usize = 0x10;

/// Writes without the checks that debug builds have of their own.
#[inline(never)]
fn write(address: usize) {
    // SAFETY: it is not: that is what is tested.
    unsafe { asm!("mov dword ptr [{}], 1", in(reg) address) }
}

#[inline(never)]
fn read(address: usize) -> u32 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("mov {:e}, dword ptr [{}]", out(reg) value, in(reg) address) }
    value
}

/// A page that is taken away.
struct Gone(usize);

impl Gone {
    fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping touches nothing that exists.
        let memory = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        Self(memory.addr())
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's.
        unsafe { libc::munmap(self.0 as *mut _, 4096) };
    }
}

/// Checks how the run ended, and that the report has where.
#[track_caller]
fn stopped<'a>(outcome: &'a Outcome, code: u32, parameters: [Option<u64>; 4], function: &str) -> &'a BugCheck {
    let stop = outcome.bug_check().unwrap_or_else(|| panic!("no bug check: {outcome}"));
    assert_eq!(stop.code, code, "{outcome}");
    for (found, wanted) in stop.parameters.iter().zip(parameters) {
        assert!(wanted.is_none_or(|wanted| wanted == *found), "{parameters:x?} expected: {outcome}");
    }
    let site = stop.call_sites.iter().find(|site| site.function.contains(function));
    let site = site.unwrap_or_else(|| panic!("{function} is not in {outcome}"));
    assert!(site.file.as_ref().is_some_and(|file| file.ends_with("access.rs")) && site.line.is_some(), "{outcome}");
    check_that_all_is_well();
    stop
}

/// The process is fit for another machine, and for all else.
fn check_that_all_is_well() {
    let outcome = Machine::new().processors(2).run(|| {
        let event = Event::synchronization();
        let threads: Vec<_> = (0..4).map(|_| spawn(|| _ = (event.set(), wait(event.object())))).collect();
        threads.into_iter().for_each(Thread::join);
    });
    outcome.expect_clean();
    std::thread::spawn(|| assert_eq!(black_box(vec![1; 10_000]).len(), 10_000)).join().expect("a thread of the host runs");
}

#[test]
fn a_null_pointer_is_an_exception_below_dispatch_level() {
    let outcome = Machine::new().run(|| write(black_box(0)));
    let stop = stopped(&outcome, 0x7e, [Some(ACCESS_VIOLATION), None, Some(0), Some(0)], "access::write");
    assert_ne!(stop.parameters[1], 0, "the instruction: {outcome}");
    assert!(stop.meaning.contains("STATUS_ACCESS_VIOLATION"), "{outcome}");
    assert!(stop.meaning.contains("hosted code wrote address 0x0"), "{outcome}");
    assert_eq!((stop.routine, stop.thread, stop.irql), (None, Some(2), 0), "{outcome}");
    let outcome = Machine::new().run(|| _ = read(black_box(LOW)));
    let stop = stopped(&outcome, 0x7e, [Some(ACCESS_VIOLATION), None, None, None], "access::read");
    assert!(stop.meaning.contains("hosted code read address 0x10"), "{outcome}");
}

#[test]
fn at_dispatch_level_it_is_a_bug_check() {
    let outcome = Machine::new().run(|| {
        let lock = SpinLock::new();
        lock.acquire();
        write(black_box(LOW));
    });
    let stop = stopped(&outcome, 0xd1, [Some(0x10), Some(2), Some(1), None], "access::write");
    assert!(!stop.in_dpc);
    let outcome = Machine::new().run(|| {
        unsafe extern "system-unwind" fn routine(_: *mut KDPC, _: PVOID, _: PVOID, _: PVOID) {
            black_box(read(black_box(LOW)));
        }
        let dpc: Place<KDPC> = Place::zeroed();
        raw!(KeInitializeDpc(dpc.ptr(), Some(routine), null_mut()));
        raw!(KeInsertQueueDpc(dpc.ptr(), null_mut(), null_mut()));
        sleep(SECOND);
    });
    assert!(stopped(&outcome, 0xd1, [Some(0x10), Some(2), Some(0), None], "access::read").in_dpc);
}

#[test]
fn addresses_of_the_kernels_half_and_of_neither() {
    let outcome = Machine::new().run(|| write(black_box(0xffff_8000_0000_1000)));
    stopped(&outcome, 0x50, [Some(0xffff_8000_0000_1000), Some(1), None, Some(0)], "access::write");
    let outcome = Machine::new().run(|| write(black_box(0x1234_5678_9abc_def0)));
    let stop = stopped(&outcome, 0x7e, [Some(ACCESS_VIOLATION), None, None, None], "access::write");
    assert!(stop.meaning.contains("0x123456789abcdef0, which belongs to neither half"), "{outcome}");
    // By way of rbp, where the processor has a vector of its own.
    #[inline(never)]
    fn by_frame() {
        // SAFETY: it is not: that is what is tested.
        unsafe {
            asm!(
                // Who walks the stack learns where the caller's is.
                ".cfi_remember_state",
                "mov {0}, rbp",
                ".cfi_register rbp, {0}",
                "mov rbp, {1}",
                "mov rbp, [rbp]",
                "mov rbp, {0}",
                ".cfi_restore_state",
                out(reg) _,
                in(reg) black_box(1_u64 << 60),
            )
        }
    }
    let outcome = Machine::new().run(by_frame);
    let stop = outcome.expect_bug_check(0x7e);
    assert!(stop.meaning.contains("0x1000000000000000, which belongs to neither half"), "{}", stop.meaning);
    check_that_all_is_well();
}

#[test]
fn a_page_that_is_not_there() {
    let gone = Gone::new();
    let address = gone.0 as u64;
    // A routine of the host's library, which the compiler calls.
    #[inline(never)]
    fn copy(from: usize) {
        let mut to = [0_u8; 1024];
        // SAFETY: it is not: that is what is tested.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), black_box(1024)) };
        black_box(to);
    }
    let outcome = Machine::new().run(|| copy(gone.0));
    let stop = stopped(&outcome, 0x7e, [Some(ACCESS_VIOLATION), None, None, None], "copy");
    assert!(stop.meaning.contains("hosted code read address"), "{outcome}");
    let outcome = Machine::new().run(|| at(DISPATCH_LEVEL, || write(gone.0 + 8)));
    stopped(&outcome, 0xd1, [Some(address + 8), Some(2), Some(1), None], "access::write");
}

#[test]
fn a_mapping_without_a_file_behind_it() {
    // SAFETY: the name is a string.
    let file = unsafe { libc::memfd_create(c"empty".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0);
    // SAFETY: a fresh mapping touches nothing that exists.
    let memory = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    let outcome = Machine::new().run(|| _ = read(memory.addr()));
    stopped(&outcome, 0x7e, [Some(ACCESS_VIOLATION), None, None, None], "access::read");
    // SAFETY: the mapping is this function's.
    unsafe { libc::munmap(memory, 4096) };
    // SAFETY: so is the descriptor.
    unsafe { libc::close(file) };
}

#[test]
fn a_jump_to_nowhere_is_its_callers() {
    #[inline(never)]
    fn call(address: usize) {
        // SAFETY: it is not: that is what is tested.
        let routine = unsafe { std::mem::transmute::<usize, extern "C" fn(usize)>(address) };
        routine(black_box(1));
        black_box(address);
    }
    for irql in [PASSIVE_LEVEL, DISPATCH_LEVEL] {
        let outcome = Machine::new().run(|| at(irql, || call(black_box(LOW))));
        let (code, parameters) = match irql {
            PASSIVE_LEVEL => (0x7e, [Some(ACCESS_VIOLATION), Some(LOW as u64), None, None]),
            _ => (0xd1, [Some(LOW as u64), Some(2), Some(8), Some(LOW as u64)]),
        };
        let stop = stopped(&outcome, code, parameters, "call");
        assert!(stop.meaning.contains("jumped to address 0x10"), "{outcome}");
    }
}

#[test]
fn other_threads_and_seeds() {
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).record_sites(true).record_trace(true).run(|| {
            let event = Event::notification();
            let waits = spawn(|| _ = wait(event.object()));
            let thread = spawn(|| write(black_box(LOW)));
            thread.join();
            event.set();
            waits.join();
        });
        let stop = stopped(&outcome, 0x7e, [Some(ACCESS_VIOLATION), None, Some(0), Some(0)], "access::write");
        assert_ne!(stop.thread, Some(2), "{outcome}");
    }
}

#[test]
fn a_search_finds_it_and_goes_on() {
    let runs = AtomicU32::new(0);
    let found = explore().processors(2).schedules(200).progress(false).check(|| {
        runs.fetch_add(1, Relaxed);
        let place: Cell<usize> = Cell::new(0);
        let value = Cell::new(7_u32);
        let event = Event::notification();
        let other = spawn(|| {
            event.set();
            raw!(KeReadStateEvent(event.ptr()));
            place.set((&raw const value).addr());
        });
        wait(event.object());
        // The other thread has mostly not come so far.
        if place.get() == 0 {
            write(black_box(place.get()));
        }
        other.join();
    });
    let failure = found.failure().expect("it is found");
    assert!(failure.to_string().contains("STATUS_ACCESS_VIOLATION"), "{failure}");
    assert!(runs.load(Relaxed) > 1, "it is run again to be made smaller");
    check_that_all_is_well();
}

#[test]
fn within_the_engine_it_is_its_callers() {
    #[inline(never)]
    fn acquire(address: usize) {
        // The function has something left to do, so that its frame is there.
        black_box(raw!(KeAcquireSpinLockRaiseToDpc(address as *mut _)));
    }
    let gone = Gone::new();
    for processors in [1, 2] {
        let outcome = Machine::new().processors(processors).run(|| acquire(gone.0));
        let stop = stopped(&outcome, 0xa, [Some(gone.0 as u64), Some(2), Some(0), None], "acquire");
        assert!(stop.meaning.contains("KeAcquireSpinLockRaiseToDpc was passed a bad pointer: it read address"), "{outcome}");
    }
    // A search goes on, and makes it smaller.
    let found = explore().processors(2).schedules(100).progress(false).check(|| {
        let thread = spawn(|| acquire(gone.0));
        thread.join();
    });
    assert!(found.failure().expect("it is found").to_string().contains("KeAcquireSpinLockRaiseToDpc was passed a bad pointer"));
}

#[test]
fn in_a_panic_it_ends_the_process() {
    let Some((message, signal)) = alone("in_a_panic_it_ends_the_process") else {
        struct Writes;
        impl Drop for Writes {
            fn drop(&mut self) {
                write(black_box(LOW));
            }
        }
        let outcome = Machine::new().run(|| {
            let _writes = Writes;
            panic!("on purpose");
        });
        panic!("it goes on: {outcome}");
    };
    assert_eq!(signal, Some(libc::SIGABRT), "{message}");
    assert!(message.contains("touched an address where nothing is"), "{message}");
}

#[test]
fn in_an_allocation_it_ends_the_process() {
    let Some((message, signal)) = alone("in_an_allocation_it_ends_the_process") else {
        // What the host's allocator makes of a block that it never gave.
        let gone = Gone::new();
        let layout = std::alloc::Layout::new::<u64>();
        // SAFETY: it is not: that is what is tested.
        let outcome = Machine::new().run(|| unsafe { std::alloc::dealloc((gone.0 + 64) as *mut u8, layout) });
        panic!("it goes on: {outcome}");
    };
    assert_eq!(signal, Some(libc::SIGABRT), "{message}");
    assert!(message.contains("such as an allocation") && message.contains("touched"), "{message}");
}

#[test]
fn outside_a_machine_it_is_the_hosts() {
    let Some((message, signal)) = alone("outside_a_machine_it_is_the_hosts") else {
        check_that_all_is_well();
        write(black_box(LOW));
        panic!("it goes on");
    };
    assert_eq!(signal, Some(libc::SIGSEGV), "{message}");
    assert!(!message.contains("ksim:"), "{message}");
}

#[test]
fn a_bad_argument_is_not_the_engines() {
    let gone = Gone::new();
    let outcome = Machine::new().run(|| {
        let event = Event::notification();
        raw!(KeWaitForSingleObject(event.object(), Executive, KernelMode as _, FALSE, gone.0 as *const _));
    });
    let report = outcome.to_string();
    let stop = outcome.bug_check().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(stop.code, 0x7e, "{report}");
}
