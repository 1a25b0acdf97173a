//! Rundown protection: no user after the end, under many schedules; what is misused, moved, forgotten. The simple uses are in `mutex_shared.rs`.

use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use ksim::Machine;
use ksync::NtError;
use ksync::dpc::Dpc;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{CacheAwareRundown, CacheAwareRundownGuard, Rundown, RundownGuard};
use static_assertions::assert_impl_all;
use std::sync::{Arc, Mutex};
use test_support::threads::{crowd, scheduling_point, sleep, threads};

const SEEDS: u64 = 100;

// Protection belongs to nobody: who acquired it need not release it, nor on the same processor.
assert_impl_all!(Rundown: Send, Sync);
assert_impl_all!(RundownGuard<'static>: Send, Sync);
assert_impl_all!(CacheAwareRundown: Send, Sync, Unpin);
assert_impl_all!(CacheAwareRundownGuard<'static>: Send, Sync);

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

fn on_seeds(code: impl Fn()) {
    for seed in 0..SEEDS {
        Machine::new().processors(4).seed(seed).run(&code).expect_clean();
    }
}

/// What both forms have in common.
trait Protection: Send + Sync + 'static {
    type Guard<'a>: Send;
    fn make() -> Self;
    fn acquire(&self) -> Result<Self::Guard<'_>>;
    fn wait(&self) -> Result;
    fn reinit(&self) -> Result;
}

macro_rules! protection {
    ($form:ident, $guard:ident, $make:expr) => {
        impl Protection for $form {
            type Guard<'a> = $guard<'a>;
            fn make() -> Self {
                $make
            }
            fn acquire(&self) -> Result<$guard<'_>> {
                self.acquire()
            }
            fn wait(&self) -> Result {
                self.wait()
            }
            fn reinit(&self) -> Result {
                self.reinit()
            }
        }
    };
}

protection!(Rundown, RundownGuard, Rundown::new());
protection!(CacheAwareRundown, CacheAwareRundownGuard, CacheAwareRundown::new().unwrap());

/// Instantiates a test for both forms.
macro_rules! for_both_forms {
    ($($test:ident)*) => {$(
        mod $test {
            #[test] fn plain() { super::$test::<super::Rundown>() }
            #[test] fn cache_aware() { super::$test::<super::CacheAwareRundown>() }
        }
    )*};
}

/// Three users and one who ends it, round after round. When the wait returns nobody is inside, and nobody gets in until it is begun anew.
fn nobody_is_inside_after_the_wait<P: Protection>() {
    on_seeds(|| {
        let rundown = P::make();
        let (inside, over, done) = (AtomicU32::new(0), AtomicBool::new(false), AtomicBool::new(false));
        crowd(4, |thread| {
            if thread == 3 {
                for _ in 0..4 {
                    sleep(1);
                    rundown.wait().unwrap();
                    over.store(true, Ordering::Relaxed);
                    assert_eq!(inside.load(Ordering::Relaxed), 0);
                    scheduling_point();
                    assert_eq!(rundown.acquire().map(drop), Err(NtError::DELETE_PENDING));
                    assert_eq!(inside.load(Ordering::Relaxed), 0);
                    over.store(false, Ordering::Relaxed);
                    rundown.reinit().unwrap();
                }
                done.store(true, Ordering::Relaxed);
                return;
            }
            while !done.load(Ordering::Relaxed) {
                if let Ok(user) = rundown.acquire() {
                    inside.fetch_add(1, Ordering::Relaxed);
                    scheduling_point();
                    assert!(!over.load(Ordering::Relaxed));
                    inside.fetch_sub(1, Ordering::Relaxed);
                    drop(user);
                }
                sleep(1 + thread as i64 % 2);
            }
        });
    })
}

/// Users nest, and one who is inside when the wait has begun does not get in a second time.
fn users_nest_until_the_wait_begins<P: Protection>() {
    on_seeds(|| {
        let rundown = P::make();
        threads([
            Box::new(|| {
                let (one, two) = (rundown.acquire().unwrap(), rundown.acquire().unwrap());
                drop(one);
                sleep(50);
                assert_eq!(rundown.acquire().map(drop), Err(NtError::DELETE_PENDING));
                sleep(50);
                drop(two);
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                sleep(20);
                let before = ksync::time::InterruptTime::now();
                rundown.wait().unwrap();
                assert!(before.elapsed() >= core::time::Duration::from_millis(70));
            }),
        ]);
    })
}

/// Acquired in one thread, released in another.
fn a_guard_is_released_by_another_thread<P: Protection>() {
    on_seeds(|| {
        let rundown = P::make();
        let guards = Mutex::new(vec![rundown.acquire().unwrap(), rundown.acquire().unwrap()]);
        crowd(3, |thread| {
            if thread == 2 {
                rundown.wait().unwrap();
            } else {
                sleep(10);
                // The host's mutex must be free again when the kernel is called.
                let guard = guards.lock().unwrap().pop();
                drop(guard);
            }
        });
        assert!(guards.into_inner().unwrap().is_empty());
    })
}

