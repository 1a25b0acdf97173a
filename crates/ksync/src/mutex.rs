//! Data behind locks.
//!
//! A lock here owns the data that it guards: [`lock`](PinnedLocked::lock) returns a guard through which the data is reached, and dropping the guard releases the lock. There
//! is one type, [`Locked<T, L>`](Locked), over all of NT's locks `L`, under the names that the table below gives.
//!
//! # Which lock
//! | type | over | waits by | level to acquire | level while held | APCs held back | in a static |
//! |---|---|---|---|---|---|---|
//! | [`FastLocked`] | `FAST_MUTEX` | sleeping | `<= APC_LEVEL` | the caller's | all | no |
//! | [`GuardLocked`] | `KGUARDED_MUTEX` | sleeping | `<= APC_LEVEL` | the caller's | all | no |
//! | [`ResourceLocked`] | `ERESOURCE`, with readers | sleeping | `<= APC_LEVEL` | the caller's | normal | no |
//! | [`PushLocked`] | `EX_PUSH_LOCK`, with readers | sleeping | `<= APC_LEVEL` | the caller's | normal | yes |
//! | [`SpinLocked`] | `KSPIN_LOCK` | spinning | `<= DISPATCH_LEVEL` | `DISPATCH_LEVEL` | all | yes |
//! | [`InStackQueueLocked`] | `KLOCK_QUEUE_HANDLE` | spinning in a queue | `<= DISPATCH_LEVEL` | `DISPATCH_LEVEL` | all | yes |
//! | [`SpinRwLocked`] | `EX_SPIN_LOCK`, with readers | spinning | `<= DISPATCH_LEVEL` | `DISPATCH_LEVEL` | all | yes |
//! | [`KMutex`] | `KMUTEX` | sleeping, with timeout, alertable | `<= APC_LEVEL` | the caller's | normal | no |
//! | [`ReentrantKMutex`] | `KMUTEX` | as [`KMutex`]; the owner gets in again | `<= APC_LEVEL` | the caller's | normal | no |
//!
//! In short: [`FastLocked`] among threads, [`SpinLocked`] where a DPC takes part.
//!
//! Beside the locks: [`Condvar`] waits for a change of what a lock that sleeps guards, [`Barrier`] waits for a number of threads, [`LockedBy`] is data whose lock is
//! kept elsewhere, and [`Rundown`] counts the users of something until it goes.
//!
//! # Three places
//! [`Locked`] can be moved; what the kernel links to is then in a box of its own. [`PinnedLocked`] lies in place, as a field of a larger structure. A lock that is
//! a word can be made at compile time, as a static. See [the crate](crate#where-an-object-lives).
//!
//! # Errors instead of hangs and bug checks
//! A lock that is asked for at too high a level returns [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH), and one that is asked for by its holder returns
//! [`NtError::WOULD_DEADLOCK`](crate::NtError::WOULD_DEADLOCK). Nothing has happened then. A guard that is dropped at a level at which its lock cannot be released leaves
//! the lock held, for ever, and says so through `DbgPrint`. Forgetting a guard does the same silently.
//!
//! # Two tiers
//! The methods without a token check the level at run time. [`lock_at`](PinnedLocked::lock_at) takes a level token, [`Irql<L>`](crate::irql::Irql), checks it at compile time and costs nothing beyond NT's own
//! routine. Both are for the same locks.
//!
//! There is no poisoning: a driver that panics stops the system.

mod at;
mod backend;
mod barrier;
mod condvar;
mod fast;
mod guard;
mod guarded;
mod kmutex;
mod locked;
mod locked_by;
pub mod placement;
mod push;
mod queued;
mod reentrant;
mod report;
mod resource;
mod rundown;
mod spin;
mod spin_rw;
mod wait_queue;

pub use at::{LevelGuard, LockAt};
pub use backend::{Backend, Blocking, ConstInit, Exclusive, SendAndSync, SendOnly, Shared, Sharing};
pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::Condvar;
pub use fast::{Fast, FastLocked, FastLockedGuard, PinnedFastLocked};
pub use guard::{LockedGuard, MappedLockedGuard, MappedSharedGuard, SharedGuard};
pub use guarded::{GuardLocked, GuardLockedGuard, Guarded, PinnedGuardLocked};
pub use kmutex::{KMutex, KMutexGuard, Mutex, PinnedKMutex};
pub use locked::{Locked, PinnedLocked};
pub use locked_by::LockedBy;
pub use push::{PinnedPushLocked, Push, PushLocked, PushLockedGuard, PushSharedGuard};
#[expect(deprecated, reason = "the old name is offered on purpose")]
pub use queued::LockedQuueHandle;
pub use queued::{InStackQueue, InStackQueueLocked, InStackQueueLockedGuard, LockedQueueHandle, PinnedInStackQueueLocked};
pub use reentrant::{PinnedReentrantKMutex, ReentrantGuard, ReentrantKMutex, ReentrantMutex};
#[expect(deprecated, reason = "the old name is offered on purpose")]
pub use resource::ResouceLocked;
pub use resource::{PinnedResourceLocked, Resource, ResourceLocked, ResourceLockedGuard, ResourceSharedGuard};
pub use rundown::{CacheAwareRundown, CacheAwareRundownGuard, Rundown, RundownGuard};
pub use spin::{PinnedSpinLocked, Spin, SpinLocked, SpinLockedGuard};
pub use spin_rw::{PinnedSpinRwLocked, SpinRw, SpinRwLocked, SpinRwLockedGuard, SpinRwSharedGuard};

/// The bug check for a lock in place that is dropped while the kernel still links to it: its holder forgot a guard, or the level forbids taking it out of the
/// kernel's lists. The first parameter is the lock's address, the second a status. The digits spell `ksyn`.
///
/// Locks that are boxed are leaked instead.
pub const DROPPED_WHILE_HELD: u32 = 0x6B73_796E;
