//! Mutexes (KMUTEX, KMUTANT).

use super::kernel::{Check, Executing, Kernel};
use super::layout;
use super::object::{Kind, ObjId, Object, Waiter};
use super::thread::{Thread, Tid};
use super::wait::wait_status;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::Violation;
use crate::report::trace::Operation;
use ksync_sys::{KMUTANT, STATUS_ABANDONED, STATUS_MUTANT_LIMIT_EXCEEDED, STATUS_MUTANT_NOT_OWNED};

/// A mutex's state beside its header.
#[derive(Debug)]
pub(crate) struct MutantState {
    pub(crate) owner: Option<Tid>,
    /// Initialised by KeInitializeMutex: owning it disables normal kernel APCs (rule 10).
    pub(crate) kernel: bool,
    pub(crate) abandoned: bool,
    /// Acquired by a poll at DISPATCH_LEVEL (rule 9).
    pub(crate) at_dispatch: bool,
}

impl Object {
    /// A mutex that is free gets an owner. True when it was abandoned.
    #[inline]
    pub(super) fn give_mutant(&mut self, id: ObjId, thread: &mut Thread, tid: Tid, at_dispatch: bool) -> bool {
        let memory = self.address as *mut KMUTANT;
        let Kind::Mutant(mutant) = &mut self.kind else { return false };
        mutant.owner = Some(tid);
        mutant.at_dispatch = at_dispatch;
        let abandoned = std::mem::take(&mut mutant.abandoned);
        thread.mutants.push(id);
        thread.apc.kernel_disable -= i16::from(mutant.kernel);
        self.set_signal_state(0);
        // SAFETY: a registered mutex's memory is valid.
        unsafe { (*memory).OwnerThread = thread.address() as *mut _ };
        if abandoned {
            // SAFETY: as above.
            unsafe { (*memory).Abandoned = 0 };
        }
        abandoned
    }
}

impl Kernel {
    /// Registers a mutex. An initially owned one belongs to the running thread.
    ///
    /// # Safety
    /// `mutex` points to writable memory of a KMUTANT.
    pub(crate) unsafe fn initialize_mutant(&mut self, mutex: *mut KMUTANT, kernel: bool, owned: bool) -> Check<()> {
        let state = MutantState { owner: None, kernel, abandoned: false, at_dispatch: false };
        // SAFETY: by the caller's contract.
        let id = unsafe {
            self.initialize_dispatcher(mutex.cast(), ksync_sys::MutantObject, size_of::<KMUTANT>(), 1, Kind::Mutant(state))?
        };
        // SAFETY: by the caller's contract.
        unsafe { layout::write_mutant_tail(mutex, kernel) };
        if owned {
            let tid = self.this_thread();
            self.acquire_mutant(id, tid)?;
        }
        Ok(())
    }

    /// The mutex at `pointer`.
    #[inline]
    pub(crate) fn mutant_at(&mut self, pointer: *const KMUTANT) -> Check<ObjId> {
        self.object_of_kind(pointer, "mutex", |kind| matches!(kind, Kind::Mutant(_)))
    }

    fn write_abandoned(&self, id: ObjId, abandoned: bool) {
        let memory = self.objects[id].address as *mut KMUTANT;
        // SAFETY: a registered mutex's memory is valid.
        unsafe { (*memory).Abandoned = u8::from(abandoned) };
    }

    /// A wait of `tid` takes the mutex, once more if it has it. True when it was abandoned.
    #[inline]
    pub(crate) fn acquire_mutant(&mut self, id: ObjId, tid: Tid) -> Check<bool> {
        let at_dispatch = self.irql() >= DISPATCH_LEVEL && self.executing == Executing::Thread(tid);
        let object = &mut self.objects[id];
        let number = object.number;
        let Kind::Mutant(mutant) = &object.kind else { return Ok(false) };
        if mutant.owner == Some(tid) {
            return self.acquire_mutant_again(id, tid);
        }
        let abandoned = object.give_mutant(id, &mut self.threads[tid as usize], tid, at_dispatch);
        self.record_for(tid, Operation::AcquireMutex, number, u64::from(abandoned));
        Ok(abandoned)
    }

    /// The owner of the mutex takes it once more.
    #[inline(never)]
    fn acquire_mutant_again(&mut self, id: ObjId, tid: Tid) -> Check<bool> {
        let object = &self.objects[id];
        let (state, number) = (object.signal_state(), object.number);
        if state == i32::MIN {
            return Err(Violation::raised(
                STATUS_MUTANT_LIMIT_EXCEEDED,
                format!("mutex #{number} was acquired recursively too often"),
            ));
        }
        object.set_signal_state(state - 1);
        self.record_for(tid, Operation::AcquireMutex, number, (state - 1) as u32 as u64);
        Ok(false)
    }

