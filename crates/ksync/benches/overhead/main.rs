//! What the library adds to NT's routines, in instructions: `cargo xtask bench overhead`.
//!
//! Callgrind counts what runs inside [`overhead_region`], one call at a time, and writes each call's counts when the region is left; this program prints what the calls were, in order.
//! Raw calls and the library run on one machine of one processor and one thread, so nothing switches, and without a trace. Run by itself, it checks that nothing allocates.

mod library;
mod raw;

use std::cell::Cell;

use ksim::Machine;
use ksync::event::{Event, EventProperty};
use ksync::irql::{self, Irql};
use ksync::lookaside::Lookaside;
use ksync::mutex::{
    FastLocked, GuardLocked, InStackQueueLocked, KMutex, PinnedFastLocked, PinnedGuardLocked, PinnedInStackQueueLocked,
    PinnedKMutex, PinnedPushLocked, PinnedResourceLocked, PinnedSpinLocked, PinnedSpinRwLocked, PushLocked, ResourceLocked,
    SpinLocked, SpinRwLocked,
};
use ksync::semaphore::Semaphore;
use ksync_sys as sys;

use crate::raw::Raw;

/// NT's objects.
struct RawSubjects {
    fast: Box<Raw<sys::FAST_MUTEX>>,
    guarded: Box<Raw<sys::KGUARDED_MUTEX>>,
    spin: Box<Raw<sys::KSPIN_LOCK>>,
    spin_dpc: Box<Raw<sys::KSPIN_LOCK>>,
    queued: Box<Raw<sys::KSPIN_LOCK>>,
    push: Box<Raw<sys::EX_PUSH_LOCK>>,
    resource: Box<Raw<sys::ERESOURCE>>,
    spin_rw: Box<Raw<sys::EX_SPIN_LOCK>>,
    kmutex: Box<Raw<sys::KMUTEX>>,
    event: Box<Raw<sys::KEVENT>>,
    semaphore: Box<Raw<sys::KSEMAPHORE>>,
    lookaside: Box<Raw<sys::LOOKASIDE_LIST_EX>>,
}

impl RawSubjects {
    fn new() -> Self {
        Self {
            // SAFETY: the memory is valid for the object and does not move.
            fast: Raw::new(|lock| unsafe { sys::ExInitializeFastMutex(lock) }),
            // SAFETY: as above.
            guarded: Raw::new(|lock| unsafe { sys::KeInitializeGuardedMutex(lock) }),
            spin: Raw::new(|_| ()),
            spin_dpc: Raw::new(|_| ()),
            queued: Raw::new(|_| ()),
            push: Raw::new(|_| ()),
            resource: Raw::new(|lock| {
                // SAFETY: as above.
                assert_eq!(unsafe { sys::ExInitializeResourceLite(lock) }, 0);
            }),
            spin_rw: Raw::new(|_| ()),
            // SAFETY: as above.
            kmutex: Raw::new(|lock| unsafe { sys::KeInitializeMutex(lock, 0) }),
            // SAFETY: as above.
            event: Raw::new(|lock| unsafe { sys::KeInitializeEvent(lock, sys::NotificationEvent, 1) }),
            // SAFETY: as above.
            semaphore: Raw::new(|lock| unsafe { sys::KeInitializeSemaphore(lock, 0, 10) }),
            lookaside: Raw::new(|lock| {
                let size = size_of::<[u64; 8]>();
                // SAFETY: as above.
                let status =
                    unsafe { sys::ExInitializeLookasideListEx(lock, None, None, sys::NonPagedPoolNx, 0, size, raw::TAG, 0) };
                assert_eq!(status, 0);
            }),
        }
    }
}

impl Drop for RawSubjects {
    fn drop(&mut self) {
        // SAFETY: the resource is initialised and free.
        unsafe { sys::ExDeleteResourceLite(self.resource.lock()) };
        // SAFETY: the list is initialised, and all entries are back.
        unsafe { sys::ExDeleteLookasideListEx(self.lookaside.lock()) };
    }
}

