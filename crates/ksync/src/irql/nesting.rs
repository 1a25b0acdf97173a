//! Guards that hold a processor at `DISPATCH_LEVEL` and are dropped in any order.
//!
//! The first guard raises the level, and those made inside find it raised. If the first is dropped first, the level has to stay until the last is gone: a thread that
//! holds a spin lock below `DISPATCH_LEVEL` can be preempted by one that spins on it, for ever. So the guards made inside count themselves in a table, under the thread that
//! runs, and a first guard that finds some there leaves it to the last of them to return to the level before.
//!
//! While a thread has guards in the table it is at `DISPATCH_LEVEL`, so that it stays on its processor and nothing else runs there: an entry is used by one processor at a time. What runs in
//! a DPC counts under the thread that was interrupted, which has no entry then.
//!
//! Several threads share a bucket of the table, which has slots for four at a time. A guard that finds all of them taken goes without; then dropping the first guard before it does lower the
//! level.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

use ksync_sys as sys;

use super::{Irql, raise_again, restore};

/// How many buckets there are, as a power of two.
const BITS: u32 = 6;
/// How many slots a bucket has.
const WAYS: usize = 4;
/// In [`Slot::restore`]: the first guard has not been dropped.
const NOT_YET: u8 = u8::MAX;

/// The buckets. Their slots are told apart by the addresses of threads, which in a hosted process are those of one machine each.
static TABLE: [Bucket; 1 << BITS] = [const { Bucket::new() }; 1 << BITS];

/// The slots of some threads, on one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    /// The threads, or null where a slot is free.
    threads: [AtomicPtr<sys::KTHREAD>; WAYS],
    /// What is counted under them.
    slots: [Slot; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is one cache line");

/// The guards that one thread has made inside its first.
#[derive(Debug)]
struct Slot {
    /// How many guards there are.
    count: AtomicU32,
    /// The level that the last of them returns to, if the first is gone.
    restore: AtomicU8,
}

/// What an acquisition did to the level, which its release undoes.
#[derive(Clone, Copy, Debug)]
pub enum Raised {
    /// It raised the level and took the lock in one call.
    Together(First),
    /// It raised the level in a call of its own.
    Apart(First),
    /// Nothing, the level was `DISPATCH_LEVEL`; and it is counted.
    Inside(Inside),
    /// Nothing, and it is not counted.
    Not,
}

/// A guard made inside another, and counted.
#[derive(Clone, Copy, Debug)]
pub struct Inside {
    thread: *mut sys::KTHREAD,
}

/// A guard that raised the level.
#[derive(Clone, Copy, Debug)]
pub struct First {
    old: Irql,
    thread: *mut sys::KTHREAD,
}

impl Bucket {
    const fn new() -> Self {
        Self {
            threads: [const { AtomicPtr::new(ptr::null_mut()) }; WAYS],
            slots: [const { Slot { count: AtomicU32::new(0), restore: AtomicU8::new(NOT_YET) } }; WAYS],
        }
    }

    /// The bucket of a thread.
    #[inline]
    fn of(thread: *mut sys::KTHREAD) -> &'static Self {
        // CAST: the address is only mixed. Fibonacci hashing: the upper bits of the product depend on all bits of the address.
        let mixed = (thread.addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // CAST: below the number of buckets.
        &TABLE[(mixed >> (64 - BITS)) as usize]
    }

    /// The slot of a thread, if it has one, with the place where its name is.
    #[inline]
    fn find(&self, thread: *mut sys::KTHREAD) -> Option<(&AtomicPtr<sys::KTHREAD>, &Slot)> {
        // A null thread is none: a hosted processor that was idle has no thread when its DPCs run. (NT has an idle thread there.)
        if thread.is_null() {
            return None;
        }
        self.threads.iter().zip(&self.slots).find(|(name, _)| name.load(Ordering::Relaxed) == thread)
    }

    /// Takes a free slot for a thread.
    #[inline]
    fn take(&self, thread: *mut sys::KTHREAD) -> Option<&Slot> {
        if thread.is_null() {
            return None;
        }
        let free = |name: &AtomicPtr<sys::KTHREAD>| {
            name.load(Ordering::Relaxed).is_null()
                && name.compare_exchange(ptr::null_mut(), thread, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        self.threads.iter().zip(&self.slots).find(|(name, _)| free(name)).map(|(_, slot)| slot)
    }
}

impl Inside {
    /// Counts the guard out. Returns the level to return to, if it was the last and the first is gone.
    #[inline]
    fn leave(self) -> Option<Irql> {
        // If there is none, someone lowered the level under the guard, by a raw call or a token, and the thread has begun anew since: see `First::new`.
        let (name, slot) = Bucket::of(self.thread).find(self.thread)?;
        let count = slot.count.load(Ordering::Relaxed).saturating_sub(1);
        slot.count.store(count, Ordering::Relaxed);
        if count > 0 {
            return None;
        }
        let restore = slot.restore.load(Ordering::Relaxed);
        name.store(ptr::null_mut(), Ordering::Release);
        (restore != NOT_YET).then_some(Irql::new(restore))
    }
}

impl First {
    /// A guard of a thread that has just raised the level from one below `DISPATCH_LEVEL`.
    #[inline]
    pub(crate) fn new(old: Irql, thread: *mut sys::KTHREAD) -> Self {
        if let Some((name, _)) = Bucket::of(thread).find(thread) {
            // Below `DISPATCH_LEVEL` a thread has no guards, so these were forgotten, by it or by one whose address it has.
            name.store(ptr::null_mut(), Ordering::Release);
        }
        Self { old, thread }
    }

    /// Leaves it to a guard made inside to return to the level before, if there is one. Returns whether there is.
    #[inline]
    fn hand_over(self) -> bool {
        let Some((_, slot)) = Bucket::of(self.thread).find(self.thread) else { return false };
        slot.restore.store(self.old.get(), Ordering::Relaxed);
        true
    }
}

impl Raised {
    /// A guard of a thread that was at `DISPATCH_LEVEL` already.
    #[inline]
    pub(crate) fn inside(thread: *mut sys::KTHREAD) -> Self {
        let bucket = Bucket::of(thread);
        if let Some((_, slot)) = bucket.find(thread) {
            slot.count.store(slot.count.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        } else if let Some(slot) = bucket.take(thread) {
            slot.count.store(1, Ordering::Relaxed);
            slot.restore.store(NOT_YET, Ordering::Relaxed);
        } else {
            return Self::Not;
        }
        Self::Inside(Inside { thread })
    }

    /// Releases what was acquired, by a routine that returns to a level or by one that leaves the level at `DISPATCH_LEVEL`.
    #[inline]
    pub(crate) fn release(self, restoring: impl FnOnce(u8), leaving: impl FnOnce()) {
        match self {
            // Nothing lowers the level before the guard that raised it is gone and those inside are.
            Self::Together(first) => {
                if first.hand_over() {
                    leaving();
                } else {
                    restoring(first.old.get());
                }
            }
            Self::Apart(first) => {
                leaving();
                if !first.hand_over() {
                    restore(Irql::DISPATCH, first.old);
                }
            }
            Self::Inside(inside) => {
                {
                    // A guard by a token does not look at the table.
                    let _raised = raise_again(Irql::DISPATCH);
                    leaving();
                }
                if let Some(old) = inside.leave() {
                    restore(Irql::DISPATCH, old);
                }
            }
            Self::Not => {
                let _raised = raise_again(Irql::DISPATCH);
                leaving();
            }
        }
    }
}
