//! What is measured: NT's routines as C calls them.
//!
//! Each function writes a number of its own to the data, so that the compiler does not make one function of two that are alike.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

use ksync_sys as sys;

use crate::Subjects;

/// An NT lock and the data that it guards, as a driver in C has them.
pub(crate) struct Raw<L> {
    lock: UnsafeCell<MaybeUninit<L>>,
    data: UnsafeCell<u32>,
}

impl<L> Raw<L> {
    /// Makes a lock on the heap, where it does not move, and has it initialised.
    pub(crate) fn new(initialise: impl FnOnce(*mut L)) -> Box<Self> {
        let lock = Box::new(Self { lock: UnsafeCell::new(MaybeUninit::zeroed()), data: UnsafeCell::new(0) });
        initialise(lock.lock());
        lock
    }

    pub(crate) fn lock(&self) -> *mut L {
        self.lock.get().cast()
    }

    /// Writes to the data.
    fn write(&self, value: u32) {
        // SAFETY: the callers hold the lock, and the machine has one thread.
        unsafe { *self.data.get() = value };
    }

    /// Reads the data.
    fn read(&self) -> u32 {
        // SAFETY: as above.
        unsafe { *self.data.get() }
    }
}

/// Functions to measure, none of which is inlined.
macro_rules! raw {
    ($($(#[$doc:meta])* fn $name:ident($subjects:ident) $body:block)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name($subjects: &Subjects<'_>) $body
    )*};
}

/// One call, of a routine that is safe to call here: the objects are initialised and outlive the calls, each release undoes the acquisition before it, and the level is
/// the row's.
macro_rules! nt {
    ($name:ident($($argument:expr),*)) => {
        // SAFETY: as above.
        unsafe { sys::$name($($argument),*) }
    };
}

raw! {
    fn fast(s) {
        let it = &*s.raw.fast;
        nt!(KeEnterGuardedRegion());
        nt!(ExAcquireFastMutexUnsafe(it.lock()));
        it.write(101);
        nt!(ExReleaseFastMutexUnsafe(it.lock()));
        nt!(KeLeaveGuardedRegion());
    }
    fn fast_try(s) {
        let it = &*s.raw.fast;
        nt!(KeEnterGuardedRegion());
        if nt!(ExTryToAcquireFastMutex(it.lock())) != 0 {
            nt!(KeLowerIrql(sys::PASSIVE_LEVEL));
            it.write(102);
            nt!(ExReleaseFastMutexUnsafe(it.lock()));
        }
        nt!(KeLeaveGuardedRegion());
    }
    fn guarded(s) {
        let it = &*s.raw.guarded;
        nt!(KeEnterGuardedRegion());
        nt!(KeAcquireGuardedMutexUnsafe(it.lock()));
        it.write(103);
        nt!(KeReleaseGuardedMutexUnsafe(it.lock()));
        nt!(KeLeaveGuardedRegion());
    }
    fn spin(s) {
        let it = &*s.raw.spin;
        let old = nt!(KeAcquireSpinLockRaiseToDpc(it.lock()));
        it.write(104);
        nt!(KeReleaseSpinLock(it.lock(), old));
    }
    fn spin_at_dpc(s) {
        let it = &*s.raw.spin_dpc;
        nt!(KeAcquireSpinLockAtDpcLevel(it.lock()));
        it.write(105);
        nt!(KeReleaseSpinLockFromDpcLevel(it.lock()));
    }
    fn spin_try(s) {
        let it = &*s.raw.spin;
        let old = nt!(KfRaiseIrql(sys::DISPATCH_LEVEL));
        if nt!(KeTryToAcquireSpinLockAtDpcLevel(it.lock())) != 0 {
            it.write(106);
            nt!(KeReleaseSpinLockFromDpcLevel(it.lock()));
        }
        nt!(KeLowerIrql(old));
    }
    fn queued(s) {
        let it = &*s.raw.queued;
        let mut handle = MaybeUninit::uninit();
        let handle = handle.as_mut_ptr();
        nt!(KeAcquireInStackQueuedSpinLock(it.lock(), handle));
        it.write(107);
        nt!(KeReleaseInStackQueuedSpinLock(handle));
    }
    fn push(s) {
        let it = &*s.raw.push;
        nt!(KeEnterCriticalRegion());
        nt!(ExAcquirePushLockExclusiveEx(it.lock(), 0));
        it.write(108);
        nt!(ExReleasePushLockExclusiveEx(it.lock(), 0));
        nt!(KeLeaveCriticalRegion());
    }
    fn push_shared(s) {
        let it = &*s.raw.push;
        nt!(KeEnterCriticalRegion());
        nt!(ExAcquirePushLockSharedEx(it.lock(), 0));
        s.seen.set(it.read() + 109);
        nt!(ExReleasePushLockSharedEx(it.lock(), 0));
        nt!(KeLeaveCriticalRegion());
    }
    fn push_try(s) {
        let it = &*s.raw.push;
        nt!(KeEnterCriticalRegion());
        if nt!(ExTryAcquirePushLockExclusiveEx(it.lock(), 0)) != 0 {
            it.write(110);
            nt!(ExReleasePushLockExclusiveEx(it.lock(), 0));
        }
        nt!(KeLeaveCriticalRegion());
    }
    fn resource(s) {
        let it = &*s.raw.resource;
        nt!(KeEnterCriticalRegion());
        nt!(ExAcquireResourceExclusiveLite(it.lock(), 1));
        it.write(111);
        nt!(ExReleaseResourceLite(it.lock()));
        nt!(KeLeaveCriticalRegion());
    }
    fn resource_shared(s) {
        let it = &*s.raw.resource;
        nt!(KeEnterCriticalRegion());
        nt!(ExAcquireResourceSharedLite(it.lock(), 1));
        s.seen.set(it.read() + 112);
        nt!(ExReleaseResourceLite(it.lock()));
        nt!(KeLeaveCriticalRegion());
    }
    fn resource_try(s) {
        let it = &*s.raw.resource;
        nt!(KeEnterCriticalRegion());
        if nt!(ExAcquireResourceExclusiveLite(it.lock(), 0)) != 0 {
            it.write(113);
            nt!(ExReleaseResourceLite(it.lock()));
        }
        nt!(KeLeaveCriticalRegion());
    }
    fn spin_rw(s) {
        let it = &*s.raw.spin_rw;
        let old = nt!(ExAcquireSpinLockExclusive(it.lock()));
        it.write(114);
        nt!(ExReleaseSpinLockExclusive(it.lock(), old));
    }
    fn spin_rw_shared(s) {
        let it = &*s.raw.spin_rw;
        let old = nt!(ExAcquireSpinLockShared(it.lock()));
        s.seen.set(it.read() + 115);
        nt!(ExReleaseSpinLockShared(it.lock(), old));
    }
    fn kmutex(s) {
        let it = &*s.raw.kmutex;
        nt!(KeWaitForSingleObject(it.lock().cast(), sys::Executive, sys::KernelMode, 0, NEVER));
        it.write(116);
        nt!(KeReleaseMutex(it.lock(), 0));
    }
    fn event_set(s) {
        let it = &*s.raw.event;
        s.seen.set(nt!(KeSetEvent(it.lock(), 0, 0)).unsigned_abs());
    }
    fn event_wait(s) {
        let it = &*s.raw.event;
        let status = nt!(KeWaitForSingleObject(it.lock().cast(), sys::Executive, sys::KernelMode, 0, NEVER));
        s.seen.set(u32::from(status == 0));
    }
    fn semaphore_release_wait(s) {
        let it = &*s.raw.semaphore;
        s.seen.set(nt!(KeReleaseSemaphore(it.lock(), 0, 1, 0)).unsigned_abs());
        let status = nt!(KeWaitForSingleObject(it.lock().cast(), sys::Executive, sys::KernelMode, 0, NEVER));
        s.seen.set(u32::from(status == 0) + 118);
    }
    fn pool(s) {
        let block = nt!(ExAllocatePool2(sys::POOL_FLAG_NON_PAGED | sys::POOL_FLAG_UNINITIALIZED, size_of::<[u64; 8]>(), TAG));
        if !block.is_null() {
            // SAFETY: the block has the size that was asked for.
            unsafe { block.cast::<[u64; 8]>().write([s.seen.get().into(); 8]) };
            nt!(ExFreePoolWithTag(block, TAG));
        }
    }
    fn lookaside(s) {
        let it = &*s.raw.lookaside;
        let entry = nt!(ExAllocateFromLookasideListEx(it.lock()));
        if !entry.is_null() {
            // SAFETY: the entry has the size that the list was initialised with.
            unsafe { entry.cast::<[u64; 8]>().write([s.seen.get().into(); 8]) };
            nt!(ExFreeToLookasideListEx(it.lock(), entry));
        }
    }
}

/// A wait without a timeout.
const NEVER: *const sys::LARGE_INTEGER = std::ptr::null();

/// The tag of raw allocations.
pub(crate) const TAG: u32 = ksync::alloc::tag(b"raw ");
