//! The way from driver code into the machine that runs it.

use super::{CURRENT, MachineCell};
use crate::engine::context::{begin_call, forget_call};
use crate::engine::turns::Point;
use crate::engine::{Check, Cpu, Fault, Kernel, Kind};
use crate::exports::Export;
use crate::image::MachineImages;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use crate::report::sites::Frames;
use crate::schedule::Footprint;
use ksync_sys::{KSPIN_LOCK, STATUS_ACCESS_VIOLATION};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use std::fmt;

/// A call of an export: the way from driver code into the engine.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) cell: &'static MachineCell,
    pub(crate) export: Option<&'static Export>,
}

/// The machine that runs on this OS thread.
#[inline]
pub(crate) fn current(routine: &str) -> &'static MachineCell {
    let cell = CURRENT.get();
    if cell.is_null() {
        no_machine(routine);
    }
    // Where this call is on the stack is not known until it is entered as an export is.
    forget_call();
    // SAFETY: the pointer is set while `Machine::run` keeps the cell alive, and only code that runs within it gets here:
    // the reference is used within the call of an export, and never kept.
    unsafe { &*cell }
}

/// The processor that what runs is on. It may be moved before it performs what it announces, unless its level keeps it there.
pub(crate) fn acting_processor() -> Cpu {
    current("a routine of the processor").kernel.borrow().cpu
}

/// A number of the context that runs, which no other has.
pub(crate) fn acting_context() -> usize {
    current("a routine of a context").kernel.borrow().actor().map_or(0, |actor| actor.index() as usize)
}

/// The address of a handle's object, if the handle is open, and whether that is a thread or a process.
pub(crate) fn object_of_handle(handle: usize) -> Option<(usize, bool)> {
    let mut kernel = current("a routine of handles").kernel.borrow_mut();
    let id = kernel.object_of_handle(handle)?;
    let object = &kernel.objects[id];
    Some((object.address, matches!(object.kind, Kind::Thread(_) | Kind::Process(_))))
}

/// The cancel spin lock of the machine that runs on this OS thread.
pub(crate) fn cancel_lock() -> *const KSPIN_LOCK {
    &raw const *current("IoAcquireCancelSpinLock").kernel.borrow().io.cancel_lock
}

/// The machine that runs on this OS thread, if there is one.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn machine_of_this_thread() -> Option<&'static MachineCell> {
    // SAFETY: as in `current`.
    unsafe { CURRENT.get().as_ref() }
}

/// The images of the machine that runs on this OS thread.
pub(crate) fn images_of_this_thread() -> Option<&'static MachineImages> {
    let cell = CURRENT.get();
    // SAFETY: as in `current`.
    unsafe { cell.as_ref() }.map(|cell| &cell.images)
}

/// The hosted kernel panicked in a call from an image, which cannot be unwound: the machine ends.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn panicked_in_image() -> ! {
    let cell = current("an image");
    cell.abandon_operation();
    cell.record_panic();
    loop {
        cell.suspend();
    }
}

/// True when hosted code runs on a machine on this OS thread.
pub(crate) fn is_running() -> bool {
    !CURRENT.get().is_null()
}

#[cold]
fn no_machine(routine: &str) -> ! {
    panic!("{routine} was called outside a simulated machine: run the code within ksim::Machine::run");
}

impl MachineCell {
    /// Hosted code does not go on from where it stands: the machine stops. `interrupted` is the instruction that would be next, if that is not after a call.
    pub(crate) fn stop_interrupted(&self, fault: Violation, export: Option<&'static Export>, interrupted: usize) -> ! {
        self.stop_with(fault, export);
        *self.frames.borrow_mut() = Some(Frames::capture_ends(interrupted));
        loop {
            self.suspend();
        }
    }

    /// True for an address of the pool that the machine has in pages. False while the engine is at work.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn has_pool_at(&self, address: usize) -> bool {
        self.kernel.try_borrow().is_ok_and(|kernel| kernel.pool.has_pages_at(address))
    }

    /// What runs, for a message that is written where nothing can be relied on.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn describe_running(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        let Ok(kernel) = self.kernel.try_borrow() else { return to.write_str("within the hosted kernel") };
        match kernel.current_thread().filter(|_| !kernel.in_dpc()) {
            Some(tid) => write!(to, "in thread #{} on processor {}", kernel.thread_number(tid), kernel.cpu),
            None => write!(to, "in a DPC on processor {}", kernel.cpu),
        }
    }

    /// True when driver code runs that may be left where it stands: the engine is not at work, and no panic unwinds.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn may_stop(&self) -> bool {
        !self.dying.get() && self.kernel.try_borrow_mut().is_ok()
    }
}

