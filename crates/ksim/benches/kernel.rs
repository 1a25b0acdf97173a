//! What the hosted kernel costs: `cargo bench -p ksim`.
//!
//! Criterion prints its table for people; behind it comes one line a figure for machines: `RESULT name value unit`.

use corosensei::{Coroutine, CoroutineResult};
use criterion::{BenchmarkId, Criterion, Throughput};
use ksim::Machine;
use ksync_sys::{
    KDPC, KEVENT, KSPIN_LOCK, KTIMER, KeAcquireSpinLockRaiseToDpc, KeGetCurrentThread, KeInitializeDpc, KeInitializeEvent,
    KeInitializeTimerEx, KeReleaseSpinLock, KeSetEvent, KeSetPriorityThread, KeSetTimer, KeWaitForSingleObject,
    NotificationTimer, ObReferenceObjectByHandle, ObfDereferenceObject, PVOID, PsCreateSystemThread, SynchronizationEvent,
    ZwClose,
};
use std::cell::Cell;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

/// Every figure that is printed for machines.
const RESULTS: [&str; 11] = [
    "call.no_switch",
    "call.spin_pair",
    "switch.wait",
    "switch.coroutine_pair",
    "run.boot_to_end",
    "threads.10.per_event",
    "threads.1000.per_event",
    "threads.10000.per_event",
    "timers.100.per_event",
    "timers.10000.per_event",
    "timers.100000.per_event",
];

/// A machine as a search runs it: all checks on, no trace.
fn machine() -> Machine {
    Machine::new().record_trace(false).step_limit(u64::MAX)
}

/// Runs driver code that measures itself.
fn measure(code: impl FnOnce() -> Duration) -> Duration {
    let mut measured = Duration::ZERO;
    let outcome = machine().run(|| measured = code());
    outcome.expect_clean();
    measured
}

/// An event on the heap, where it does not move.
fn event() -> Box<MaybeUninit<KEVENT>> {
    let mut event = Box::new(MaybeUninit::uninit());
    // SAFETY: the box is memory for a KEVENT.
    unsafe { KeInitializeEvent(event.as_mut_ptr(), SynchronizationEvent, 0) };
    event
}

/// Starts a thread. Returns its object, referenced.
fn start(routine: unsafe extern "system-unwind" fn(PVOID), context: PVOID) -> PVOID {
    let mut handle = null_mut();
    // SAFETY: the routines of this file take the contexts that they are started with.
    let status = unsafe { PsCreateSystemThread(&mut handle, 0, null_mut(), null_mut(), null_mut(), Some(routine), context) };
    assert_eq!(status, 0);
    let mut object = null_mut();
    // SAFETY: the handle is open.
    assert_eq!(unsafe { ObReferenceObjectByHandle(handle, 0, null_mut(), 0, &mut object, null_mut()) }, 0);
    // SAFETY: as above.
    unsafe { ZwClose(handle) };
    object
}

/// Waits until a thread has ended, and drops the reference to it.
fn join(object: PVOID) {
    wait(object);
    // SAFETY: `start` took the reference.
    unsafe { ObfDereferenceObject(object) };
}

fn wait(object: PVOID) {
    // SAFETY: the callers pass initialised dispatcher objects.
    unsafe { KeWaitForSingleObject(object, 0, 0, 0, null()) };
}

fn set(event: *mut KEVENT) {
    // SAFETY: the callers pass initialised events.
    unsafe { KeSetEvent(event, 0, 0) };
}

/// KeSetEvent without a waiter: a call that does not switch.
fn no_switch(iterations: u64) -> Duration {
    measure(|| {
        let mut event = event();
        let event = event.as_mut_ptr();
        let begin = Instant::now();
        for _ in 0..iterations {
            set(black_box(event));
        }
        begin.elapsed()
    })
}

/// An uncontended acquisition and release of a spin lock: two calls.
fn spin_pair(iterations: u64) -> Duration {
    measure(|| {
        let mut lock: KSPIN_LOCK = 0;
        let lock = &raw mut lock;
        let begin = Instant::now();
        for _ in 0..iterations {
            // SAFETY: the lock outlives the loop.
            let old = unsafe { KeAcquireSpinLockRaiseToDpc(black_box(lock)) };
            // SAFETY: it was acquired just now.
            unsafe { KeReleaseSpinLock(lock, old) };
        }
        begin.elapsed()
    })
}