    /// Releases a mutex once. Returns the previous state (rule 7).
    #[inline(always)]
    pub(crate) fn release_mutant(&mut self, id: ObjId, increment: i32) -> Check<i32> {
        let Executing::Thread(tid) = self.executing else { return Err(self.wrong_release(id)) };
        let at_dispatch = self.irql() >= DISPATCH_LEVEL;
        let object = &self.objects[id];
        let previous = object.signal_state();
        let Kind::Mutant(mutant) = &object.kind else { return Ok(previous) };
        if mutant.owner != Some(tid) || mutant.at_dispatch != at_dispatch {
            return Err(self.wrong_release(id));
        }
        if self.records {
            self.record(Operation::ReleaseMutex, self.objects[id].number, previous as u32 as u64);
        } else {
            self.trace.count();
        }
        let object = &self.objects[id];
        if previous < 0 {
            object.set_signal_state(previous + 1);
            return Ok(previous);
        }
        self.free_mutant(id, increment)?;
        Ok(previous)
    }

    /// Why a mutex cannot be released here.
    #[cold]
    fn wrong_release(&mut self, id: ObjId) -> super::Fault {
        let tid = self.current_thread();
        let number = self.objects[id].number;
        let (owner, abandoned) = match &self.objects[id].kind {
            Kind::Mutant(mutant) => (mutant.owner, mutant.abandoned),
            _ => (None, false),
        };
        if owner.is_some() && owner == tid && !self.in_dpc() {
            return Violation::raised(
                STATUS_MUTANT_NOT_OWNED,
                format!("mutex #{number} was acquired at DISPATCH_LEVEL and released below it, or the other way round"),
            );
        }
        let status = if abandoned { STATUS_ABANDONED } else { STATUS_MUTANT_NOT_OWNED };
        let why = match self.waited_in_vain(id) {
            Some(waited) => format!(": its wait for it ended with {waited}, which NT_SUCCESS takes for success"),
            None => String::new(),
        };
        Violation::raised(status, format!("mutex #{number} was released by a thread that does not own it{why}"))
    }

    /// The owner lets go: the mutex is signaled.
    #[inline(always)]
    fn free_mutant(&mut self, id: ObjId, increment: i32) -> Check<()> {
        let object = &mut self.objects[id];
        let Kind::Mutant(mutant) = &mut object.kind else { return Ok(()) };
        let kernel = mutant.kernel;
        let Some(owner) = mutant.owner.take() else { return Ok(()) };
        object.set_signal_state(1);
        let (memory, waited_for) = (object.address as *mut KMUTANT, !object.waiters.is_empty());
        // SAFETY: a registered mutex's memory is valid.
        unsafe { (*memory).OwnerThread = std::ptr::null_mut() };
        let thread = &mut *self.threads[owner as usize];
        if thread.mutants.last() == Some(&id) {
            thread.mutants.pop();
        } else {
            thread.mutants.retain(|&owned| owned != id);
        }
        if kernel {
            thread.apc.kernel_disable += 1;
            self.attention |= !thread.apc.kernel.is_empty();
        }
        if waited_for { self.pass_mutant_on(id, increment) } else { Ok(()) }
    }

    /// A mutex that is free goes to whoever waits for it.
    #[inline(never)]
    fn pass_mutant_on(&mut self, id: ObjId, increment: i32) -> Check<()> {
        let object = &mut self.objects[id];
        let Some(&Waiter { thread: tid, slot }) = object.waiters.front() else { return Ok(()) };
        let thread = &mut *self.threads[tid as usize];
        if thread.wait.request.all || self.records || self.lock_order.clocks.are_running() {
            return self.satisfy_waiters(id, increment);
        }
        self.trace.count();
        let abandoned = object.give_mutant(id, thread, tid, false);
        self.end_wait(tid, wait_status(usize::from(slot), abandoned), increment);
        Ok(())
    }

    /// KeReleaseMutant with Abandoned: the mutex is free, however often it was acquired, and its next owner learns of it.
    pub(crate) fn abandon_mutant(&mut self, id: ObjId, increment: i32) -> Check<i32> {
        let (previous, number) = (self.objects[id].signal_state(), self.objects[id].number);
        self.record(Operation::ReleaseMutex, number, previous as u32 as u64);
        if let Kind::Mutant(mutant) = &mut self.objects[id].kind {
            mutant.abandoned = true;
        }
        self.write_abandoned(id, true);
        self.free_mutant(id, increment)?;
        Ok(previous)
    }

    /// Abandons the mutants of a thread that ends (rule 11).
    pub(crate) fn rundown_mutants(&mut self, tid: Tid) {
        let mutants = std::mem::take(&mut self.threads[tid as usize].mutants);
        for id in mutants {
            if let Kind::Mutant(mutant) = &mut self.objects[id].kind {
                mutant.abandoned = true;
            }
            self.write_abandoned(id, true);
            let freed = self.free_mutant(id, 0);
            debug_assert!(freed.is_ok(), "a free mutant can be acquired");
        }
    }
}
