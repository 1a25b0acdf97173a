//! What is measured: the same through the library.
//!
//! Each function writes a number of its own to the data, so that the compiler does not make one function of two that are alike.

use std::pin::pin;

use ksync::irql::{Dispatch, Irql, Passive};
use ksync::mutex::LockedQueueHandle;
use ksync::pool::KBox;
use ksync::wait::Dispatchable;

use crate::Subjects;

/// The token of the row's level.
fn passive() -> Irql<Passive> {
    // SAFETY: the row runs at this level.
    unsafe { Irql::assume() }
}

/// The token of the row's level.
fn dispatch() -> Irql<Dispatch> {
    // SAFETY: the row runs at this level.
    unsafe { Irql::assume() }
}

/// The three tiers of one lock: the guard, the closure, and what takes a token.
macro_rules! tiers {
    ($($field:ident: $number:literal { $($tier:ident $name:ident),* })*) => {
        $($(tiers!(@ $tier $name $field $number);)*)*
    };
    (@ lock $name:ident $field:ident $number:literal) => {
        #[inline(never)]
        pub(crate) fn $name(s: &Subjects<'_>) {
            if let Ok(mut guard) = s.$field.lock() {
                *guard = $number;
            }
        }
    };
    (@ try_lock $name:ident $field:ident $number:literal) => {
        #[inline(never)]
        pub(crate) fn $name(s: &Subjects<'_>) {
            if let Ok(mut guard) = s.$field.try_lock() {
                *guard = $number + 1;
            }
        }
    };
    (@ with $name:ident $field:ident $number:literal) => {
        #[inline(never)]
        pub(crate) fn $name(s: &Subjects<'_>) {
            let _ = s.$field.with(|data| *data = $number + 2);
        }
    };
    (@ at $name:ident $field:ident $number:literal) => {
        #[inline(never)]
        pub(crate) fn $name(s: &Subjects<'_>) {
            *s.$field.lock_at(&mut passive()) = $number + 3;
        }
    };
    (@ with_at $name:ident $field:ident $number:literal) => {
        #[inline(never)]
        pub(crate) fn $name(s: &Subjects<'_>) {
            s.$field.with_at(&mut passive(), |data, _| *data = $number + 4);
        }
    };
    (@ lock_shared $name:ident $field:ident $number:literal) => {
        #[inline(never)]
        pub(crate) fn $name(s: &Subjects<'_>) {
            if let Ok(guard) = s.$field.lock_shared() {
                s.seen.set(*guard + $number + 5);
            }
        }
    };
    (@ with_shared $name:ident $field:ident $number:literal) => {
        #[inline(never)]
        pub(crate) fn $name(s: &Subjects<'_>) {
            let _ = s.$field.with_shared(|data| s.seen.set(*data + $number + 6));
        }
    };
}

tiers! {
    fast: 1000 { lock fast, try_lock fast_try, with fast_with, at fast_at, with_at fast_with_at }
    guarded: 1010 { lock guarded, with guarded_with, at guarded_at, with_at guarded_with_at }
    spin: 1020 { lock spin, try_lock spin_try, with spin_with, at spin_at, with_at spin_with_at }
    queued: 1030 { with queued_with, with_at queued_with_at }
    push: 1040 {
        lock push, try_lock push_try, with push_with, at push_at, with_at push_with_at,
        lock_shared push_shared, with_shared push_with_shared
    }
    resource: 1050 {
        lock resource, try_lock resource_try, with resource_with, lock_shared resource_shared, with_shared resource_with_shared
    }
    spin_rw: 1060 {
        lock spin_rw, with spin_rw_with, at spin_rw_at, with_at spin_rw_with_at,
        lock_shared spin_rw_shared, with_shared spin_rw_with_shared
    }
    kmutex: 1070 { lock kmutex, with kmutex_with }
}

#[inline(never)]
pub(crate) fn spin_lock_at_dpc_level(s: &Subjects<'_>) {
    if let Ok(mut guard) = s.spin_dpc.lock_at_dpc_level() {
        *guard = 1100;
    }
}

#[inline(never)]
pub(crate) fn spin_at_dispatch(s: &Subjects<'_>) {
    *s.spin_dpc.lock_at(&mut dispatch()) = 1101;
}

#[inline(never)]
pub(crate) fn queued(s: &Subjects<'_>) {
    let mut handle = pin!(LockedQueueHandle::new());
    if let Ok(mut guard) = s.queued.lock(&mut handle) {
        *guard = 1102;
    }
}

#[inline(never)]
pub(crate) fn event_set(s: &Subjects<'_>) {
    s.seen.set(s.event.set().map_or(2, u32::from));
}

#[inline(never)]
pub(crate) fn event_wait(s: &Subjects<'_>) {
    s.seen.set(u32::from(s.event.wait().success()));
}

#[inline(never)]
pub(crate) fn semaphore_release_wait(s: &Subjects<'_>) {
    s.seen.set(s.semaphore.release(1).unwrap_or(7));
    s.seen.set(u32::from(s.semaphore.wait().success()) + 1103);
}

#[inline(never)]
pub(crate) fn pool(s: &Subjects<'_>) {
    drop(KBox::new([u64::from(s.seen.get()); 8]));
}

#[inline(never)]
pub(crate) fn lookaside(s: &Subjects<'_>) {
    drop(s.lookaside.alloc([u64::from(s.seen.get()); 8]));
}
