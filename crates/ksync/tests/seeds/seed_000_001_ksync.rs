//! Seeds 000 and 001, the page and the README of ksync: all examples, in their order. Both show the same code.
//!
//! What is changed throughout, and why:
//! - `println!` is `ksync::println!`, which prints to the debugger, where the test reads it.
//! - `use` lines are added; the seeds have none, except for the locks.
//! - Each example is in a function, and what it leaves open (`// ...`) is filled in.

use core::ptr;
use core::time::Duration;
use std::sync::Arc;

use ksim::{Machine, Outcome};
use ksync::error::NtError;
use ksync::handle::ObjectHandle;
use ksync::object::{ProcessObject, ThreadObject};
use ksync::sys::{GENERIC_ALL, HANDLE, KeGetCurrentProcessorNumberEx};
use ksync::thread::{self, JoinHandle, ScopedJoinHandle, spawn};
use ksync::timer::{HrTimer, Timer};
use ksync::wait::Dispatchable;
use ksync::{dpc, println};

/// Runs code on four processors under several schedules, each of which must end cleanly.
fn on_machines(code: impl Fn()) -> impl Iterator<Item = Outcome> {
    (0..20).map(move |seed| Machine::new().processors(4).seed(seed).run(&code).expect_clean())
}

mod kernel_object {
    use super::*;

    /// "Get a process object from PID".
    #[test]
    fn process_from_id() {
        Machine::new()
            .run(|| {
                if let Ok(process) = ProcessObject::from_process_id(0x1024) {
                    unreachable!("there is no such process here, but {process:?}");
                } // process will be dropped here

                // With the identifier of a process that there is.
                let id = ksim::create_process();
                let mut found = false;
                if let Ok(process) = ProcessObject::from_process_id(id) {
                    found = process.id() == id;
                } // process will be dropped here
                assert!(found);
            })
            .expect_clean();
    }

    /// "Get a thread object from a raw HANDLE".
    #[test]
    fn thread_from_handle() {
        Machine::new()
            .run(|| {
                // A user's handle number, and no user has opened it. An error, as it should be: the seed's crate asks as the kernel (defect 41).
                if let Ok(thread) = ThreadObject::from_thread_handle(0x1024 as HANDLE) {
                    unreachable!("there is no such handle here, but {thread:?}");
                } // thread will be dropped here

                // With a handle that there is.
                let handle = ObjectHandle::from_thread(ThreadObject::current(), GENERIC_ALL).unwrap();
                let mut found = false;
                if let Ok(thread) = ThreadObject::from_thread_handle(handle.as_raw()) {
                    found = thread == ThreadObject::current();
                } // thread will be dropped here
                assert!(found);
            })
            .expect_clean();
    }

    // The seed looks up 0x1024 here again, and not the handle that it is given.
    fn is_thread_exited(h_thread: HANDLE) -> Result<bool, NtError> {
        match ThreadObject::from_thread_handle(h_thread) {
            Ok(thread) => Ok(thread.wait_for(Duration::ZERO, false).success()),
            Err(e) => Err(e),
        }
    }

    /// "Dispatchable trait": "an example to test if a thread is exited".
    #[test]
    fn thread_exited() {
        on_machines(|| {
            assert_eq!(is_thread_exited(0x1024 as HANDLE), Err(NtError::INVALID_HANDLE));

            let thread = spawn(|| thread::this_thread::sleep(Duration::from_secs(1))).unwrap();
            let handle = ObjectHandle::from_thread(thread.thread(), GENERIC_ALL).unwrap();
            assert_eq!(is_thread_exited(handle.as_raw()), Ok(false));
            thread.join().unwrap().unwrap();
            assert_eq!(is_thread_exited(handle.as_raw()), Ok(true));
        })
        .for_each(drop);
    }

    /// "ObjectHandle": "create a `ObjectHandle` from a raw kernel process object". It is a reference here: safe code has no raw objects (defect 18).
    #[test]
    fn handle_from_process() {
        Machine::new()
            .run(|| {
                let process = ProcessObject::current();
                let mut found = false;
                if let Ok(handle) = ObjectHandle::from_process(&process, GENERIC_ALL) {
                    // we successfully got a handle to that process object
                    // "`KernelObject<T>` and ObjectHandle can be transformed from each other"
                    found = handle.to_process() == Ok(process);
                } // handle will be dropped here
                assert!(found);
            })
            .expect_clean();
    }
}

