//! Threads, on the hosted kernel.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::handle::ObjectHandle;
use ksync::irql::{self, Irql};
use ksync::object::{ProcessObject, ThreadObject};
use ksync::semaphore::Semaphore;
use ksync::sys;
use ksync::thread::{self, Builder, JoinHandle, this_thread};
use ksync::time::InterruptTime;
use ksync::wait::{Dispatchable, WaitOptions, WaitResult};
use std::sync::{Arc, Mutex};

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

fn on_seeds(code: impl Fn() -> Result) {
    for seed in 0..50 {
        Machine::new().processors(3).seed(seed).run(|| code().unwrap()).expect_clean();
    }
}

/// Counts its drops.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn values_come_back() {
    on_seeds(|| {
        let threads: Vec<_> = (0..4).map(|number| thread::spawn(move || vec![number; 3])).collect::<Result<_, _>>()?;
        for (number, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join()?, vec![number; 3]);
        }
        Ok(())
    });
}

#[test]
fn all_that_a_thread_owns_is_dropped_before_it_has_ended() {
    on_seeds(|| {
        let drops = Arc::new(AtomicU32::new(0));
        let owned = Counted(drops.clone());
        let thread = thread::spawn(move || {
            let owned = owned;
            this_thread::pause().unwrap();
            drop(owned);
        })?;
        assert!(thread.wait().success());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        thread.join()
    });
}

#[test]
fn results_that_nobody_takes_are_dropped_once() {
    on_seeds(|| {
        let drops = Arc::new(AtomicU32::new(0));
        let value = Counted(drops.clone());
        drop(thread::spawn(move || value)?);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        let value = Counted(drops.clone());
        thread::spawn(move || value)?.detach();
        ksync::driver::drain()?;
        assert_eq!(drops.load(Ordering::Relaxed), 2);
        let value = Counted(drops.clone());
        drop(thread::spawn(move || value)?.join()?);
        assert_eq!(drops.load(Ordering::Relaxed), 3);
        Ok(())
    });
}

#[test]
fn ksync_36_polling_and_joining_take_no_references() {
    // The machine reports references and handles that are left.
    on_seeds(|| {
        let thread = thread::spawn(|| this_thread::sleep(Duration::from_millis(5)))?;
        while !thread.is_finished()? {
            this_thread::sleep(Duration::from_millis(1))?;
        }
        thread.join()?
    });
}

#[test]
fn ksync_37_threads_belong_to_the_system_process() {
    on_machine(|| {
        let user = ksim::create_process();
        let process = ksim::in_process(user, || {
            let thread = thread::spawn(|| ProcessObject::current().id()).unwrap();
            thread.join().unwrap()
        });
        assert_eq!(process, 4);
        Ok(())
    });
}

#[test]
fn ksync_38_dropping_a_handle_joins_and_handles_can_be_stored() {
    on_seeds(|| {
        static_assertions::assert_impl_all!(JoinHandle<u32>: Send, Sync);
        let done = Arc::new(AtomicBool::new(false));
        let stored = Mutex::new(None);
        let flag = done.clone();
        *stored.lock().unwrap() = Some(thread::spawn(move || {
            this_thread::sleep(Duration::from_secs(1)).unwrap();
            flag.store(true, Ordering::Relaxed);
        })?);
        drop(stored);
        assert!(done.load(Ordering::Relaxed));
        Ok(())
    });
}

#[test]
fn no_memory_gives_the_closure_back() {
    // The packet, the thread itself, its stack: whichever allocation fails.
    let mut failures = 0;
    for failing in 1..8 {
        Machine::new()
            .fail_allocation(failing)
            .run(|| {
                let drops = Arc::new(AtomicU32::new(0));
                let owned = Counted(drops.clone());
                match thread::spawn(move || drop(owned)) {
                    Ok(thread) => thread.join().unwrap(),
                    Err(failure) => {
                        failures += 1;
                        assert_eq!(failure.error, NtError::INSUFFICIENT_RESOURCES);
                        assert_eq!(drops.load(Ordering::Relaxed), 0);
                        (failure.closure)();
                    }
                }
                assert_eq!(drops.load(Ordering::Relaxed), 1);
            })
            .expect_clean();
    }
    assert!(failures > 0);
}

#[test]
fn settings_are_applied_and_checked() {
    Machine::new()
        .processors(4)
        .run(|| {
            let thread = Builder::new()
                .priority(17)
                .affinity(0b100)
                .spawn(|| (ThreadObject::current().priority(), ksync::dpc::Processor::current().number))
                .unwrap();
            assert_eq!(thread.join().unwrap(), (Ok(17), 2));
            for wrong in [
                Builder::new().priority(0),
                Builder::new().priority(32),
                Builder::new().affinity(0),
                Builder::new().affinity(1 << 40),
            ] {
                assert_eq!(wrong.spawn(|| ()).unwrap_err().error, NtError::INVALID_PARAMETER);
            }
        })
        .expect_clean();
}

