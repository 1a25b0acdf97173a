//! The contract of backends, seen from the outside: a backend that keeps books of every acquisition and release, and one that does not exclude at all,
//! which shows that the searches of the other tests can fail.

use core::cell::Cell;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::mutex::placement::{Boxed, Inline};
use ksync::mutex::{Backend, Exclusive, Locked, LockedGuard, MappedLockedGuard, SendAndSync, SendOnly, Shared, SharedGuard};
use std::cell::RefCell;
use std::collections::BTreeSet;
use test_support::threads::crowd;

/// What the bookkeeping backend knows.
#[derive(Default)]
struct Books {
    next: u32,
    exclusive: BTreeSet<u32>,
    shared: BTreeSet<u32>,
    initialised: u32,
    deinitialised: u32,
    refuse: Option<NtError>,
}

thread_local! {
    static BOOKS: RefCell<Books> = RefCell::default();
}

/// Keeps books. Every acquisition has a number, and a release must give back one that is out.
enum Bookkeeper {}

// SAFETY: single-threaded by its tests; acquisitions that would conflict are refused.
unsafe impl Backend for Bookkeeper {
    type State = Cell<u32>;
    type GuardState = u32;
    type Placement = Boxed;
    type Sharing = SendAndSync;
    const NAME: &'static str = "Bookkeeper";

    unsafe fn init(state: *mut Cell<u32>) -> Result {
        BOOKS.with_borrow_mut(|books| match books.refuse.take() {
            Some(error) => Err(error),
            None => {
                books.initialised += 1;
                // SAFETY: the pointer is valid for writes.
                unsafe { state.write(Cell::new(0)) };
                Ok(())
            }
        })
    }

    unsafe fn unlock(_: *mut Cell<u32>, guard: u32) {
        BOOKS.with_borrow_mut(|books| assert!(books.exclusive.remove(&guard)));
    }

    unsafe fn is_locked(_: *const Cell<u32>) -> bool {
        BOOKS.with_borrow(|books| !books.exclusive.is_empty() || !books.shared.is_empty())
    }

    unsafe fn deinit(_: *mut Cell<u32>) -> Result {
        BOOKS.with_borrow_mut(|books| match books.refuse.take() {
            Some(error) => Err(error),
            None => {
                books.deinitialised += 1;
                Ok(())
            }
        })
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Bookkeeper {
    unsafe fn lock(state: *mut Cell<u32>) -> Result<u32> {
        // SAFETY: by this function's own contract.
        unsafe { Self::try_lock(state) }
    }

    unsafe fn try_lock(_: *mut Cell<u32>) -> Result<u32> {
        BOOKS.with_borrow_mut(|books| {
            if !books.exclusive.is_empty() || !books.shared.is_empty() {
                return Err(NtError::LOCK_NOT_GRANTED);
            }
            books.next += 1;
            books.exclusive.insert(books.next);
            Ok(books.next)
        })
    }
}

// SAFETY: as above.
unsafe impl Shared for Bookkeeper {
    type SharedState = u32;

    unsafe fn lock_shared(state: *mut Cell<u32>) -> Result<u32> {
        // SAFETY: by this function's own contract.
        unsafe { Self::try_lock_shared(state) }
    }

    unsafe fn try_lock_shared(_: *mut Cell<u32>) -> Result<u32> {
        BOOKS.with_borrow_mut(|books| {
            if !books.exclusive.is_empty() {
                return Err(NtError::LOCK_NOT_GRANTED);
            }
            books.next += 1;
            books.shared.insert(books.next);
            Ok(books.next)
        })
    }

    unsafe fn unlock_shared(_: *mut Cell<u32>, guard: u32) {
        BOOKS.with_borrow_mut(|books| assert!(books.shared.remove(&guard)));
    }
}

/// Runs a test and checks that the books are even at its end.
fn with_even_books(code: impl FnOnce() -> Result) {
    BOOKS.with_borrow_mut(|books| *books = Books::default());
    Machine::new().run(|| code().unwrap()).expect_clean();
    BOOKS.with_borrow(|books| {
        assert!(books.exclusive.is_empty() && books.shared.is_empty());
        assert_eq!(books.initialised, books.deinitialised);
    });
}

#[test]
fn every_acquisition_is_released_once_whatever_becomes_of_its_guard() {
    with_even_books(|| {
        let lock = Locked::<(u32, u32), Bookkeeper>::new((1, 2))?;
        drop(lock.lock()?);
        drop(lock.try_lock()?);
        let part = LockedGuard::map(lock.lock()?, |pair| &mut pair.0);
        drop(MappedLockedGuard::map(part, |value| value));
        drop(LockedGuard::filter_map(lock.lock()?, |_| None::<&mut u32>));
        drop(LockedGuard::filter_map(lock.lock()?, |pair| Some(&mut pair.1)));
        lock.with(|_| ())?;
        let (one, two) = (lock.lock_shared()?, lock.try_lock_shared()?);
        assert!(lock.try_lock().is_err());
        drop(one);
        drop(SharedGuard::map(two, |pair| &pair.1));
        lock.with_shared(|pair| assert_eq!(*pair, (1, 2)))?;
        drop(lock.lock()?);
        Ok(())
    });
}

#[test]
fn a_panic_in_a_closure_releases() {
    with_even_books(|| {
        let lock = Locked::<u32, Bookkeeper>::new(1)?;
        let panics: [&dyn Fn(); 4] = [
            &|| lock.with(|_| std::panic::resume_unwind(Box::new(()))).unwrap(),
            &|| lock.with_shared(|_| std::panic::resume_unwind(Box::new(()))).unwrap(),
            &|| drop(LockedGuard::map(lock.lock().unwrap(), |_| -> &mut u32 { std::panic::resume_unwind(Box::new(())) })),
            &|| drop(SharedGuard::map(lock.lock_shared().unwrap(), |_| -> &u32 { std::panic::resume_unwind(Box::new(())) })),
        ];
        for panic in panics {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panic)).is_err());
            assert!(!lock.is_locked());
        }
        Ok(())
    });
}