struct PingPong {
    event: *mut KEVENT,
    rounds: u64,
}

unsafe extern "system-unwind" fn high_priority_waiter(context: PVOID) {
    // SAFETY: the context is a PingPong that outlives the thread.
    let shared = unsafe { &*context.cast::<PingPong>() };
    // SAFETY: it may be called anywhere.
    let thread = unsafe { KeGetCurrentThread() };
    // SAFETY: the thread is the current one.
    unsafe { KeSetPriorityThread(thread, 12) };
    for _ in 0..shared.rounds {
        wait(shared.event.cast());
    }
}

/// A thread of higher priority waits, is woken, which switches to it at once, and waits again, which switches back: each call
/// of the loop is one switch.
fn switch_through_wait(iterations: u64) -> Duration {
    let rounds = iterations.div_ceil(2);
    measure(|| {
        let mut event = event();
        let shared = PingPong { event: event.as_mut_ptr(), rounds };
        let thread = start(high_priority_waiter, (&raw const shared).cast_mut().cast());
        // Lets the other thread reach its wait.
        let short = -1;
        // SAFETY: the interval is valid.
        unsafe { ksync_sys::KeDelayExecutionThread(0, 0, &short) };
        let begin = Instant::now();
        for _ in 0..rounds {
            set(shared.event);
        }
        let elapsed = begin.elapsed();
        join(thread);
        elapsed
    })
}

/// What a switch is made of: one resumption and one suspension, in turn over two coroutines.
fn coroutine_pair(iterations: u64) -> Duration {
    let body = |yielder: &corosensei::Yielder<(), ()>, ()| {
        loop {
            yielder.suspend(());
        }
    };
    let mut coroutines: Vec<Coroutine<(), (), ()>> = (0..2).map(|_| Coroutine::new(body)).collect();
    let begin = Instant::now();
    for index in 0..iterations {
        let resumed = coroutines[(index & 1) as usize].resume(());
        assert_eq!(resumed, CoroutineResult::Yield(()));
    }
    let elapsed = begin.elapsed();
    for coroutine in &mut coroutines {
        // SAFETY: the stack holds nothing that needs to be dropped.
        unsafe { coroutine.force_reset() };
    }
    elapsed
}

struct RingMember {
    mine: *mut KEVENT,
    next: *mut KEVENT,
    rounds: u64,
}

unsafe extern "system-unwind" fn ring_member(context: PVOID) {
    // SAFETY: the context is a RingMember that outlives the thread.
    let member = unsafe { &*context.cast::<RingMember>() };
    for _ in 0..member.rounds {
        wait(member.mine.cast());
        set(member.next);
    }
}

/// Rounds of a token in a ring of threads.
const RING_ROUNDS: u64 = 20;

/// Threads in a ring pass a token on: from the start of the threads to their end, by event.
fn thread_ring(threads: usize) -> Duration {
    measure(|| {
        let mut events: Vec<_> = (0..threads).map(|_| event()).collect();
        let events: Vec<*mut KEVENT> = events.iter_mut().map(|event| event.as_mut_ptr()).collect();
        let members: Vec<RingMember> = (0..threads)
            .map(|index| RingMember { mine: events[index], next: events[(index + 1) % threads], rounds: RING_ROUNDS })
            .collect();
        let begin = Instant::now();
        let objects: Vec<PVOID> =
            members.iter().map(|member| start(ring_member, (&raw const *member).cast_mut().cast())).collect();
        set(events[0]);
        for object in objects {
            join(object);
        }
        begin.elapsed()
    })
}

unsafe extern "system-unwind" fn count_expiry(_: *mut KDPC, context: PVOID, _: PVOID, _: PVOID) {
    // SAFETY: the context is a Cell that outlives the DPC.
    let count = unsafe { &*context.cast::<Cell<usize>>() };
    count.set(count.get() + 1);
}