#[test]
fn threads_have_names_and_processes() {
    /// The running thread's name.
    fn name() -> String {
        let mut place = [0_u64; 32];
        let (thread, class, size) = (sys::NtCurrentThread(), sys::ThreadNameInformation, size_of_val(&place) as u32);
        // SAFETY: the place is so large.
        let status =
            unsafe { sys::ZwQueryInformationThread(thread, class, place.as_mut_ptr().cast(), size, core::ptr::null_mut()) };
        assert_eq!(status, 0);
        // SAFETY: the service succeeded and wrote a string there, whose text lies behind it.
        let found = unsafe { &*place.as_ptr().cast::<sys::UNICODE_STRING>() };
        // SAFETY: as above.
        unsafe { ksync::driver::UnicodeStr::from_raw(found) }.to_string()
    }
    on_seeds(|| {
        assert_eq!(thread::spawn(name)?.join()?, "");
        // The name need not live as long as the thread.
        let named = {
            let text = String::from("poller \u{e9}");
            Builder::new().name(&text).spawn(name)?
        };
        assert_eq!(named.join()?, "poller \u{e9}");
        assert_eq!(Builder::new().name(&"n".repeat(64)).spawn(name)?.join()?.len(), 64);
        let process = ProcessObject::from_process_id(ksim::create_process())?;
        let inside = Builder::new().name("inside").process(&process).spawn(|| (ProcessObject::current(), name()))?;
        assert_eq!(inside.join()?, (process.clone(), "inside".to_owned()));
        let mut borrowed = 0;
        thread::scope(|scope| {
            let builder = Builder::new().name("scoped").process(&process).priority(9);
            let scoped = builder.spawn_scoped(scope, || {
                borrowed += 1;
                name()
            })?;
            assert_eq!(scoped.join()?, "scoped");
            Result::<()>::Ok(())
        })?;
        assert_eq!(borrowed, 1);
        Ok(())
    });
}

#[test]
fn no_memory_in_another_process_gives_the_closure_back() {
    let mut failures = 0;
    for failing in 1..8 {
        Machine::new()
            .fail_allocation(failing)
            .run(|| {
                let process = ProcessObject::current();
                match Builder::new().name("other").process(&process).spawn(|| 5) {
                    Ok(thread) => assert_eq!(thread.join(), Ok(5)),
                    Err(failure) => {
                        failures += 1;
                        assert_eq!((failure.error, (failure.closure)()), (NtError::INSUFFICIENT_RESOURCES, 5));
                    }
                }
            })
            .expect_clean();
    }
    assert!(failures >= 3, "{failures}");
}

#[test]
fn a_thread_cannot_join_itself() {
    on_seeds(|| {
        let slot: Arc<Mutex<Option<JoinHandle<()>>>> = Arc::default();
        let stored = Event::new(EventProperty::Notification, false)?;
        let (own, ready) = (slot.clone(), Arc::new(stored));
        let go = ready.clone();
        *slot.lock().unwrap() = Some(thread::spawn(move || {
            assert!(go.wait().success());
            let handle = own.lock().unwrap().take().unwrap();
            assert_eq!(handle.join(), Err(NtError::WOULD_DEADLOCK));
        })?);
        ready.set()?;
        ksync::driver::drain()
    });
}

#[test]
fn above_apc_level_a_join_fails_and_a_drop_detaches() {
    let outcome = Machine::new().processors(2).run(|| {
        let first = thread::spawn(|| this_thread::sleep(Duration::from_secs(1)).unwrap()).unwrap();
        let second = thread::spawn(|| this_thread::sleep(Duration::from_secs(1)).unwrap()).unwrap();
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(first.is_finished(), Ok(false));
            assert_eq!(first.join(), Err(NtError::IRQL_TOO_HIGH));
            drop(second);
        })
        .unwrap();
        ksync::driver::drain().unwrap();
    });
    assert!(outcome.debug_output().iter().any(|line| line.contains("above APC_LEVEL")), "{:?}", outcome.debug_output());
    outcome.expect_clean();
}

#[test]
fn at_apc_level_a_join_waits() {
    on_seeds(|| {
        let thread = thread::spawn(|| this_thread::sleep(Duration::from_secs(1)).map(|()| 5))?;
        assert_eq!(irql::with_raised(Irql::APC, || thread.join())?, Ok(Ok(5)));
        Ok(())
    });
}