impl Call {
    /// Enters an export: its IRQL range is checked, and if it is a visible operation, others may act first.
    ///
    /// It is a part of each export, as most calls do no more than this and their operation. Where frames are as large as without optimisation that would hide objects of functions that have
    /// returned, which then lie within the export's own (see `liveness.rs`).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn enter(export: &'static Export, footprint: Option<Footprint>) -> Self {
        let cell = current(export.name);
        let call = Self { cell, export: Some(export) };
        if cell.dying.get() {
            cell.count_unwinding_call();
            cell.begin_unwinding_call(footprint);
            return call;
        }
        if begin_call() {
            crate::overflow::at_call(cell, export);
        }
        let mut guard = cell.kernel.borrow_mut();
        let kernel = &mut **guard;
        let processor = kernel.processor();
        let irql = processor.irql;
        if irql < DISPATCH_LEVEL {
            processor.dispatch_calls = 0;
        }
        if (irql >= DISPATCH_LEVEL || !export.irql.contains(irql) || kernel.config.sites)
            && let Err(fault) = kernel.check_entry(export)
        {
            drop(guard);
            cell.halt(*fault, Some(export));
        }
        let Some(footprint) = footprint else { return call };
        if kernel.goes_on(footprint) {
            return call;
        }
        drop(guard);
        call.give_way(footprint);
        call
    }

    /// Others may first act.
    #[inline(never)]
    fn give_way(self, footprint: Footprint) {
        let next = match self.cell.kernel.borrow_mut().scheduling_point(footprint) {
            Point::Performs => return,
            Point::GivesWay(next) => Some(next),
            Point::Waits => None,
        };
        self.cell.wait_for_turn(footprint, next);
    }

    /// One more visible operation of the same call: another attempt at what was in vain.
    pub(crate) fn again(self, footprint: Footprint) {
        if self.is_dying() {
            return;
        }
        self.give_way(footprint);
    }

    /// A panic unwinds: nothing else runs, so that waits are over, and locks free that others hold.
    #[inline]
    pub(crate) fn is_dying(self) -> bool {
        self.cell.dying.get()
    }

    /// A drop while a panic unwinds would wait for what its own thread may have, which it must not be granted as what others have is: those never run again, and the thread's other drops do.
    /// Nothing more of the context is run.
    #[cold]
    pub(crate) fn end_unwinding(self) -> ! {
        self.cell.record_panic();
        loop {
            self.cell.suspend();
        }
    }

    /// Performs an operation of the engine. A broken rule stops the machine here.
    #[inline]
    pub(crate) fn operate<R>(self, operation: impl FnOnce(&mut Kernel) -> Check<R>) -> R {
        let mut kernel = self.cell.kernel.borrow_mut();
        let result = operation(&mut kernel);
        let attention = kernel.attention;
        drop(kernel);
        match result {
            Ok(value) => {
                if attention {
                    self.cell.settle();
                }
                value
            }
            Err(fault) => self.cell.halt(*fault, self.export),
        }
    }

    /// Looks at the engine without changing what may go on.
    #[inline]
    pub(crate) fn read<R>(self, look: impl FnOnce(&mut Kernel) -> R) -> R {
        look(&mut self.cell.kernel.borrow_mut())
    }

    /// Stops the machine.
    #[expect(clippy::boxed_local, reason = "faults travel boxed")]
    pub(crate) fn fail(self, fault: Fault) -> ! {
        self.cell.halt(*fault, self.export)
    }

    /// What runs is on another processor now, which images see.
    pub(crate) fn processor_changed(self) {
        self.cell.images.enter(&self.cell.kernel);
    }

    /// A caller passes what is not optional: at a null pointer, NT has an access violation.
    pub(crate) fn check_null<T>(self, pointer: *const T) {
        if pointer.is_null() {
            self.bad_pointer(pointer.addr());
        }
    }

    /// [`check_null`](Self::check_null), for where NT has no rule of its own for a pointer that is not aligned: a debug build has the language's own check there, which would end the
    /// process.
    pub(crate) fn check_pointer<T>(self, pointer: *const T) {
        if pointer.is_null() || cfg!(debug_assertions) && !pointer.is_aligned() {
            self.bad_pointer(pointer.addr());
        }
    }

    #[cold]
    fn bad_pointer(self, address: usize) -> ! {
        let routine = self.export.map_or("a routine", |export| export.name);
        let status = u64::from(STATUS_ACCESS_VIOLATION as u32);
        let meaning = format!("{routine} was passed a bad pointer: {address:#x}");
        self.fail(Violation::boxed_owned(codes::KMODE_EXCEPTION_NOT_HANDLED, [status, 0, 0, address as u64], meaning));
    }

    /// The end of the running thread, which is a visible operation on its object.
    pub(super) fn end(self, status: i32) {
        let object = self.read(|kernel| {
            let tid = kernel.this_thread();
            kernel.threads[tid as usize].address()
        });
        self.again(Footprint::end_thread(object as *const u8));
        self.operate(|kernel| kernel.terminate_thread(status));
    }

    /// Ends the running thread. Its stack is given back without unwinding.
    pub(crate) fn end_thread(self, status: i32) -> ! {
        crate::exports::ke::apc::run_down(self);
        self.end(status);
        loop {
            self.cell.suspend();
        }
    }
}
