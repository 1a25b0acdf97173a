//! Work items, and the system worker threads that run them.

use super::routine::{Routine, Running};
use crate::engine::context::Context;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::object::{Kind, ObjId, SYSTEM};
use crate::engine::thread::Tid;
use crate::report::bug_check::{Violation, codes};
use crate::report::sites::SiteId;
use crate::report::trace::Operation;
use ksync_sys::{
    DEVICE_OBJECT, IO_WORKITEM, LIST_ENTRY, PIO_WORKITEM_ROUTINE, PIO_WORKITEM_ROUTINE_EX, PWORKER_THREAD_ROUTINE,
    WORK_QUEUE_ITEM,
};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::null_mut;

/// The tag of I/O work items, as in NT.
const TAG: u32 = u32::from_le_bytes(*b"IoWI");
/// The size of an I/O work item. Drivers ask for it: it differs from version to version.
pub(crate) const ITEM_BYTES: usize = 88;

/// The priorities of the worker threads of each queue, by WORK_QUEUE_TYPE.
const PRIORITIES: [u8; 7] = [13, 12, 15, 8, 7, 18, 14];

/// What an I/O work item keeps loaded while it is queued or runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Device(ObjId),
    Driver(u16),
}

/// An I/O work item's state.
#[derive(Debug)]
pub(crate) struct IoWorkState {
    target: Target,
    pub(crate) queued: bool,
    /// IoAllocateWorkItem made it, so that IoFreeWorkItem frees it.
    allocated: bool,
}

/// A routine of an I/O work item.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IoRoutine {
    Plain(PIO_WORKITEM_ROUTINE),
    Extended(PIO_WORKITEM_ROUTINE_EX),
}

/// What a worker thread is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// A work item of ExQueueWorkItem.
    Executive { item: usize, driver: Option<u16>, queued_at: Option<SiteId> },
    /// An I/O work item.
    Io { item: usize, routine: IoRoutine, object: *mut c_void, context: *mut c_void, target: Target },
    /// The driver of a file whose last reference is gone is to be told.
    Close(ObjId),
}

/// What a worker thread does.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Executive { routine: PWORKER_THREAD_ROUTINE, parameter: *mut c_void, running: Running },
    Io { item: usize, routine: IoRoutine, object: *mut c_void, context: *mut c_void, target: Target, running: Running },
    Close(ObjId),
}

/// The work queues.
#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    /// By WORK_QUEUE_TYPE.
    queues: [VecDeque<Job>; 7],
    idle: Vec<Tid>,
    /// How many worker threads the machine's loop is to create.
    pub(crate) wanted: usize,
    /// The drivers whose executive work items run, by worker.
    running: Vec<(Tid, Option<u16>)>,
}

impl WorkQueue {
    /// Forgets everything, and keeps its memory.
    pub(super) fn clear(&mut self) {
        let Self { queues, idle, wanted, running } = self;
        queues.iter_mut().for_each(VecDeque::clear);
        idle.clear();
        *wanted = 0;
        running.clear();
    }

    /// True for a worker thread that has nothing to do.
    pub(crate) fn is_idle(&self, tid: Tid) -> bool {
        self.idle.contains(&tid)
    }

    /// An executive work item of a driver that is queued, or whether one runs.
    pub(crate) fn of_driver(&self, driver: u16) -> Option<Option<(usize, Option<SiteId>)>> {
        let queued = self.queues.iter().flatten().find_map(|job| match job {
            Job::Executive { item, driver: Some(owner), queued_at } if *owner == driver => Some((*item, *queued_at)),
            _ => None,
        });
        match queued {
            Some(item) => Some(Some(item)),
            None => self.running.iter().any(|(_, owner)| *owner == Some(driver)).then_some(None),
        }
    }
}

/// Bug check WORKER_INVALID.
fn worker_invalid(position: u64, item: usize, meaning: &'static str) -> Box<Violation> {
    Violation::boxed(codes::WORKER_INVALID, [position, item as u64, 0, 0], meaning)
}

impl Kernel {
    fn enqueue_job(&mut self, job: Job, queue: i32) -> Check<()> {
        let Some(jobs) = usize::try_from(queue).ok().and_then(|queue| self.io.work.queues.get_mut(queue)) else {
            return Err(Violation::boxed(
                codes::INVALID_WORK_QUEUE_ITEM,
                [0, 0, queue as u32 as u64, 0],
                "a work item was queued to a work queue that does not exist",
            ));
        };
        jobs.push_back(job);
        self.order_ended();
        // The machine is not done before its work is.
        self.live_threads += 1;
        match self.io.work.idle.pop() {
            Some(tid) => {
                let priority = PRIORITIES[queue as usize];
                self.set_priority(tid, priority);
                self.unpark(tid, SYSTEM);
            }
            None => self.io.work.wanted += 1,
        }
        self.attention = true;
        Ok(())
    }

    /// Enters a worker thread that the machine's loop has made.
    pub(crate) fn create_worker(&mut self, context: Box<Context>) {
        self.io.work.wanted -= 1;
        let priority =
            self.io.work.queues.iter().position(|queue| !queue.is_empty()).map_or(PRIORITIES[1], |index| PRIORITIES[index]);
        self.create_worker_thread(priority, context);
    }

