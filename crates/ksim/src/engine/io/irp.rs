//! Requests (IRPs): made, sent, completed, cancelled, freed.

use super::routine::{Routine, Running};
use crate::check::rules::RuleId;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::layout;
use crate::engine::object::{Kind, ObjId};
use crate::engine::thread::{State, Tid};
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{
    DEVICE_OBJECT, IO_STACK_LOCATION, IRP, NTSTATUS, PDRIVER_CANCEL, PDRIVER_DISPATCH, PIO_COMPLETION_ROUTINE, SL_ERROR_RETURNED,
    SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS, SL_PENDING_RETURNED, STATUS_PENDING,
};
use std::ffi::c_void;
use std::ptr::null_mut;

/// The tag of requests, as in NT.
pub(crate) const TAG: u32 = u32::from_le_bytes(*b"Irp ");
/// The one field of a freed request that is kept: the pointer to its current stack location. Header code that reaches for the location of a request that
/// is gone then finds memory there, which has been freed and which it must not write.
pub(crate) const KEPT: std::ops::Range<usize> = {
    let start = std::mem::offset_of!(IRP, Tail.Overlay.CurrentStackLocation);
    start..start + size_of::<usize>()
};
/// The tag of system buffers.
pub(crate) const BUFFER_TAG: u32 = u32::from_le_bytes(*b"IoSB");

/// Who made a request, and so who frees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A driver, with IoAllocateIrp: its completion routine takes it back.
    Allocated,
    /// A driver, in memory of its own.
    Initialized,
    /// A driver, for a thread: the I/O manager frees it in an APC of that thread.
    Threaded(Tid),
    /// The I/O manager itself, for who uses a device.
    System(u32),
}

/// A request's state beside its structure.
#[derive(Debug)]
pub(crate) struct IrpState {
    pub(crate) origin: Origin,
    /// What its sender made of it: the current location when it was first sent, while it is out.
    sent_at: Option<i8>,
    /// It has gone all the way up, and waits for its thread.
    completed: bool,
    /// How many bytes the output buffer has of the one who had it built.
    pub(crate) output: usize,
}

impl IrpState {
    /// It is in memory that the I/O manager allocated, or a driver has it.
    pub(crate) fn is_the_systems(&self) -> bool {
        self.origin != Origin::Initialized || self.sent_at.is_some()
    }
}

/// A dispatch routine that is to be called.
pub(crate) struct Dispatching {
    pub(crate) routine: PDRIVER_DISPATCH,
    pub(crate) running: Running,
    irp: *mut IRP,
    number: u32,
    location: i8,
}

/// What comes next when a request is completed.
pub(crate) enum CompletionStep {
    /// A completion routine is to be called.
    Routine { routine: PIO_COMPLETION_ROUTINE, device: *mut DEVICE_OBJECT, context: *mut c_void, running: Running },
    /// The request has gone all the way up.
    Top(ObjId),
}

/// What a cancel routine is to be called with.
pub(crate) struct Cancelling {
    pub(crate) routine: PDRIVER_CANCEL,
    pub(crate) device: *mut DEVICE_OBJECT,
    pub(crate) running: Running,
}

/// What the I/O manager checks of a request, beyond what has a code of its own. The page of bug check 0xC9 gives this one to all the rest.
fn io_violation(second: u64, third: u64, meaning: String) -> Box<Violation> {
    Violation::boxed_owned(codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION, [codes::verifier::IO_OTHER, second, third, 0], meaning)
}

impl Kernel {
    /// The request at `pointer`.
    pub(crate) fn irp_at(&mut self, pointer: *const IRP) -> Check<ObjId> {
        self.object_of_kind(pointer, "request (IRP)", |kind| matches!(kind, Kind::Irp(_)))
    }

    pub(crate) fn irp_state(&mut self, id: ObjId) -> &mut IrpState {
        match &mut self.objects[id].kind {
            Kind::Irp(state) => state,
            _ => unreachable!("the caller found a request here"),
        }
    }

    /// The true structure of a request.
    pub(crate) fn irp_memory(&self, id: ObjId) -> *mut IRP {
        self.objects[id].address as *mut IRP
    }

