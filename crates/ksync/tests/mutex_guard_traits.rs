//! Who may send and share what: the matrix for locks, guards and what stands beside them.

use core::cell::Cell;
use ksync::irql::RaisedIrql;
use ksync::mutex::{
    Barrier, CacheAwareRundown, Condvar, Fast, FastLocked, GuardLocked, InStackQueueLocked, KMutex, LockedBy, LockedGuard,
    LockedQueueHandle, MappedLockedGuard, MappedSharedGuard, PinnedFastLocked, PinnedSpinLocked, PushLocked, ReentrantGuard,
    ReentrantKMutex, Resource, ResourceLocked, Rundown, RundownGuard, SharedGuard, Spin, SpinLocked, SpinRwLocked,
};
use ksync::pool::KBox;
use ksync::region::{CriticalRegion, GuardedRegion};
use static_assertions::{assert_impl_all, assert_not_impl_any};
use std::rc::Rc;
use std::sync::MutexGuard;

/// `Sync`, but not `Send`.
type SyncOnly = MutexGuard<'static, ()>;
/// `Send`, but not `Sync`.
type SendOnly = Cell<u8>;
/// Neither.
type Neither = Rc<u8>;

assert_impl_all!(SyncOnly: Sync);
assert_not_impl_any!(SyncOnly: Send);

/// An exclusive lock makes what can be sent shareable, and nothing else (defects ksync 10, wdk-mutex 3).
macro_rules! exclusive {
    ($($lock:ident)*) => {$(
        assert_impl_all!($lock<u8>: Send, Sync);
        assert_impl_all!($lock<SendOnly>: Send, Sync);
        assert_not_impl_any!($lock<SyncOnly>: Send, Sync);
        assert_not_impl_any!($lock<Neither>: Send, Sync);
    )*};
}

exclusive! {
    FastLocked GuardLocked SpinLocked InStackQueueLocked KMutex ReentrantKMutex PinnedFastLocked PinnedSpinLocked
}

/// A lock with readers needs data that is fit for both (defect ksync 10).
macro_rules! shared {
    ($($lock:ident)*) => {$(
        assert_impl_all!($lock<u8>: Send, Sync);
        assert_impl_all!($lock<SendOnly>: Send);
        assert_not_impl_any!($lock<SendOnly>: Sync);
        assert_not_impl_any!($lock<SyncOnly>: Send, Sync);
        assert_not_impl_any!($lock<Neither>: Send, Sync);
    )*};
}

shared! { ResourceLocked PushLocked SpinRwLocked }

assert_impl_all!(SharedGuard<'static, u8, Resource>: Sync);
assert_not_impl_any!(SharedGuard<'static, u8, Resource>: Send);
assert_not_impl_any!(SharedGuard<'static, SendOnly, Resource>: Send, Sync);
assert_not_impl_any!(MappedSharedGuard<'static, u8, Resource>: Send);
assert_impl_all!(Rundown: Send, Sync);
assert_impl_all!(RundownGuard<'static>: Send, Sync);
assert_impl_all!(CacheAwareRundown: Send, Sync);

/// A lock that can be moved moves freely; one in place does not.
macro_rules! unpin {
    ($($lock:ident)*) => {$(assert_impl_all!($lock<u8>: Unpin);)*};
}

unpin! { ResourceLocked PushLocked SpinRwLocked FastLocked GuardLocked SpinLocked InStackQueueLocked KMutex ReentrantKMutex }
assert_not_impl_any!(PinnedFastLocked<u8>: Unpin);
assert_not_impl_any!(PinnedSpinLocked<u8>: Unpin);
assert_not_impl_any!(LockedQueueHandle<'static>: Unpin, Send, Sync);

// Guards stay on their thread, and can be shared if the data can (defects ksync 11, wdk-mutex 4).
assert_impl_all!(LockedGuard<'static, u8, Fast>: Sync);
assert_not_impl_any!(LockedGuard<'static, u8, Fast>: Send);
assert_not_impl_any!(LockedGuard<'static, SendOnly, Fast>: Send, Sync);
assert_impl_all!(LockedGuard<'static, u8, Spin>: Sync);
assert_not_impl_any!(LockedGuard<'static, u8, Spin>: Send);
assert_impl_all!(MappedLockedGuard<'static, u8, Spin>: Sync);
assert_not_impl_any!(MappedLockedGuard<'static, u8, Spin>: Send);
assert_not_impl_any!(MappedLockedGuard<'static, SendOnly, Spin>: Send, Sync);
assert_impl_all!(ReentrantGuard<'static, u8>: Sync);
assert_not_impl_any!(ReentrantGuard<'static, u8>: Send);
assert_not_impl_any!(ReentrantGuard<'static, SendOnly>: Send, Sync);
assert_not_impl_any!(RaisedIrql: Send, Sync);
assert_not_impl_any!(CriticalRegion: Send, Sync);
assert_not_impl_any!(GuardedRegion: Send, Sync);

assert_impl_all!(Condvar: Send, Sync);
assert_impl_all!(Barrier: Send, Sync);
assert_impl_all!(LockedBy<SendOnly, u8>: Send, Sync);
assert_not_impl_any!(LockedBy<SyncOnly, u8>: Send, Sync);
assert_impl_all!(LockedBy<u8, Neither>: Send, Sync);

assert_impl_all!(KBox<u8>: Send, Sync, Unpin);
assert_not_impl_any!(KBox<SendOnly>: Sync);
assert_not_impl_any!(KBox<SyncOnly>: Send);
assert_not_impl_any!(KBox<Neither>: Send, Sync);

/// The assertions above are checked when this file compiles.
#[test]
fn the_matrix_holds() {}

/// Words lie beside the data: nothing is allocated, and the lock is not larger than it must be.
#[test]
fn word_locks_are_small() {
    assert_eq!(size_of::<SpinLocked<u64>>(), 24);
    assert_eq!(size_of::<InStackQueueLocked<u64>>(), 24);
    assert_eq!(size_of::<FastLocked<[u64; 100]>>(), 8);
}
