//! Level tokens, and locks that are acquired by them.

use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Apc, AtMost, Dispatch, Irql, Passive};
use ksync::mutex::{Fast, Guarded, InStackQueueLocked, LevelGuard, LockAt, Locked, Push, Sharing, Spin, SpinLocked, SpinRw};
use ksync::region;
use static_assertions::{assert_eq_size, assert_not_impl_any};
use test_support::threads::{crowd, scheduling_point};

assert_eq_size!(Irql<Passive>, ());
assert_not_impl_any!(Irql<Passive>: Send, Sync, Copy, Clone);
assert_not_impl_any!(LevelGuard<'static, u8, Spin, Passive>: Send);

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

/// Each lock excludes, also between the two tiers.
fn counts<L: LockAt + ksync::mutex::Exclusive>()
where
    L::Sharing: Sharing<u32>,
    Passive: AtMost<L::Highest>,
{
    for seed in 0..50 {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let counter = Locked::<u32, L>::new(0).unwrap();
                crowd(4, |thread| {
                    let mut passive = Irql::<Passive>::claim().unwrap();
                    for _ in 0..50 {
                        if thread == 0 {
                            *counter.lock().unwrap() += 1;
                            continue;
                        }
                        let mut count = counter.lock_at(&mut passive);
                        let seen = *count;
                        scheduling_point();
                        *count = seen + 1;
                    }
                });
                assert!(!counter.is_locked());
                assert_eq!(counter.into_inner(), 200);
            })
            .expect_clean();
    }
}

#[test]
fn they_exclude() {
    counts::<Fast>();
    counts::<Guarded>();
    counts::<Push>();
    counts::<Spin>();
    counts::<SpinRw>();
}

#[test]
fn levels_and_regions_come_back() {
    fn check<L: LockAt>()
    where
        Passive: AtMost<L::Highest>,
        Apc: AtMost<L::Highest>,
    {
        on_machine(|| {
            let lock = Locked::<u32, L>::new(1)?;
            let mut passive = Irql::<Passive>::claim()?;
            let mut guard = lock.lock_at(&mut passive);
            assert!(lock.is_locked());
            let (value, held) = guard.split();
            *value += 1;
            assert_eq!(held.level(), irql::current());
            drop(guard);
            assert!(!lock.is_locked());
            assert_eq!(irql::current(), Irql::PASSIVE);
            assert!(!region::all_apcs_disabled());
            passive.raised::<Apc, _>(|apc| {
                assert_eq!(format!("{}", lock.lock_at(apc)), "2");
                assert_eq!(format!("{:?}", lock.lock_at(apc)), "2");
                assert_eq!(irql::current(), Irql::APC);
            });
            Ok(())
        });
    }
    check::<Fast>();
    check::<Guarded>();
    check::<Push>();
    check::<Spin>();
    check::<SpinRw>();
}

#[test]
fn spin_locks_nest_by_the_inner_token() {
    on_machine(|| {
        let (outer, inner) = (SpinLocked::const_new(1), SpinLocked::const_new(2));
        let mut passive = Irql::<Passive>::claim()?;
        let mut guard = outer.lock_at(&mut passive);
        let (value, dispatch) = guard.split();
        *value += *inner.lock_at(dispatch);
        assert_eq!(irql::current(), Irql::DISPATCH);
        dispatch.raised::<Dispatch, _>(|same| assert_eq!(*inner.lock_at(same), 2));
        drop(guard);
        assert_eq!(irql::current(), Irql::PASSIVE);
        assert_eq!(outer.into_inner(), 3);
        Ok(())
    });
}

#[test]
fn tokens_are_claimed_where_they_are_true() {
    on_machine(|| {
        let mut passive = Irql::<Passive>::claim()?;
        assert_eq!(Irql::<Apc>::claim().map(drop), Err(NtError::IRQL_TOO_LOW));
        passive.raised::<Dispatch, _>(|_| {
            assert!(Irql::<Dispatch>::claim().is_ok());
            assert_eq!(Irql::<Passive>::claim().map(drop), Err(NtError::IRQL_TOO_HIGH));
        });
        assert_eq!(format!("{passive:?}"), "Irql(PASSIVE_LEVEL)");
        Ok(())
    });
}

#[test]
fn closures_nest_and_release_when_they_panic() {
    on_machine(|| {
        let (plain, queued) = (SpinLocked::const_new(1), InStackQueueLocked::const_new(2));
        let mut passive = Irql::<Passive>::claim()?;
        let sum = plain.with_at(&mut passive, |one, dispatch| queued.with_at(dispatch, |two, _| *one + *two));
        assert_eq!(sum, 3);
        let sum = queued.with_at(&mut passive, |two, dispatch| {
            assert!(queued.is_locked());
            assert_eq!(format!("{queued:?}"), "<locked>");
            plain.with_at(dispatch, |one, _| *one + *two)
        });
        assert_eq!((sum, irql::current()), (3, Irql::PASSIVE));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            queued.with_at(&mut passive, |_, dispatch| plain.with_at(dispatch, |_, _| std::panic::resume_unwind(Box::new(()))))
        }));
        assert!(result.is_err());
        assert!(!plain.is_locked() && !queued.is_locked());
        assert_eq!(irql::current(), Irql::PASSIVE);
        Ok(())
    });
}