#[test]
fn drain_waits_for_detached_threads_and_for_those_that_they_start() {
    on_seeds(|| {
        let done = Arc::new(AtomicU32::new(0));
        let count = done.clone();
        thread::spawn(move || {
            let inner = count.clone();
            thread::spawn(move || {
                this_thread::sleep(Duration::from_secs(3)).unwrap();
                inner.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap()
            .detach();
            count.fetch_add(1, Ordering::Relaxed);
        })?
        .detach();
        ksync::driver::drain()?;
        assert_eq!(done.load(Ordering::Relaxed), 2);
        Ok(())
    });
}

#[test]
fn a_thread_that_drains_does_not_wait_for_itself() {
    on_seeds(|| {
        thread::spawn(|| this_thread::sleep(Duration::from_secs(1)).unwrap())?.detach();
        thread::spawn(ksync::driver::drain)?.join()?
    });
}

#[test]
fn detached_threads_that_have_ended_are_freed_when_others_start() {
    let outcome = Machine::new().run(|| {
        for _ in 0..10 {
            thread::spawn(|| ()).unwrap().detach();
            this_thread::sleep(Duration::from_millis(1)).unwrap();
        }
        thread::spawn(|| ()).unwrap().join().unwrap();
    });
    outcome.expect_clean();
}

#[test]
fn forgotten_handles_leak_but_their_threads_are_waited_for() {
    let outcome = Machine::new().run(|| {
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        std::mem::forget(
            thread::spawn(move || {
                this_thread::sleep(Duration::from_secs(1)).unwrap();
                flag.store(true, Ordering::Relaxed);
            })
            .unwrap(),
        );
        ksync::driver::drain().unwrap();
        assert!(done.load(Ordering::Relaxed));
        ksync::driver::drain().unwrap();
    });
    assert!(outcome.is_completed());
    assert_eq!(outcome.left().pool.len(), 1);
}

#[test]
fn scoped_threads_borrow_and_are_waited_for() {
    on_seeds(|| {
        let mut numbers = [1, 2, 3, 4];
        let total = AtomicU32::new(0);
        thread::scope(|scope| {
            for number in &mut numbers {
                let total = &total;
                scope.spawn(move || {
                    this_thread::sleep(Duration::from_millis(1)).unwrap();
                    *number *= 2;
                    total.fetch_add(*number, Ordering::Relaxed);
                })?;
            }
            Result::<()>::Ok(())
        })?;
        assert_eq!(numbers, [2, 4, 6, 8]);
        assert_eq!(total.into_inner(), 20);
        Ok(())
    });
}

#[test]
fn scoped_threads_start_others_and_join_each_other() {
    on_seeds(|| {
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let first = scope.spawn(|| order.lock().unwrap().push(1))?;
            scope.spawn(|| {
                first.join().unwrap();
                scope.spawn(|| order.lock().unwrap().push(3)).unwrap();
                order.lock().unwrap().push(2);
            })?;
            Result::<()>::Ok(())
        })?;
        let mut order = order.into_inner().unwrap();
        assert_eq!(order.first(), Some(&1));
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3]);
        Ok(())
    });
}

#[test]
fn a_scope_waits_for_forgotten_handles_and_drops_results_once() {
    on_seeds(|| {
        let drops = Arc::new(AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                let value = Counted(drops.clone());
                // Dropping the handle of a scope's thread does nothing, as forgetting it.
                let _ = scope.spawn(move || value)?;
            }
            Result::<()>::Ok(())
        })?;
        assert_eq!(drops.load(Ordering::Relaxed), 3);
        Ok(())
    });
}

#[test]
fn a_scope_that_ends_at_dispatch_level_polls() {
    Machine::new()
        .processors(2)
        .run(|| {
            let mut number = 0;
            let mut old = 0;
            thread::scope(|scope| {
                scope.spawn(|| number = 7).unwrap();
                // SAFETY: the level is restored below.
                old = unsafe { ksync::sys::KeRaiseIrqlToDpcLevel() };
            });
            // SAFETY: the level was raised above from this one.
            unsafe { ksync::sys::KeLowerIrql(old) };
            assert_eq!(number, 7);
        })
        .expect_clean();
}

#[test]
fn a_panic_in_a_thread_is_reported_and_frees_nothing_twice() {
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let drops = Arc::new(AtomicU32::new(0));
            let owned = Counted(drops.clone());
            let thread = thread::spawn(move || {
                let _owned = &owned;
                panic!("on purpose");
            })
            .unwrap();
            let _: Result<()> = thread.join();
        });
        assert!(outcome.to_string().contains("on purpose"), "{outcome}");
    }
}

