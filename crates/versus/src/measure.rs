//! Taking figures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The middle one of an odd number of figures.
pub(crate) fn median<T: PartialOrd + Copy>(mut figures: Vec<T>) -> T {
    figures.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    figures[figures.len() / 2]
}

/// How long `code` takes.
pub(crate) fn time(code: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    code();
    begin.elapsed()
}

/// A program that counts its runs.
pub(crate) fn counted(program: impl Fn() + Send + Sync + 'static) -> (Arc<AtomicU64>, impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&runs);
    let program = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        program();
    };
    (runs, program)
}

/// Searches until something fails: how many schedules that took, and how long. None if nothing failed.
pub(crate) fn until_failure(
    program: impl Fn() + Send + Sync + 'static,
    search: impl FnOnce(Box<dyn Fn() + Send + Sync>),
) -> Option<(u64, Duration)> {
    let (runs, program) = counted(program);
    let begin = Instant::now();
    let failed = catch_unwind(AssertUnwindSafe(|| search(Box::new(program)))).is_err();
    failed.then(|| (runs.load(Ordering::Relaxed), begin.elapsed()))
}
