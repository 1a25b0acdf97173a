//! The I/O manager: devices, open files, requests, work items, remove locks and device queues.
//!
//! What drivers' inlined header code reads (a device's links, a request's stack locations ...) is in the true structures; what the
//! engine relies on is in the side table. As everywhere in the engine, nothing here runs driver code: the exports do, between two steps of the engine.

pub(crate) mod build;
pub(crate) mod device;
pub(crate) mod device_queue;
pub(crate) mod file;
pub(crate) mod interrupt;
pub(crate) mod irp;
pub(crate) mod names;
pub(crate) mod remove_lock;
pub(crate) mod request;
pub(crate) mod routine;
pub(crate) mod timer;
pub(crate) mod work;

use ksync_sys::KSPIN_LOCK;

/// The state of the I/O manager beside its objects.
pub(crate) struct IoManager {
    pub(crate) names: names::Names,
    pub(crate) requests: request::Requests,
    pub(crate) work: work::WorkQueue,
    pub(crate) timers: timer::IoTimers,
    /// The cancel spin lock, which does not move.
    pub(crate) cancel_lock: Box<KSPIN_LOCK>,
    /// How many interrupts have been connected.
    pub(crate) interrupts: u64,
    /// The devices that have a line.
    pub(crate) lines: Vec<(usize, interrupt::InterruptLine)>,
    /// How many devices have been given a name by the system.
    pub(crate) automatic_names: u32,
}

impl Default for IoManager {
    fn default() -> Self {
        Self {
            names: names::Names::default(),
            requests: request::Requests::default(),
            work: work::WorkQueue::default(),
            timers: timer::IoTimers::default(),
            cancel_lock: Box::new(0),
            interrupts: 0,
            lines: Vec::new(),
            automatic_names: 0,
        }
    }
}

impl IoManager {
    /// Forgets everything, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        let Self { names, requests, work, timers, cancel_lock, interrupts, lines, automatic_names } = self;
        if !names.is_unused() {
            *names = names::Names::default();
        }
        if !requests.is_unused() {
            *requests = request::Requests::default();
        }
        work.clear();
        timers.clear();
        **cancel_lock = 0;
        *interrupts = 0;
        lines.clear();
        *automatic_names = 0;
    }
}