/// "Thread Operations". The seed calls each without its arguments.
#[test]
fn thread_operations() {
    on_machines(|| {
        // create a joinable system thread
        let thread = thread::spawn(|| {
            // sleeping
            thread::this_thread::sleep(Duration::from_millis(10)).unwrap();

            // get thread id
            let id = thread::this_thread::id();

            // yielding
            thread::this_thread::pause().unwrap();
            id
        })
        .unwrap();
        let id = thread.id();
        assert_eq!(thread.join(), Ok(id)); // the seed's join has no value to return

        // available parallelism
        assert_eq!(thread::available_parallelism().get(), 4);
    })
    .for_each(drop);
}

/// "Lazy & Once". The seed names the four types, and says what they are for; it uses none.
mod lazy_and_once {
    use core::cell::Cell;
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::rc::Rc;

    use ksync::lazy;
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    use super::*;

    // "the `OnceXXX` and `LazyXXX` both implement `Sync` if `T` is `Sync` by default": and `Send`, because one thread makes the value that another drops (defect 27).
    assert_impl_all!(lazy::LazyCell<u32>: Send, Sync);
    assert_impl_all!(lazy::LazyLock<u32>: Send, Sync);
    assert_impl_all!(lazy::OnceCell<u32>: Send, Sync);
    assert_impl_all!(lazy::OnceLock<u32>: Send, Sync);
    assert_not_impl_any!(lazy::OnceLock<Rc<u32>>: Send, Sync);
    assert_not_impl_any!(lazy::OnceCell<Cell<u32>>: Sync);

    /// "`OnceCell`, `OnceLock` can all be used in where the initialization must be delayed out of object construction scope", "you will need it when u have
    /// some global data pieces that may have different initializing strategies".
    #[test]
    fn global_data() {
        // A value which is initialized on the first access.
        static CELL: lazy::LazyCell<u32> = lazy::LazyCell::new(|| 1);
        // A value which is initialized on the first access with thread-safe guaranty during initiazation
        static LOCK: lazy::LazyLock<u32> = lazy::LazyLock::new(|| RUNS.fetch_add(1, Ordering::Relaxed) + 2);
        // A cell which can nominally be written to only once.
        static ONCE_CELL: lazy::OnceCell<u32> = lazy::OnceCell::new();
        // A synchronization primitive which can nominally be written to only once.
        static ONCE_LOCK: lazy::OnceLock<u32> = lazy::OnceLock::new();

        static RUNS: AtomicU32 = AtomicU32::new(0);

        Machine::new()
            .processors(4)
            .run(|| {
                let handles: Vec<_> = (0..4)
                    .map(|_| {
                        spawn(|| {
                            assert_eq!(*CELL, 1);
                            assert_eq!(*LOCK, 2);
                            assert_eq!(*ONCE_CELL.get_or_init(|| 3), 3);
                            assert_eq!(ONCE_LOCK.get_or_init(|| 4), Ok(&4));
                        })
                        .unwrap()
                    })
                    .collect();
                for h in handles {
                    h.join().unwrap();
                }
                assert_eq!(RUNS.load(Ordering::Relaxed), 1);
                assert_eq!(ONCE_CELL.set(5), Err(5));
                assert!(ONCE_LOCK.set(5).is_err());
            })
            .expect_clean();
    }
}

/// "Event, Semaphore, DPC and Timer": "the closure will be executed on each CPU core no more than once".
#[test]
fn dpc_on_each_core() {
    for outcome in on_machines(|| {
        // It returns an error if there is no memory, which the seed ignores (defect 56), and it returns when all have run (defect 3).
        dpc::run_once_per_core(|| {
            // SAFETY: no number is asked for, so that null is right.
            let core = unsafe { KeGetCurrentProcessorNumberEx(ptr::null_mut()) };

            println!("running on core#{}", core);
        })
        .unwrap();
    }) {
        let mut lines = outcome.debug_output().to_vec();
        lines.sort();
        assert_eq!(lines, ["running on core#0", "running on core#1", "running on core#2", "running on core#3"]);
    }
}

/// "the following example demonstrate how to use a period timer".
#[test]
fn periodic_timer() {
    for outcome in on_machines(|| {
        // this timer will use a DPC as backend
        let timer = Arc::new(
            Timer::new(
                || {
                    println!("timer expired");
                },
                false,
            )
            .unwrap(),
        );

        // It returns whether it was armed, or that the level is too high.
        assert_eq!(timer.start(Duration::ZERO, Duration::from_secs(5)), Ok(false));

        // Not in the seed, which ends here: at once, after 5 and after 10 seconds. Then the last `Arc` goes, which cancels (defect 13).
        let shared = Arc::clone(&timer);
        thread::this_thread::sleep(Duration::from_secs(12)).unwrap();
        assert_eq!(shared.is_signaled(), Ok(true));
    }) {
        assert_eq!(outcome.debug_output(), ["timer expired"; 3]);
    }
}

