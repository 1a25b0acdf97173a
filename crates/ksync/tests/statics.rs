//! Locks in statics, as drivers have them.

use ksim::explore;
use ksync::lazy::OnceLock;
use ksync::mutex::{PinnedSpinLocked, PushLocked, SpinLocked};
use ksync::thread;
use std::pin::Pin;

#[test]
fn a_global_lock_is_searched() {
    static COUNT: PinnedSpinLocked<u32> = PinnedSpinLocked::const_new(0);
    let search = explore().processors(3).schedules(2_000).progress(false).check(|| {
        let count = Pin::static_ref(&COUNT);
        let before = *count.lock().unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || *count.lock().unwrap() += 1).unwrap();
            }
        });
        assert_eq!(*count.lock().unwrap(), before + 2);
    });
    search.expect_clean();
}

#[test]
fn a_cell_that_is_set_once_is_searched() {
    static CELL: OnceLock<u32> = OnceLock::new();
    static LIMITS: PushLocked<u32> = PushLocked::const_new(3);
    let search = explore().processors(3).schedules(500).progress(false).check(|| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(*CELL.get_or_init(|| 7).unwrap(), 7)).unwrap();
                scope.spawn(|| assert_eq!(*LIMITS.lock().unwrap(), 3)).unwrap();
            }
        });
    });
    search.expect_clean();
}

#[test]
fn a_bug_check_under_a_global_lock_is_reported_as_such() {
    static LOCK: SpinLocked<()> = SpinLocked::const_new(());
    let search = explore().processors(2).schedules(50).progress(false).check(|| {
        let _guard = LOCK.lock().unwrap();
        // SAFETY: the machine stops.
        unsafe { ksync_sys::KeBugCheckEx(0xe2, 0, 0, 0, 0) };
    });
    let failure = search.failure().expect("each run fails");
    assert_eq!(failure.outcome.bug_check().map(|stop| stop.code), Some(0xe2), "{search}");
}