    /// Allocates a request with so many stack locations. Null if there is no memory, or for a number that is not one.
    pub(crate) fn allocate_irp(&mut self, locations: i8, origin: Origin) -> *mut IRP {
        if locations < 1 {
            return null_mut();
        }
        let size = usize::from(ksync_sys::IoSizeOfIrp(locations));
        let driver = match origin {
            Origin::System(_) => None,
            _ => self.current_driver(),
        };
        let irp: *mut IRP = self.allocate_system(size, TAG, driver).cast();
        if !irp.is_null() {
            // SAFETY: the block is fresh and so large.
            unsafe { self.initialize_irp(irp, locations, origin) };
        }
        irp
    }

    /// Makes a request out of memory.
    ///
    /// # Safety
    /// `irp` points to writable memory of a request with so many stack locations.
    pub(crate) unsafe fn initialize_irp(&mut self, irp: *mut IRP, locations: i8, origin: Origin) {
        // SAFETY: by the caller's contract.
        unsafe { layout::write_irp(irp, locations) };
        let state = IrpState { origin, sent_at: None, completed: false, output: 0 };
        self.objects.register(irp as usize, Kind::Irp(Box::new(state)));
    }

    /// Frees a request on its driver's behalf.
    pub(crate) fn free_irp(&mut self, irp: *mut IRP) -> Check<()> {
        let id = self.irp_at(irp)?;
        let state = self.irp_state(id);
        let (origin, out) = (state.origin, state.sent_at.is_some());
        match origin {
            Origin::Threaded(_) | Origin::System(_) => Err(Violation::boxed(
                codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
                [codes::verifier::IO_FREE_THREADED, irp as u64, 0, 0],
                "IoFreeIrp was called for a request that belongs to a thread: the I/O manager frees it at its completion",
            )),
            Origin::Allocated | Origin::Initialized if out => {
                Err(io_violation(irp as u64, 0, "a request was freed while a driver below had it".to_owned()))
            }
            Origin::Initialized => {
                self.objects.remove(id);
                Ok(())
            }
            Origin::Allocated => self.discard_irp(id),
        }
    }

    /// Gives a request's memory back.
    pub(crate) fn discard_irp(&mut self, id: ObjId) -> Check<()> {
        let irp = self.irp_memory(id);
        // SAFETY: a registered request's memory is valid.
        let locations = unsafe { (*irp).StackCount };
        self.objects.remove(id);
        self.release_system(irp as usize)?;
        if !self.pool.is_kept(irp as usize) {
            return Ok(());
        }
        let location = layout::first_location(irp).wrapping_add(locations.max(1) as usize - 1);
        // SAFETY: freed memory is kept for a while, and this field of it is not looked at; see `KEPT`.
        unsafe { layout::set_current_location(irp, location) };
        Ok(())
    }

    /// Makes an allocated request ready to be sent again.
    pub(crate) fn reuse_irp(&mut self, irp: *mut IRP, status: NTSTATUS) -> Check<()> {
        let id = self.irp_at(irp)?;
        let state = self.irp_state(id);
        let origin = state.origin;
        if state.sent_at.is_some() || matches!(origin, Origin::Threaded(_) | Origin::System(_)) {
            return Err(io_violation(
                irp as u64,
                0,
                "IoReuseIrp was called for a request that is on its way, or that IoAllocateIrp did not make".to_owned(),
            ));
        }
        // SAFETY: a registered request's memory is valid.
        let locations = unsafe { (*irp).StackCount };
        // SAFETY: as above; it has so many locations.
        unsafe { layout::write_irp(irp, locations) };
        // SAFETY: as above.
        unsafe { layout::set_status(irp, status, 0) };
        let state = self.irp_state(id);
        (state.sent_at, state.completed) = (None, false);
        Ok(())
    }

