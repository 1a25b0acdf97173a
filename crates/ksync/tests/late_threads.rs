//! Threads and handles that outlive what was thought to be the end: in results, in destructors of results, in threaded DPCs during an unload.

use core::time::Duration;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use ksim::Machine;
use ksync::NtError;
use ksync::dpc::{Processor, ThreadedDpc};
use ksync::driver;
use ksync::thread::{self, Scope, ScopedJoinHandle, this_thread};

/// A result that joins another thread of its scope when it is dropped.
struct Joins<'scope>(Option<ScopedJoinHandle<'scope, Vec<u8>>>);

impl Drop for Joins<'_> {
    fn drop(&mut self) {
        let handle = self.0.take().expect("it is dropped once");
        // The scope drops its threads' results newest first, so that the other one's may be gone.
        assert!(matches!(handle.join(), Ok(_) | Err(NtError::UNSUCCESSFUL)));
    }
}

#[test]
fn a_result_may_hold_a_handle_of_its_scope() {
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            thread::scope(|scope| {
                let (sender, receiver) = mpsc::channel();
                let wait_for_it = move || {
                    loop {
                        if let Ok(handle) = receiver.try_recv() {
                            return Joins(Some(handle));
                        }
                        this_thread::sleep(Duration::from_millis(1)).unwrap();
                    }
                };
                scope.spawn(wait_for_it).unwrap();
                sender.send(scope.spawn(|| vec![7_u8; 100]).unwrap()).unwrap();
            });
        });
        outcome.expect_clean();
    }
}

/// A result that starts another thread of its scope when it is dropped.
struct Spawns<'scope, 'env>(&'scope Scope<'scope, 'env>, &'env AtomicU32);

impl Drop for Spawns<'_, '_> {
    fn drop(&mut self) {
        let ran = self.1;
        let late = move || {
            this_thread::sleep(Duration::from_millis(10)).unwrap();
            ran.fetch_add(1, Ordering::Relaxed);
        };
        // The handle is not used: the scope waits.
        let _handle = self.0.spawn(late).unwrap();
    }
}

#[test]
fn a_scope_waits_for_threads_that_results_start() {
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let ran = AtomicU32::new(0);
            thread::scope(|scope| {
                scope.spawn(|| Spawns(scope, &ran)).unwrap();
            });
            assert_eq!(ran.load(Ordering::Relaxed), 1);
        });
        outcome.expect_clean();
    }
}

#[test]
fn draining_waits_for_a_thread_that_a_threaded_dpc_starts() {
    for seed in 0..50 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let ended = Arc::new(AtomicU32::new(0));
            let counter = ended.clone();
            let dpc = ThreadedDpc::new(move || {
                let counter = counter.clone();
                let late = move || {
                    this_thread::sleep(Duration::from_millis(50)).unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                };
                thread::spawn(late).unwrap().detach();
            })
            .unwrap();
            dpc.set_target(Processor::from_index(1).unwrap()).unwrap();
            assert_eq!(dpc.enqueue(), Ok(true));
            driver::drain().unwrap();
            assert_eq!(ended.load(Ordering::Relaxed), 1);
        });
        outcome.expect_clean();
    }
}

#[test]
fn draining_waits_for_a_thread_that_a_detached_result_starts() {
    struct Late(Arc<AtomicU32>);
    impl Drop for Late {
        fn drop(&mut self) {
            let ended = self.0.clone();
            let late = move || {
                this_thread::sleep(Duration::from_secs(1)).unwrap();
                ended.fetch_add(1, Ordering::Relaxed);
            };
            thread::spawn(late).unwrap().detach();
        }
    }
    let outcome = Machine::new().run(|| {
        let ended = Arc::new(AtomicU32::new(0));
        let result = ended.clone();
        thread::spawn(move || Late(result)).unwrap().detach();
        this_thread::sleep(Duration::from_millis(100)).unwrap();
        driver::drain().unwrap();
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    });
    outcome.expect_clean();
}

#[test]
fn draining_in_a_threaded_dpc_is_an_error() {
    let outcome = Machine::new().run(|| {
        let refused = Arc::new(AtomicU32::new(0));
        let counter = refused.clone();
        let dpc = ThreadedDpc::new(move || {
            if driver::drain() == Err(NtError::WOULD_DEADLOCK) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        })
        .unwrap();
        dpc.enqueue().unwrap();
        dpc.flush().unwrap();
        assert_eq!(refused.load(Ordering::Relaxed), 1);
    });
    outcome.expect_clean();
}

#[test]
fn draining_waits_for_threaded_dpcs_that_a_flush_leaves_alone() {
    let mut late = 0;
    for seed in 0..40 {
        let outcome = Machine::new().processors(2).seed(seed).flushes_threaded_dpcs(false).run(|| {
            let ended = Arc::new(AtomicU32::new(0));
            let counter = ended.clone();
            let dpc = ThreadedDpc::new(move || {
                for _ in 0..20 {
                    this_thread::stall(Duration::from_micros(1));
                }
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            dpc.set_target(Processor::from_index(1).unwrap()).unwrap();
            assert_eq!(dpc.enqueue(), Ok(true));
            dpc.flush().unwrap();
            if ended.load(Ordering::Relaxed) == 0 {
                ksync::println!("the flush did not wait");
            }
            driver::drain().unwrap();
            assert_eq!(ended.load(Ordering::Relaxed), 1);
        });
        late += outcome.debug_output().len();
        outcome.expect_clean();
    }
    assert!(late > 0);
}
