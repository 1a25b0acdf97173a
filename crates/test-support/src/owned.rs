//! Machines for the tests of DPCs and timers, and what their closures own: it counts its uses and its drops.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::thread::this_thread;
use std::sync::Arc;

/// Many seeds on 1, 2, 4 and 64 processors.
pub fn on_machines(code: impl Fn() -> Result) {
    for (processors, seeds) in [(1, 12), (2, 40), (4, 20), (64, 3)] {
        for seed in 0..seeds {
            Machine::new().processors(processors).seed(seed).run(|| code().unwrap()).expect_clean();
        }
    }
}

/// Many seeds on 3 processors, for what names them.
pub fn on_seeds(code: impl Fn() -> Result) {
    for seed in 0..50 {
        Machine::new().processors(3).seed(seed).run(|| code().unwrap()).expect_clean();
    }
}

/// A value that a closure owns.
pub struct Owned {
    text: String,
    pub runs: Arc<AtomicU32>,
    drops: Arc<AtomicU32>,
}

impl Owned {
    /// The value, and the counts of its uses and its drops.
    pub fn new() -> (Self, Arc<AtomicU32>, Arc<AtomicU32>) {
        let (runs, drops) = (Arc::default(), Arc::default());
        let owned = Self { text: "captured".to_owned(), runs: Arc::clone(&runs), drops: Arc::clone(&drops) };
        (owned, runs, drops)
    }

    pub fn run(&self) {
        assert_eq!(self.text, "captured");
        self.runs.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// A closure that owns one, and takes some time, during which others act. It runs at the level, if one is named.
pub fn counting(busy: Duration, level: Option<Irql>) -> (impl Fn() + Send + Sync + 'static, Arc<AtomicU32>, Arc<AtomicU32>) {
    let (owned, runs, drops) = Owned::new();
    let closure = move || {
        assert!(level.is_none_or(|level| irql::current() == level));
        owned.run();
        this_thread::stall(busy);
        assert_eq!(owned.text, "captured");
    };
    (closure, runs, drops)
}