    /// ExQueueWorkItem.
    pub(crate) fn queue_executive(&mut self, item: *mut WORK_QUEUE_ITEM, queue: i32) -> Check<()> {
        let address = item as usize;
        if let Some(id) = self.objects.find(address)
            && matches!(self.objects[id].kind, Kind::WorkItem)
        {
            return Err(worker_invalid(1, address, "a work item was queued while it was queued"));
        }
        if address < 0x1_0000 || self.pool.describe_freed(address).is_some() {
            // Says why.
            self.object_at(item)?;
        }
        // SAFETY: the caller of the export passes an initialised work item.
        let routine = unsafe { (*item).WorkerRoutine };
        if routine.is_none() {
            return Err(Violation::boxed(
                codes::INVALID_WORK_QUEUE_ITEM,
                [address as u64, 0, 0, 0],
                "a work item was queued that has no routine",
            ));
        }
        let id = self.objects.register(address, Kind::WorkItem);
        // SAFETY: as above; a queued item has links.
        let list = unsafe { &raw mut (*item).List };
        // SAFETY: as above.
        unsafe { list.write(LIST_ENTRY { Flink: list, Blink: list }) };
        let number = self.objects[id].number;
        self.record(Operation::QueueWork, number, queue as u32 as u64);
        let driver = self.current_driver();
        let queued_at = self.site();
        self.enqueue_job(Job::Executive { item: address, driver, queued_at }, queue)
    }

    /// The device or driver that an I/O work item is for.
    fn work_target(&mut self, object: *mut c_void) -> Check<Target> {
        let is = |kind: &Kind| matches!(kind, Kind::Device(_) | Kind::Driver(_));
        let id = self.object_of_kind(object.cast_const(), "device or driver", is)?;
        match self.objects[id].kind {
            Kind::Driver(driver) => Ok(Target::Driver(driver)),
            _ => Ok(Target::Device(id)),
        }
    }

    /// IoAllocateWorkItem. Null if there is no memory.
    pub(crate) fn allocate_work_item(&mut self, device: *mut DEVICE_OBJECT) -> Check<*mut IO_WORKITEM> {
        let target = self.work_target(device.cast())?;
        let driver = self.current_driver();
        let item = self.allocate_system(ITEM_BYTES, TAG, driver);
        if !item.is_null() {
            let state = IoWorkState { target, queued: false, allocated: true };
            self.objects.register(item as usize, Kind::IoWorkItem(Box::new(state)));
        }
        Ok(item.cast())
    }

    /// IoInitializeWorkItem: an I/O work item in the caller's memory.
    pub(crate) fn initialize_work_item(&mut self, object: *mut c_void, item: *mut IO_WORKITEM) -> Check<()> {
        let target = self.work_target(object)?;
        if let Some(id) = self.objects.find(item as usize)
            && matches!(&self.objects[id].kind, Kind::IoWorkItem(state) if state.queued || state.allocated)
        {
            return Err(worker_invalid(3, item as usize, "an I/O work item was initialised again while it was queued"));
        }
        if (item as usize) < 0x1_0000 {
            // Says why.
            self.object_at(item.cast_const().cast::<u8>())?;
        }
        // SAFETY: the caller of the export passes memory of IoSizeofWorkItem bytes.
        unsafe { item.cast::<u8>().write_bytes(0, ITEM_BYTES) };
        let state = IoWorkState { target, queued: false, allocated: false };
        self.objects.register(item as usize, Kind::IoWorkItem(Box::new(state)));
        Ok(())
    }

    /// IoFreeWorkItem, or IoUninitializeWorkItem where the caller owns the memory.
    pub(crate) fn free_work_item(&mut self, item: *mut IO_WORKITEM, allocated: bool) -> Check<()> {
        let id = self.object_of_kind(item, "I/O work item", |kind| matches!(kind, Kind::IoWorkItem(_)))?;
        let Kind::IoWorkItem(state) = &self.objects[id].kind else { unreachable!("object_of_kind checked the kind") };
        if state.queued {
            return Err(worker_invalid(2, item as usize, "an I/O work item was freed while it was queued"));
        }
        if state.allocated != allocated {
            return Err(Violation::boxed(
                codes::BAD_POOL_CALLER,
                [0x46, item as u64, 0, 0],
                "an I/O work item was freed by the routine for the other kind: IoFreeWorkItem is for those of IoAllocateWorkItem",
            ));
        }
        self.objects.remove(id);
        if allocated { self.release_system(item as usize) } else { Ok(()) }
    }

    /// True for an I/O work item that is queued.
    pub(crate) fn is_queued_io(&mut self, item: *mut IO_WORKITEM) -> Check<bool> {
        let id = self.object_of_kind(item, "I/O work item", |kind| matches!(kind, Kind::IoWorkItem(_)))?;
        Ok(matches!(&self.objects[id].kind, Kind::IoWorkItem(state) if state.queued))
    }