/// Timers with a DPC each, due at different times in mixed order: from the first KeSetTimer to the last expiry, by timer.
fn timers(count: usize) -> Duration {
    measure(|| {
        let expired = Cell::new(0_usize);
        let mut timers: Vec<MaybeUninit<KTIMER>> = (0..count).map(|_| MaybeUninit::uninit()).collect();
        let mut dpcs: Vec<MaybeUninit<KDPC>> = (0..count).map(|_| MaybeUninit::uninit()).collect();
        for (timer, dpc) in timers.iter_mut().zip(&mut dpcs) {
            // SAFETY: the vectors are memory for timers and DPCs, and do not move from here on.
            unsafe { KeInitializeTimerEx(timer.as_mut_ptr(), NotificationTimer) };
            // SAFETY: as above; the count outlives the DPC.
            unsafe { KeInitializeDpc(dpc.as_mut_ptr(), Some(count_expiry), (&raw const expired).cast_mut().cast()) };
        }
        let begin = Instant::now();
        for (index, (timer, dpc)) in timers.iter_mut().zip(&mut dpcs).enumerate() {
            let due = -10_000 - (index as i64).wrapping_mul(0x9e37_79b1) % 1_000_003;
            // SAFETY: both are initialised.
            unsafe { KeSetTimer(timer.as_mut_ptr(), due, dpc.as_mut_ptr()) };
        }
        let long = -10_000_000;
        // SAFETY: the interval is valid.
        unsafe { ksync_sys::KeDelayExecutionThread(0, 0, &long) };
        let elapsed = begin.elapsed();
        assert_eq!(expired.get(), count);
        elapsed
    })
}

/// The time of `iterations` events, out of runs of `per_run` events each.
fn per_event(iterations: u64, per_run: u64, run: impl Fn() -> Duration) -> Duration {
    let runs = iterations.div_ceil(per_run).max(1);
    let total: Duration = (0..runs).map(|_| run()).sum();
    Duration::from_secs_f64(total.as_secs_f64() * iterations as f64 / (runs * per_run) as f64)
}

fn benches(criterion: &mut Criterion) {
    criterion.bench_function("call.no_switch", |b| b.iter_custom(no_switch));
    criterion.bench_function("call.spin_pair", |b| b.iter_custom(spin_pair));
    criterion.bench_function("switch.wait", |b| b.iter_custom(switch_through_wait));
    criterion.bench_function("switch.coroutine_pair", |b| b.iter_custom(coroutine_pair));
    criterion.bench_function("run.boot_to_end", |b| b.iter(|| machine().run(|| {}).expect_clean()));
    for threads in [10_usize, 1_000, 10_000] {
        let mut group = criterion.benchmark_group("threads");
        group.sample_size(10).throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(threads), |b| {
            b.iter_custom(|iterations| per_event(iterations, threads as u64 * RING_ROUNDS, || thread_ring(threads)));
        });
    }
    for count in [100_usize, 10_000, 100_000] {
        let mut group = criterion.benchmark_group("timers");
        group.sample_size(10).throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter_custom(|iterations| per_event(iterations, count as u64, || timers(count)));
        });
    }
}

/// Prints the figures that criterion stored.
fn print_results(home: &Path) {
    for name in RESULTS {
        let folder = name.trim_end_matches(".per_event").replacen("threads.", "threads/", 1).replacen("timers.", "timers/", 1);
        let file = home.join(folder).join("new").join("estimates.json");
        let Ok(text) = std::fs::read_to_string(&file) else {
            // A filter on the command line leaves benches out.
            continue;
        };
        let estimates: serde_json::Value = serde_json::from_str(&text).expect("criterion writes JSON");
        let value = estimates["median"]["point_estimate"].as_f64().expect("criterion writes a median");
        println!("RESULT {name} {value:.2} ns");
    }
}

fn main() {
    // Results of earlier runs must not pass for this one's.
    let home =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new("../../target").to_owned(), Into::into).join("criterion");
    let _ = std::fs::remove_dir_all(&home);
    let mut criterion = Criterion::default()
        .output_directory(&home)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
    print_results(&home);
}