    /// IofCallDriver: the next lower location becomes the current one.
    pub(crate) fn begin_dispatch(&mut self, device: *mut DEVICE_OBJECT, irp: *mut IRP) -> Check<Dispatching> {
        let id = self.irp_at(irp)?;
        let device_id = self.device_at(device)?;
        // SAFETY: a registered request's memory is valid.
        let value = unsafe { irp.read() };
        if value.CurrentLocation <= 1 {
            return Err(Violation::boxed(
                codes::NO_MORE_IRP_STACK_LOCATIONS,
                [irp as u64, 0, 0, 0],
                "a request was sent to a driver that it has no stack location for",
            ));
        }
        if value.CancelRoutine.is_some() {
            return Err(io_violation(irp as u64, 0, "a request was passed on whose cancel routine is set".to_owned()));
        }
        let state = self.irp_state(id);
        state.sent_at.get_or_insert(value.CurrentLocation);
        let location = value.CurrentLocation - 1;
        // SAFETY: as above.
        unsafe { (*irp).CurrentLocation = location };
        let current = layout::first_location(irp).wrapping_add(location as usize - 1);
        // SAFETY: the location lies in the request.
        unsafe { layout::set_current_location(irp, current) };
        // SAFETY: as above.
        unsafe { (*current).DeviceObject = device };
        // SAFETY: as above.
        let major = unsafe { (*current).MajorFunction };
        // SAFETY: a registered device's memory is valid.
        let object = unsafe { (*device).DriverObject };
        // SAFETY: so is its driver's object.
        let table = unsafe { (*object).MajorFunction };
        let routine = table.get(usize::from(major)).copied().flatten();
        let driver = self.device_state(device_id).driver;
        let number = self.objects[id].number;
        self.record(Operation::CallDriver, number, u64::from(major));
        let address = routine.map_or(0, |routine| routine as usize);
        let running = self.enter_driver_routine(Routine::Dispatch, address, Some(driver));
        Ok(Dispatching { routine, running, irp, number, location })
    }

    /// What is checked when a dispatch routine has returned.
    pub(crate) fn end_dispatch(&mut self, dispatching: &Dispatching, status: NTSTATUS) -> Check<()> {
        self.leave_routine(dispatching.running, None)?;
        let Dispatching { irp, number, location, running, .. } = *dispatching;
        // Completed by now, mostly, and freed.
        let Some(id) = self.objects.find(irp as usize).filter(|&id| self.objects[id].number == number) else { return Ok(()) };
        let state = self.irp_state(id);
        if state.completed || state.sent_at.is_none() {
            return Ok(());
        }
        // SAFETY: a registered request's memory is valid.
        let current = unsafe { (*irp).CurrentLocation };
        if current != location {
            return Ok(());
        }
        let stack = layout::first_location(irp).wrapping_add(location as usize - 1);
        // SAFETY: the location lies in the request.
        let marked = unsafe { (*stack).Control } & SL_PENDING_RETURNED != 0;
        match (status == STATUS_PENDING, marked) {
            (true, true) => Ok(()),
            (true, false) => Err(io_violation(
                running.address,
                irp as u64,
                "a dispatch routine returned STATUS_PENDING for a request that it has not marked pending".to_owned(),
            )),
            (false, _) => Err(io_violation(
                running.address,
                irp as u64,
                format!(
                    "a dispatch routine returned status {status:#010x} and neither completed the request nor passed it on: who keeps a \
                     request marks it pending and returns STATUS_PENDING"
                ),
            )),
        }
    }