    /// IoQueueWorkItem and its like. The item keeps its device or driver until its routine has returned.
    pub(crate) fn queue_io(&mut self, item: *mut IO_WORKITEM, routine: IoRoutine, queue: i32, context: *mut c_void) -> Check<()> {
        let id = self.object_of_kind(item, "I/O work item", |kind| matches!(kind, Kind::IoWorkItem(_)))?;
        let number = self.objects[id].number;
        let Kind::IoWorkItem(state) = &mut self.objects[id].kind else { unreachable!("object_of_kind checked the kind") };
        if std::mem::replace(&mut state.queued, true) {
            return Err(worker_invalid(1, item as usize, "an I/O work item was queued while it was queued"));
        }
        let target = state.target;
        let object = match target {
            Target::Device(device) => {
                if !matches!(self.objects[device].kind, Kind::Device(_)) {
                    return Err(Violation::boxed(
                        codes::REFERENCE_BY_POINTER,
                        [0, item as u64, 0, 0],
                        "an I/O work item was queued whose device is gone",
                    ));
                }
                self.reference_object(device, 1)?;
                self.objects[device].address as *mut c_void
            }
            Target::Driver(driver) => {
                let entry = self.drivers.entry(driver);
                entry.references += 1;
                entry.object_address() as *mut c_void
            }
        };
        self.record(Operation::QueueWork, number, queue as u32 as u64);
        self.enqueue_job(Job::Io { item: item as usize, routine, object, context, target }, queue)
    }

    /// The driver of a file that nobody references any more is to be told, at PASSIVE_LEVEL and not here.
    pub(crate) fn queue_close(&mut self, file: ObjId) -> Check<()> {
        self.enqueue_job(Job::Close(file), ksync_sys::CriticalWorkQueue)
    }

    /// The next work for the running worker thread. None when it had to wait for some.
    pub(crate) fn next_work(&mut self) -> Check<Option<Work>> {
        let tid = self.this_thread();
        // The most urgent queue first.
        let mut order: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];
        order.sort_by_key(|&queue| std::cmp::Reverse(PRIORITIES[queue]));
        let next = order.into_iter().find_map(|queue| Some((queue, self.io.work.queues[queue].pop_front()?)));
        // What was done before a job was queued is over when it runs.
        self.order_end_seen(tid);
        let Some((queue, job)) = next else {
            if !self.io.work.idle.contains(&tid) {
                self.io.work.idle.push(tid);
            }
            self.park(SYSTEM, "work items")?;
            return Ok(None);
        };
        // An idle worker that was broken off its wait may take a job that another was woken for.
        self.io.work.idle.retain(|&idle| idle != tid);
        self.set_priority(tid, PRIORITIES[queue]);
        let work = match job {
            Job::Executive { item, driver, .. } => {
                let id = self.objects.find(item).expect("ksim: a queued work item is registered");
                let number = self.objects[id].number;
                let item = item as *mut WORK_QUEUE_ITEM;
                // SAFETY: a queued item stays valid, by the contract of ExQueueWorkItem: freeing one is a bug check.
                let value = unsafe { item.read() };
                // It may be queued again, or freed, from now on.
                // SAFETY: as above.
                unsafe { (*item).List.Flink = null_mut() };
                self.objects.remove(id);
                self.record(Operation::RunWork, number, 0);
                self.io.work.running.push((tid, driver));
                let address = value.WorkerRoutine.map_or(0, |routine| routine as usize);
                let running = self.enter_driver_routine(Routine::Worker, address, driver);
                Work::Executive { routine: value.WorkerRoutine, parameter: value.Parameter, running }
            }
            Job::Io { item, routine, object, context, target } => {
                let id = self.objects.find(item).expect("ksim: a queued work item is registered");
                let number = self.objects[id].number;
                if let Kind::IoWorkItem(state) = &mut self.objects[id].kind {
                    state.queued = false;
                }
                self.record(Operation::RunWork, number, 0);
                let driver = match target {
                    Target::Device(device) => self.device_state(device).driver,
                    Target::Driver(driver) => driver,
                };
                let address = match routine {
                    IoRoutine::Plain(routine) => routine.map_or(0, |routine| routine as usize),
                    IoRoutine::Extended(routine) => routine.map_or(0, |routine| routine as usize),
                };
                let running = self.enter_driver_routine(Routine::Worker, address, Some(driver));
                Work::Io { item, routine, object, context, target, running }
            }
            Job::Close(file) => Work::Close(file),
        };
        Ok(Some(work))
    }

    /// A routine has returned: what it kept may go.
    pub(crate) fn finish_work(&mut self, work: Work) -> Check<()> {
        let tid = self.this_thread();
        match work {
            Work::Executive { running, .. } => {
                self.leave_routine(running, None)?;
                self.io.work.running.retain(|(worker, _)| *worker != tid);
            }
            Work::Io { target, running, .. } => {
                self.leave_routine(running, None)?;
                match target {
                    Target::Device(device) => {
                        self.dereference_object(device, 1)?;
                    }
                    Target::Driver(driver) => self.dereference_driver(driver),
                }
            }
            Work::Close(_) => {}
        }
        self.live_threads -= 1;
        Ok(())
    }
}