/// "BTW, High Resolution Timer is on the way...": it is here.
#[test]
fn high_resolution_timer() {
    for outcome in on_machines(|| {
        let timer = HrTimer::new(|| println!("timer expired")).unwrap();
        assert_eq!(timer.start(Duration::from_micros(300), Duration::from_micros(300)), Ok(false));
        thread::this_thread::sleep(Duration::from_micros(1000)).unwrap();
        // It is cancelled, and waited for, by its drop (defect 48).
        drop(timer);
    }) {
        assert_eq!(outcome.debug_output(), ["timer expired"; 3]);
    }
}

/// "Example For Locks", "using Locks".
mod using_locks {
    use ksync::mutex::*;
    use ksync::println;

    use super::*;

    /// The example, for any of the locks that it names in its comments.
    ///
    /// The seed's threads borrow the counter, and its `spawn` lets them, though they may outlive it. Here `spawn` wants `'static`, and a scope is what lends; its
    /// handles are of another type. The counter is used in the scope, so that the rest of the example is in it too.
    macro_rules! example {
        ($test:ident, $Locked:ident) => {
            #[test]
            fn $test() {
                for outcome in on_machines(|| {
                    let shared_counter = $Locked::new(0u32).unwrap();

                    thread::scope(|scope| {
                        let mut handles: Vec<ScopedJoinHandle<'_>> = Vec::new();

                        for _ in 0..4 {
                            handles.push(
                                scope
                                    .spawn(|| {
                                        // The seed's `i` is not used.
                                        for _ in 0..100 {
                                            if let Ok(mut counter) = shared_counter.lock() {
                                                *counter += 1;
                                            }
                                        }
                                    })
                                    .unwrap(),
                            );
                        }

                        // wait for all threads to exit
                        // It is not `mut h`: `join` takes the handle, so that it cannot be joined twice.
                        for h in handles {
                            h.join().expect("join thread failed");
                        }
                    });

                    // check the shared counter
                    // The lock's own `Debug` takes the lock for as long as it prints; the seed's reads without (defect 7).
                    println!("the final value of shared counter is: {:?}", shared_counter);
                }) {
                    assert_eq!(outcome.debug_output(), ["the final value of shared counter is: 400"]);
                }
            }
        };
    }

    // For Fast Mutex:
    example!(fast, FastLocked);
    // For Resources:
    example!(resource, ResourceLocked);
    // For Spinlocks:
    example!(spin, SpinLocked);
    example!(guard, GuardLocked);

    /// The list above the examples writes `ResouceLocked`; the name is kept, deprecated.
    #[test]
    #[expect(deprecated, reason = "the seed's spelling")]
    fn resouce() {
        Machine::new()
            .run(|| {
                let counter = ResouceLocked::new(0u32).unwrap();
                *counter.lock().unwrap() += 1;
                assert_eq!(*counter.lock_shared().unwrap(), 1);
            })
            .expect_clean();
    }
}

/// "Using Queued SpinLocks".
#[test]
#[expect(deprecated, reason = "the seed's spelling of `LockedQueueHandle` is kept")]
fn using_queued_spin_locks() {
    use core::pin::pin;
    use ksync::mutex::*;

    for outcome in on_machines(|| {
        // A handle has the type of what its thread returns.
        let mut handles: Vec<JoinHandle> = Vec::new();

        let shared_counter = Arc::new(InStackQueueLocked::new(0u32).unwrap());

        for _ in 0..4 {
            let counter = shared_counter.clone();

            handles.push(
                // `move`, because the thread may outlive this turn of the loop, at whose end the seed's `counter` is dropped.
                spawn(move || {
                    for _ in 0..1000 {
                        // Pinned, because the kernel links it: it releases the lock before it goes, even if the guard was forgotten (defect 12).
                        let mut handle = pin!(LockedQuueHandle::new());

                        if let Ok(mut guard) = counter.lock(&mut handle) {
                            *guard += 1;
                        }
                    }
                })
                .unwrap(),
            );
        }

        // wait for all threads to exit
        for h in handles {
            h.join().expect("join thread failed");
        }

        // check the shared counter
        // `*shared_counter` is the lock, as in the seed, and shows what it guards, under the lock.
        println!("the final value of shared counter is: {:?}", *shared_counter);
    }) {
        assert_eq!(outcome.debug_output(), ["the final value of shared counter is: 4000"]);
    }
}