#[test]
fn a_panic_in_a_scope_is_reported() {
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let text = String::from("borrowed");
            thread::scope(|scope| {
                scope.spawn(|| text.len()).unwrap();
                panic!("on purpose");
            })
        });
        assert!(outcome.to_string().contains("on purpose"), "{outcome}");
    }
}

#[test]
fn ksync_50_the_polling_thread_of_the_wdm_chapter() {
    on_seeds(|| {
        use ksync::timer::{Timer, TimerKind};
        let kill = Arc::new(Event::new(EventProperty::Notification, false)?);
        let polled = Arc::new(Semaphore::new(0, 100)?);
        let (stop, poll) = (kill.clone(), polled.clone());
        let thread = thread::spawn(move || {
            let timer = Timer::waitable(TimerKind::Synchronization).unwrap();
            timer.start(Duration::ZERO, Duration::from_millis(500)).unwrap();
            let mut polls = 0;
            while let WaitResult::Signaled(1) = ksync::wait::wait_any(&[&**stop, &timer], WaitOptions::new()) {
                polls += 1;
                poll.release(1).unwrap();
            }
            polls
        })?;
        for _ in 0..10 {
            assert!(polled.wait().success());
        }
        kill.set()?;
        assert_eq!(thread.join()?, 10);
        Ok(())
    });
}

#[test]
fn objects_and_handles_turn_into_each_other() {
    on_seeds(|| {
        let thread = thread::spawn(|| this_thread::sleep(Duration::from_secs(1)))?;
        let handle = ObjectHandle::from_thread(thread.thread(), ksync::sys::THREAD_ALL_ACCESS)?;
        let object = ThreadObject::from_thread_handle(handle.as_raw())?;
        assert_eq!(&object, thread.thread());
        assert!(!object.wait_for(Duration::ZERO, false).success());
        assert_eq!(object.exit_status()?, None);
        thread.join()??;
        assert!(object.wait_for(Duration::ZERO, false).success());
        assert_eq!(object.exit_status()?, Some(ksync::NtStatus::SUCCESS));
        handle.close()
    });
}

#[test]
fn a_thread_asks_and_tells_about_itself() {
    for processors in [1, 2, 4, 64] {
        for seed in 0..10 {
            let outcome = Machine::new().processors(processors).seed(seed).run(|| {
                let too_high = Err(NtError::IRQL_TOO_HIGH);
                let object = this_thread::current();
                assert_eq!((object.id(), object.priority()), (this_thread::id(), this_thread::priority()));
                assert_eq!(this_thread::set_priority(12), Ok(8));
                for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
                    irql::with_raised(level, || {
                        assert_eq!(this_thread::priority(), Ok(12));
                        assert_eq!(this_thread::is_terminating(), Ok(false));
                        let set = this_thread::set_priority(12);
                        assert_eq!(set, if level == Irql::PASSIVE { Ok(12) } else { too_high });
                        // A stall is for each level, and takes its time.
                        let start = InterruptTime::now();
                        this_thread::stall(Duration::from_micros(50));
                        assert!(start.elapsed() >= Duration::from_micros(50));
                        let paused = [this_thread::pause(), this_thread::yield_now()];
                        assert_eq!(paused, [if level == Irql::DISPATCH { too_high.map(drop) } else { Ok(()) }; 2]);
                    })
                    .unwrap();
                }
                // SAFETY: the level is above the present one, and taken back below.
                let old = unsafe { sys::KfRaiseIrql(3) };
                let results = [this_thread::priority(), this_thread::is_terminating().map(i32::from)];
                // SAFETY: as above.
                unsafe { sys::KeLowerIrql(old) };
                assert_eq!(results, [too_high; 2]);
                assert_eq!(this_thread::set_priority(8), Ok(12));
                ksim::request_termination(this_thread::id().get());
                assert_eq!(this_thread::is_terminating(), Ok(true));
            });
            outcome.expect_clean();
        }
    }
}

/// On one processor a thread of the same priority runs while this one gives way, and not otherwise.
#[test]
fn who_pauses_lets_others_run() {
    for give_way in [this_thread::pause, this_thread::yield_now] {
        for seed in 0..20 {
            let outcome = Machine::new().processors(1).seed(seed).run(|| {
                let turns = Arc::new(AtomicU32::new(0));
                let others = turns.clone();
                let other = thread::spawn(move || others.fetch_add(1, Ordering::Relaxed)).unwrap();
                for _ in 0..1000 {
                    if turns.load(Ordering::Relaxed) > 0 {
                        break;
                    }
                    give_way().unwrap();
                }
                assert_eq!(turns.load(Ordering::Relaxed), 1);
                assert_eq!(other.join(), Ok(0));
            });
            outcome.expect_clean();
        }
    }
}
