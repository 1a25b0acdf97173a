//! The bounded queue between the device and the workers.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ksync::device::{Disposition, Irp, IrpQueue, PendingIrp};
use ksync::error::{NtStatus, Result};
use ksync::mutex::FastLocked;
use ksync::semaphore::Semaphore;
use ksync::sys;
use ksync::wait::Dispatchable;

/// What became of requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) completed: u32,
    pub(crate) cancelled: u32,
    pub(crate) refused: u32,
}

impl Statistics {
    /// As the device gives them out.
    pub(crate) fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        for (place, number) in bytes.chunks_exact_mut(4).zip([self.completed, self.cancelled, self.refused]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

/// A bounded queue of requests.
///
/// The semaphore counts the requests that were put in and not taken note of yet. One that was cancelled meanwhile is still counted: the worker that is woken for it finds nothing.
#[derive(Debug)]
pub(crate) struct Queue {
    requests: IrpQueue,
    items: Semaphore,
    /// How many are counted, of `capacity` at most.
    waiting: AtomicU32,
    capacity: u32,
    stopping: AtomicBool,
    statistics: FastLocked<Statistics>,
}

impl Queue {
    /// An empty queue for so many requests, and so many workers.
    pub(crate) fn new(capacity: u32, workers: usize) -> Result<Self> {
        Ok(Self {
            requests: IrpQueue::new()?,
            // Each worker is woken once more at the end.
            items: Semaphore::new(0, capacity + workers as u32)?,
            waiting: AtomicU32::new(0),
            capacity,
            stopping: AtomicBool::new(false),
            statistics: FastLocked::new(Statistics::default())?,
        })
    }

    /// Puts a request in, or refuses it as `STATUS_DEVICE_BUSY`.
    pub(crate) fn submit<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        let room = |waiting: u32| (waiting < self.capacity).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            self.count(|statistics| statistics.refused += 1);
            return irp.complete(NtStatus(sys::STATUS_DEVICE_BUSY), 0);
        }
        let disposition = self.requests.insert(irp);
        // The semaphore has room for all that are counted.
        let released = self.items.release(1);
        debug_assert!(released.is_ok());
        disposition
    }

    /// The next request, for a worker; none when the workers are to end.
    pub(crate) fn next(&self) -> Option<PendingIrp> {
        loop {
            let _ = self.items.wait();
            if let Some(irp) = self.requests.pop() {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some(irp);
            }
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            // It was cancelled.
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.count(|statistics| statistics.cancelled += 1);
        }
    }

    /// Completes what waits for an open file as cancelled.
    pub(crate) fn cancel_for_file(&self, file: usize) {
        self.requests.cancel_for_file(file);
    }

    /// Wakes all workers: each ends when it finds no request.
    pub(crate) fn stop(&self, workers: usize) {
        self.stopping.store(true, Ordering::Release);
        let released = self.items.release(workers as u32);
        debug_assert!(released.is_ok());
    }

    /// Takes note of something.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Statistics)) {
        if let Ok(mut statistics) = self.statistics.lock() {
            change(&mut statistics);
        }
    }

    /// What became of requests so far.
    pub(crate) fn statistics(&self) -> Result<Statistics> {
        Ok(*self.statistics.lock()?)
    }
}