/// All objects, each behind one pointer, NT's like the library's.
struct Subjects<'a> {
    raw: RawSubjects,
    fast: &'a PinnedFastLocked<u32>,
    guarded: &'a PinnedGuardLocked<u32>,
    spin: &'a PinnedSpinLocked<u32>,
    spin_dpc: &'a PinnedSpinLocked<u32>,
    queued: &'a PinnedInStackQueueLocked<u32>,
    push: &'a PinnedPushLocked<u32>,
    resource: &'a PinnedResourceLocked<u32>,
    spin_rw: &'a PinnedSpinRwLocked<u32>,
    kmutex: &'a PinnedKMutex<u32>,
    event: &'a Event,
    semaphore: &'a Semaphore,
    lookaside: &'a Lookaside<[u64; 8]>,
    seen: Cell<u32>,
}

/// Makes the objects and runs something with them.
fn with_subjects(run: impl FnOnce(&Subjects<'_>)) {
    const MADE: &str = "the machine has memory";
    run(&Subjects {
        raw: RawSubjects::new(),
        fast: &FastLocked::new(0).expect(MADE),
        guarded: &GuardLocked::new(0).expect(MADE),
        spin: &SpinLocked::const_new(0),
        spin_dpc: &SpinLocked::const_new(0),
        queued: &InStackQueueLocked::const_new(0),
        push: &PushLocked::const_new(0),
        resource: &ResourceLocked::new(0).expect(MADE),
        spin_rw: &SpinRwLocked::const_new(0),
        kmutex: &KMutex::new(0).expect(MADE),
        event: &Event::new(EventProperty::Notification, true).expect(MADE),
        semaphore: &Semaphore::new(0, 10).expect(MADE),
        lookaside: &Lookaside::new().expect(MADE),
        seen: Cell::new(0),
    });
}

/// What can be measured.
type Operation = fn(&Subjects<'_>);

/// One line of the table.
struct Row {
    /// The operation and, behind the last point, the tier.
    name: &'static str,
    /// The same without the library.
    raw: Operation,
    /// Through the library.
    library: Operation,
    /// The level at which both run.
    level: Irql,
    /// Whether it is meant to allocate.
    allocates: bool,
}

const fn row(name: &'static str, raw: Operation, library: Operation) -> Row {
    Row { name, raw, library, level: Irql::PASSIVE, allocates: false }
}

/// All lines. A name ends with the tier: `pair` with the level checked, `with` the closure of that tier, `at` and `with_at` with a token.
const ROWS: &[Row] = &[
    row("fast.pair", raw::fast, library::fast),
    row("fast.try", raw::fast_try, library::fast_try),
    row("fast.with", raw::fast, library::fast_with),
    row("fast.at", raw::fast, library::fast_at),
    row("fast.with_at", raw::fast, library::fast_with_at),
    row("guarded.pair", raw::guarded, library::guarded),
    row("guarded.with", raw::guarded, library::guarded_with),
    row("guarded.at", raw::guarded, library::guarded_at),
    row("guarded.with_at", raw::guarded, library::guarded_with_at),
    row("spin.pair", raw::spin, library::spin),
    row("spin.try", raw::spin_try, library::spin_try),
    row("spin.with", raw::spin, library::spin_with),
    row("spin.at", raw::spin, library::spin_at),
    row("spin.with_at", raw::spin, library::spin_with_at),
    Row { level: Irql::DISPATCH, ..row("spin.dpc.pair", raw::spin_at_dpc, library::spin_lock_at_dpc_level) },
    Row { level: Irql::DISPATCH, ..row("spin.dpc.at", raw::spin_at_dpc, library::spin_at_dispatch) },
    row("queued.pair", raw::queued, library::queued),
    row("queued.with", raw::queued, library::queued_with),
    row("queued.with_at", raw::queued, library::queued_with_at),
    row("push.pair", raw::push, library::push),
    row("push.try", raw::push_try, library::push_try),
    row("push.with", raw::push, library::push_with),
    row("push.at", raw::push, library::push_at),
    row("push.with_at", raw::push, library::push_with_at),
    row("push.shared.pair", raw::push_shared, library::push_shared),
    row("push.shared.with", raw::push_shared, library::push_with_shared),
    row("resource.pair", raw::resource, library::resource),
    row("resource.try", raw::resource_try, library::resource_try),
    row("resource.with", raw::resource, library::resource_with),
    row("resource.shared.pair", raw::resource_shared, library::resource_shared),
    row("resource.shared.with", raw::resource_shared, library::resource_with_shared),
    row("spin_rw.pair", raw::spin_rw, library::spin_rw),
    row("spin_rw.with", raw::spin_rw, library::spin_rw_with),
    row("spin_rw.at", raw::spin_rw, library::spin_rw_at),
    row("spin_rw.with_at", raw::spin_rw, library::spin_rw_with_at),
    row("spin_rw.shared.pair", raw::spin_rw_shared, library::spin_rw_shared),
    row("spin_rw.shared.with", raw::spin_rw_shared, library::spin_rw_with_shared),
    row("kmutex.pair", raw::kmutex, library::kmutex),
    row("kmutex.with", raw::kmutex, library::kmutex_with),
    row("event.set", raw::event_set, library::event_set),
    row("event.wait", raw::event_wait, library::event_wait),
    row("semaphore.pair", raw::semaphore_release_wait, library::semaphore_release_wait),
    Row { allocates: true, ..row("box.pair", raw::pool, library::pool) },
    row("lookaside.pair", raw::lookaside, library::lookaside),
];

/// How often an operation runs before it is counted: first uses fill the hosted kernel's tables.
const WARM_UP: usize = 3;

/// What callgrind counts: one call.
#[inline(never)]
#[unsafe(no_mangle)]
fn overhead_region(operation: Operation, subjects: &Subjects<'_>) {
    operation(subjects);
}

fn machine() -> Machine {
    Machine::new().processors(1).record_trace(false).step_limit(u64::MAX)
}

fn at_level(level: Irql, run: impl FnOnce()) {
    irql::with_raised(level, run).expect("the level is below");
}

/// Runs every row once where it is counted, and says which it is.
fn measure() {
    let outcome = machine().run(|| {
        with_subjects(|subjects| {
            for row in ROWS {
                for (side, operation) in [("raw", row.raw), ("library", row.library)] {
                    // Callgrind counts calls, though not their instructions, from one stretch to the next. So there are none in between.
                    at_level(row.level, || (0..=WARM_UP).for_each(|_| overhead_region(operation, subjects)));
                    (0..WARM_UP).for_each(|_| println!("counted {} warm-up", row.name));
                    println!("counted {} {side}", row.name);
                }
            }
        });
    });
    outcome.expect_clean();
}

/// Pool allocations of a run in which each operation that should not allocate runs so often.
fn allocations(times: usize) -> u64 {
    let outcome = machine().run(|| {
        with_subjects(|subjects| {
            for row in ROWS.iter().filter(|row| !row.allocates) {
                at_level(row.level, || (0..times).for_each(|_| (row.library)(subjects)));
            }
        });
    });
    outcome.expect_clean().statistics().allocations
}

static SPIN: SpinLocked<u32> = SpinLocked::const_new(0);
static SPIN_RW: SpinRwLocked<u32> = SpinRwLocked::const_new(0);
static QUEUED: InStackQueueLocked<u32> = InStackQueueLocked::const_new(0);
static PUSH: PushLocked<u32> = PushLocked::const_new(0);

/// Pool allocations of a run that uses static locks.
fn static_allocations() -> u64 {
    let outcome = machine().run(|| {
        SPIN.with(|data| *data += 1).expect("the level is low");
        SPIN_RW.with(|data| *data += 1).expect("the level is low");
        QUEUED.with(|data| *data += 1).expect("the level is low");
        PUSH.with(|data| *data += 1).expect("the level is low");
    });
    outcome.expect_clean().statistics().allocations
}

fn main() {
    for export in ksim::exports() {
        println!("export {}", export.name);
    }
    measure();
    // A list's first entry comes from the pool; the others are the one that was given back.
    let after_construction = allocations(101) - allocations(1);
    println!("RESULT overhead.allocations.after_construction {after_construction} allocations");
    let statics = static_allocations() - machine().run(|| ()).expect_clean().statistics().allocations;
    println!("RESULT overhead.allocations.static {statics} allocations");
    assert_eq!((after_construction, statics), (0, 0), "a lock allocates when it is used");
}
