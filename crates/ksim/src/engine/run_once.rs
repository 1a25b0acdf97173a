//! RTL_RUN_ONCE: one-time initialisation.
//!
//! All of its state is the true word: the two low bits say how far it is, the others hold the result's address.

use super::kernel::{Check, Kernel};
use super::object::SYSTEM;
use super::thread::Tid;

/// Nobody has begun.
pub(crate) const FRESH: usize = 0;
/// One thread initialises; others wait for it.
pub(crate) const SYNCHRONOUS: usize = 1;
/// The result is there.
pub(crate) const COMPLETE: usize = 2;
/// Threads initialise in parallel; the first that is done wins.
pub(crate) const ASYNCHRONOUS: usize = 3;
/// The bits of the word that say so.
pub(crate) const STATE: usize = 3;

/// Threads that wait for an initialisation, by the address of its word.
#[derive(Debug, Default)]
pub(crate) struct RunOnceWaits {
    waiting: Vec<(usize, Tid)>,
}

impl RunOnceWaits {
    /// True when it is as a new machine's.
    pub(super) fn is_unused(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Kernel {
    /// The running thread waits until the initialisation at `address` ends, or for a kernel APC; it looks again in either case.
    pub(crate) fn wait_for_run_once(&mut self, address: usize) -> Check<()> {
        let tid = self.this_thread();
        if !self.run_once.waiting.contains(&(address, tid)) {
            self.run_once.waiting.push((address, tid));
        }
        self.park(SYSTEM, "one-time initialisation")
    }

    /// The initialisation at `address` has ended, one way or the other.
    pub(crate) fn run_once_ended(&mut self, address: usize) {
        self.order_ended();
        let (woken, waiting) = std::mem::take(&mut self.run_once.waiting).into_iter().partition(|(waited, _)| *waited == address);
        self.run_once.waiting = waiting;
        let woken: Vec<(usize, Tid)> = woken;
        for (_, tid) in woken {
            self.unpark(tid, SYSTEM);
        }
    }
}