/// A level that does not admit it is an error, and nothing has happened.
fn levels_are_checked<P: Protection>() {
    on_machine(|| {
        let rundown = P::make();
        irql::with_raised(Irql::DISPATCH, || {
            let user = rundown.acquire().unwrap();
            assert_eq!(rundown.wait(), Err(NtError::IRQL_TOO_HIGH));
            drop(user);
            drop(rundown.acquire().unwrap());
        })?;
        irql::with_raised(Irql::APC, || rundown.wait())??;
        irql::with_raised(Irql::DISPATCH, || rundown.reinit())??;
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let refused = (rundown.acquire().map(drop), rundown.wait(), rundown.reinit());
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        let too_high = Err(NtError::IRQL_TOO_HIGH);
        assert_eq!(refused, (too_high, too_high, too_high));
        drop(rundown.acquire()?);
        Ok(())
    })
}

/// Who waits while it is a user waits for itself, and so does one who waits for a guard that was forgotten: the wait graph shows it.
fn waiting_for_oneself_is_a_deadlock<P: Protection>() {
    let outcome = Machine::new().run(|| {
        let rundown = P::make();
        let _user = rundown.acquire().unwrap();
        let _ = rundown.wait();
    });
    assert!(outcome.deadlock().is_some(), "{outcome:?}");
    let outcome = Machine::new().run(|| {
        let rundown = P::make();
        mem::forget(rundown.acquire().unwrap());
        let _ = rundown.wait();
    });
    assert!(outcome.deadlock().is_some(), "{outcome:?}");
}

/// A finished rundown does not stand in the way of its end.
fn dropped_in_every_state<P: Protection>() {
    on_machine(|| {
        let (unused, used, over) = (P::make(), P::make(), P::make());
        drop(used.acquire()?);
        over.wait()?;
        drop((unused, used, over));
        Ok(())
    })
}

/// Nor does a forgotten guard, but what nobody will release any more is told.
fn dropped_with_a_forgotten_guard<P: Protection>() {
    let outcome = Machine::new().run(|| {
        let forgotten = P::make();
        mem::forget(forgotten.acquire().unwrap());
        drop(forgotten);
    });
    let stop = outcome.expect_bug_check(ksim::bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert!(stop.meaning.contains("is acquired"), "{stop}");
}

/// An extension that a DPC uses as long as it is there.
fn a_dpc_is_a_user<P: Protection>() {
    on_seeds(|| {
        let shared = Arc::new((P::make(), AtomicBool::new(false), AtomicU32::new(0)));
        let dpc = {
            let shared = shared.clone();
            Dpc::new(move || {
                let (rundown, gone, refused) = &*shared;
                match rundown.acquire() {
                    Ok(_user) => assert!(!gone.load(Ordering::Relaxed)),
                    Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                }
            })
            .unwrap()
        };
        crowd(2, |thread| {
            if thread == 0 {
                shared.0.wait().unwrap();
                shared.1.store(true, Ordering::Relaxed);
            } else {
                for _ in 0..4 {
                    dpc.enqueue().unwrap();
                    scheduling_point();
                }
            }
        });
        dpc.enqueue().unwrap();
        dpc.flush().unwrap();
        assert!(shared.2.load(Ordering::Relaxed) > 0);
    })
}

for_both_forms! {
    nobody_is_inside_after_the_wait users_nest_until_the_wait_begins a_guard_is_released_by_another_thread levels_are_checked
    waiting_for_oneself_is_a_deadlock dropped_in_every_state dropped_with_a_forgotten_guard a_dpc_is_a_user
}

/// As a static, which needs no initialisation.
#[test]
fn in_a_static() {
    static DEVICE: Rundown = Rundown::new();
    on_seeds(|| {
        let guard: RundownGuard<'static> = DEVICE.acquire().unwrap();
        drop(guard);
        DEVICE.wait().unwrap();
        DEVICE.reinit().unwrap();
    });
}

/// The plain form is two words.
#[test]
fn the_plain_form_is_small() {
    assert!(size_of::<Rundown>() <= 16);
    assert_eq!(size_of::<RundownGuard<'_>>(), 8);
}

/// No memory is an error, and none is lost.
#[test]
fn no_memory_is_an_error() {
    let mut failed = 0;
    for n in 0..3 {
        Machine::new()
            .fail_allocation(n)
            .run(|| match CacheAwareRundown::new() {
                Ok(rundown) => drop(rundown.acquire().unwrap()),
                Err(error) => {
                    assert_eq!(error, NtError::INSUFFICIENT_RESOURCES);
                    failed += 1;
                }
            })
            .expect_clean();
    }
    assert_eq!(failed, 1);
}

/// A rundown that nobody uses may move, in each of its states.
#[test]
fn it_may_move_while_nobody_uses_it() {
    on_machine(|| {
        let fresh = Rundown::new();
        drop(fresh.acquire()?);
        let moved = Box::new(fresh);
        drop(moved.acquire()?);
        let aware = CacheAwareRundown::new()?;
        aware.wait()?;
        let moved = Box::new(aware);
        assert!(moved.acquire().is_err());
        moved.reinit()?;
        drop(moved.acquire()?);
        Ok(())
    });
}

#[test]
fn it_may_move_when_it_has_run_down() {
    on_machine(|| {
        let over = Rundown::new();
        over.wait()?;
        let moved = Box::new(over);
        assert_eq!(moved.acquire().map(drop), Err(NtError::DELETE_PENDING));
        assert_eq!(moved.wait(), Ok(()));
        moved.reinit()?;
        drop(moved.acquire()?);
        Ok(())
    });
}
