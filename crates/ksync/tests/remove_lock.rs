//! Remove locks, on the hosted kernel.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::irql::{self, Irql};
use ksync::remove_lock::RemoveLock;
use ksync::thread::{self, this_thread};

fn explore(body: impl Fn()) {
    for processors in [1, 2, 4] {
        for seed in 0..12 {
            Machine::new().processors(processors).seed(seed).run(&body).expect_clean();
        }
    }
}

#[test]
fn rule_32_a_removal_waits_for_the_users_and_admits_no_more() {
    explore(|| {
        let (lock, users) = (RemoveLock::new().unwrap(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope
                    .spawn(|| {
                        let Ok(guard) = lock.acquire() else { return };
                        users.fetch_add(1, Ordering::Relaxed);
                        this_thread::sleep(Duration::from_millis(1)).unwrap();
                        users.fetch_sub(1, Ordering::Relaxed);
                        drop(guard);
                    })
                    .unwrap();
            }
            lock.remove().unwrap();
            assert_eq!(users.load(Ordering::Relaxed), 0);
            assert_eq!(lock.acquire().err(), Some(NtError::DELETE_PENDING));
        });
    });
}

#[test]
fn one_of_several_removals_succeeds() {
    explore(|| {
        let (lock, removed) = (RemoveLock::new().unwrap(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope
                    .spawn(|| match lock.remove() {
                        Ok(()) => {
                            removed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error, NtError::DELETE_PENDING),
                    })
                    .unwrap();
            }
        });
        assert_eq!(removed.into_inner(), 1);
    });
}

#[test]
fn levels_are_checked() {
    explore(|| {
        let lock = RemoveLock::new().unwrap();
        irql::with_raised(Irql::DISPATCH, || {
            drop(lock.acquire().unwrap());
            assert_eq!(lock.remove(), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(RemoveLock::new().err(), Some(NtError::IRQL_TOO_HIGH));
        })
        .unwrap();
        lock.remove().unwrap();
    });
}