    /// IofCompleteRequest begins: what a driver must not do.
    pub(crate) fn begin_completion(&mut self, irp: *mut IRP) -> Check<()> {
        if self.pool.freed_tag(irp as usize) == Some(TAG) && self.objects.find(irp as usize).is_none() {
            return Err(Violation::boxed(
                codes::MULTIPLE_IRP_COMPLETE_REQUESTS,
                [irp as u64, 0, 0, 0],
                "a request was completed twice: it was completed and freed before",
            ));
        }
        let id = self.irp_at(irp)?;
        // SAFETY: a registered request's memory is valid.
        let value = unsafe { irp.read() };
        let completed = self.irp_state(id).completed;
        if completed || value.CurrentLocation > value.StackCount {
            return Err(Violation::boxed(
                codes::MULTIPLE_IRP_COMPLETE_REQUESTS,
                [irp as u64, 0, 0, 0],
                "a request was completed twice, or before it was sent",
            ));
        }
        if let Some(routine) = value.CancelRoutine {
            return Err(Violation::boxed(
                codes::CANCEL_STATE_IN_COMPLETED_IRP,
                [irp as u64, routine as usize as u64, 0, 0],
                "a request was completed whose cancel routine is still set",
            ));
        }
        // SAFETY: the status is what drivers write; it is an integer in any case.
        let status = unsafe { value.IoStatus.u.Status };
        if status == STATUS_PENDING || status == -1 {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
                [codes::verifier::IO_COMPLETED_PENDING, status as u32 as u64, irp as u64, 0],
                "a request was completed with the status STATUS_PENDING, or -1",
            ));
        }
        if self.config.rules.has(RuleId::SpinLockSafe)
            && let Some(lock) = self.drivers_spin_lock()
        {
            let lock = self.objects[lock].address as u64;
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::SPIN_LOCK_SAFE, lock, irp as u64, 0],
                "a request was completed under a spin lock (rule SpinLockSafe): completion routines may take the same lock",
            ));
        }
        let number = self.objects[id].number;
        self.record(Operation::CompleteRequest, number, status as u32 as u64);
        Ok(())
    }

    /// Goes up to the next completion routine, or to the top.
    pub(crate) fn next_completion(&mut self, irp: *mut IRP) -> Check<CompletionStep> {
        let id = self.irp_at(irp)?;
        loop {
            // SAFETY: a registered request's memory is valid.
            let value = unsafe { irp.read() };
            if value.CurrentLocation > value.StackCount {
                return Ok(CompletionStep::Top(id));
            }
            let step = self.leave_location(id, irp, &value);
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// The request leaves its current location for the one above.
    fn leave_location(&mut self, id: ObjId, irp: *mut IRP, value: &IRP) -> Option<CompletionStep> {
        let left: *mut IO_STACK_LOCATION = layout::first_location(irp).wrapping_add(value.CurrentLocation as usize - 1);
        // SAFETY: the location lies in the request.
        let mut location = unsafe { left.read() };
        let above = left.wrapping_add(1);
        // SAFETY: the status is an integer, whatever was written.
        let failed = unsafe { value.IoStatus.u.Status } < 0;
        let pending = location.Control & SL_PENDING_RETURNED;
        let reached = value.CurrentLocation + 1;
        let at_top = reached > value.StackCount;
        // SAFETY: a registered request's memory is valid.
        unsafe { (*irp).PendingReturned = pending };
        // SAFETY: as above.
        unsafe { (*irp).CurrentLocation = reached };
        // SAFETY: as above. The pointer may be one past the last location, as in NT.
        unsafe { layout::set_current_location(irp, above) };
        let state = self.irp_state(id);
        if state.sent_at.is_some_and(|sent| reached >= sent) {
            state.sent_at = None;
        }
        if failed && !at_top {
            // SAFETY: the location above lies in the request, unless this was the top one.
            unsafe { (*above).Control |= SL_ERROR_RETURNED };
        }
        let wanted = if failed { SL_INVOKE_ON_ERROR } else { SL_INVOKE_ON_SUCCESS };
        let called = location.Control & wanted != 0 || (value.Cancel != 0 && location.Control & SL_INVOKE_ON_CANCEL != 0);
        let (routine, context, below) = (location.CompletionRoutine, location.Context, location.DeviceObject);
        layout::clear_location(&mut location);
        // SAFETY: as above.
        unsafe { left.write(location) };
        if called && routine.is_some() {
            let device = if at_top {
                null_mut()
            } else {
                // SAFETY: as above.
                unsafe { (*above).DeviceObject }
            };
            let driver = self.driver_of_routine(device, below);
            let address = routine.map_or(0, |routine| routine as usize);
            let running = self.enter_driver_routine(Routine::Completion, address, driver);
            return Some(CompletionStep::Routine { routine, device, context, running });
        }
        if pending != 0 && !at_top {
            // SAFETY: as above.
            unsafe { (*above).Control |= SL_PENDING_RETURNED };
        }
        None
    }

    /// Whose code a completion routine is: that of the device whose driver set it. Who made the request itself has no device, and is taken to be who runs.
    fn driver_of_routine(&mut self, device: *mut DEVICE_OBJECT, _below: *mut DEVICE_OBJECT) -> Option<u16> {
        let id = self.objects.find(device as usize).filter(|&id| matches!(self.objects[id].kind, Kind::Device(_)));
        match id {
            Some(id) => Some(self.device_state(id).driver),
            None => self.current_driver(),
        }
    }

    /// What becomes of a request that has gone all the way up. The thread whose APC is to end it, if it is to end there.
    pub(crate) fn finish_completion(&mut self, id: ObjId) -> Check<Finish> {
        let irp = self.irp_memory(id);
        // SAFETY: a registered request's memory is valid.
        let thread = unsafe { layout::irp_thread(irp) };
        let state = self.irp_state(id);
        state.completed = true;
        match state.origin {
            Origin::System(request) => Ok(Finish::Request(request)),
            Origin::Threaded(tid) => Ok(self.finish_in_thread(tid)),
            Origin::Allocated | Origin::Initialized if !thread.is_null() => {
                let tid = self.thread_at(thread)?;
                Ok(self.finish_in_thread(tid))
            }
            Origin::Allocated | Origin::Initialized => Err(Violation::boxed(
                codes::IRQL_NOT_LESS_OR_EQUAL,
                [0, u64::from(self.irql()), 0, 0],
                "a request of IoAllocateIrp was completed all the way up: its sender's completion routine must take it back with \
                 STATUS_MORE_PROCESSING_REQUIRED. NT queues an APC to the thread in the request, which has none",
            )),
        }
    }

    fn finish_in_thread(&self, tid: Tid) -> Finish {
        if self.threads[tid as usize].state == State::Terminated { Finish::Here } else { Finish::Apc(tid) }
    }

    /// Cancels a request, with the cancel spin lock held, which was acquired at `irql`. None if there is no cancel routine.
    pub(crate) fn begin_cancel(&mut self, irp: *mut IRP, irql: u8) -> Check<Option<Cancelling>> {
        let id = self.irp_at(irp)?;
        // SAFETY: a registered request's memory is valid.
        unsafe { (*irp).Cancel = 1 };
        let number = self.objects[id].number;
        self.record(Operation::CancelRequest, number, 0);
        // SAFETY: as above.
        let Some(routine) = (unsafe { layout::exchange_cancel_routine(irp, None) }) else { return Ok(None) };
        // SAFETY: as above.
        let value = unsafe { irp.read() };
        if self.irp_state(id).completed || value.CurrentLocation > value.StackCount + 1 {
            return Err(Violation::boxed(
                codes::CANCEL_STATE_IN_COMPLETED_IRP,
                [irp as u64, routine as usize as u64, 0, 0],
                "a completed request was cancelled whose cancel routine is set",
            ));
        }
        // SAFETY: as above.
        unsafe { (*irp).CancelIrql = irql };
        let device = if value.CurrentLocation > value.StackCount {
            // Nobody has it: NT reads the device from behind the request.
            null_mut()
        } else {
            let current = layout::first_location(irp).wrapping_add(value.CurrentLocation as usize - 1);
            // SAFETY: the location lies in the request.
            unsafe { (*current).DeviceObject }
        };
        let driver = self.driver_of_routine(device, null_mut());
        let running = self.enter_driver_routine(Routine::Cancel, routine as usize, driver);
        Ok(Some(Cancelling { routine: Some(routine), device, running }))
    }

    /// What is checked when a cancel routine has returned: it has released the cancel spin lock, to the level before.
    pub(crate) fn end_cancel(&mut self, cancelling: &Cancelling, irql: u8) -> Check<()> {
        let lock = (&raw const *self.io.cancel_lock) as usize;
        if let Some(&held) = self.held_spin_locks().iter().find(|&&held| self.objects[held].address == lock) {
            return Err(self.spin_lock_held_at_return(held, "a cancel routine", cancelling.running.address));
        }
        self.leave_routine(cancelling.running, Some(irql))
    }
}

/// Where a request's end is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finish {
    /// Here: it is one of the I/O manager's own.
    Request(u32),
    /// In a special kernel APC of the thread.
    Apc(Tid),
    /// Here, because its thread has ended.
    Here,
}