/// Defect ksync 47: an initialisation that fails leaks nothing and drops the data once.
#[test]
fn a_failed_initialisation_leaves_nothing() {
    with_even_books(|| {
        let value = std::rc::Rc::new(());
        BOOKS.with_borrow_mut(|books| books.refuse = Some(NtError::NOT_SUPPORTED));
        assert_eq!(Locked::<_, Bookkeeper>::new(value.clone()).map(drop), Err(NtError::NOT_SUPPORTED));
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
        Ok(())
    });
}

/// A lock that cannot be taken out of the kernel's lists is leaked, not freed.
#[test]
fn a_failed_deinitialisation_leaks() {
    BOOKS.with_borrow_mut(|books| *books = Books::default());
    let outcome = Machine::new().run(|| {
        let value = std::rc::Rc::new(());
        let lock = Locked::<_, Bookkeeper>::new(value.clone()).unwrap();
        BOOKS.with_borrow_mut(|books| books.refuse = Some(NtError::IRQL_TOO_HIGH));
        drop(lock);
        assert_eq!(std::rc::Rc::strong_count(&value), 2);
        let lock = Locked::<_, Bookkeeper>::new(value.clone()).unwrap();
        BOOKS.with_borrow_mut(|books| books.refuse = Some(NtError::IRQL_TOO_HIGH));
        drop(lock.into_inner());
        assert_eq!(std::rc::Rc::strong_count(&value), 2);
    });
    assert!(outcome.is_completed(), "{outcome:?}");
    assert!(outcome.left().pool_bytes() > 0, "{outcome:?}");
}

/// Excludes nobody.
enum Nothing {}

// SAFETY: false, which is what the test is about; the data is atomic.
unsafe impl Backend for Nothing {
    type State = ();
    type GuardState = ();
    type Placement = Inline;
    type Sharing = SendOnly;
    const NAME: &'static str = "Nothing";

    unsafe fn init(_: *mut ()) -> Result {
        Ok(())
    }

    unsafe fn unlock(_: *mut (), (): ()) {}

    unsafe fn is_locked(_: *const ()) -> bool {
        false
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Nothing {
    unsafe fn lock(_: *mut ()) -> Result {
        Ok(())
    }

    unsafe fn try_lock(_: *mut ()) -> Result {
        Ok(())
    }
}

/// Without exclusion the counting test of the other files loses increments, so that passing it means something.
#[test]
fn without_exclusion_increments_are_lost() {
    let lost = (0..50).filter(|&seed| {
        let mut sum = 0;
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let counter = Locked::<Cell<u32>, Nothing>::new(Cell::new(0)).unwrap();
                crowd(4, |_| {
                    for _ in 0..100 {
                        let count = counter.lock().unwrap();
                        let seen = count.get();
                        test_support::threads::scheduling_point();
                        count.set(seen + 1);
                    }
                });
                sum = counter.into_inner().get();
            })
            .expect_clean();
        sum < 400
    });
    assert!(lost.count() > 40);
}
