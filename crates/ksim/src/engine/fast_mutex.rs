//! Fast mutexes and guarded mutexes (rules 27 and 28).
//!
//! Contenders wait on the mutex's own event. A release frees the mutex and wakes the first of them, which then competes
//! with whoever else comes: NT promises no order here.

use super::kernel::{Check, Kernel};
use super::object::{Kind, ObjId};
use super::thread::Tid;
use super::wait::{Begun, WaitRequest};
use crate::check::lock_order::Wanted;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{DISPATCHER_HEADER, FAST_MUTEX, KEVENT, KTHREAD};

/// A fast mutex's state beside its structure.
#[derive(Debug)]
pub(crate) struct FastMutexState {
    pub(crate) owner: Option<Tid>,
}

/// What an attempt to take a fast mutex came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FastAttempt {
    /// The caller has it.
    Acquired,
    /// The thread waits; try again when it goes on.
    Waiting,
}

impl Kernel {
    /// The fast mutex at `pointer`. ExInitializeFastMutex is header code, of which the engine sees only the
    /// initialisation of the event inside, so the first use enters the mutex into the table.
    #[inline]
    fn fast_mutex_at(&mut self, pointer: *mut FAST_MUTEX) -> Check<ObjId> {
        if let Some(id) = self.objects.find(pointer as usize)
            && matches!(self.objects[id].kind, Kind::FastMutex(_))
        {
            return Ok(id);
        }
        self.enter_fast_mutex(pointer)
    }

    #[cold]
    fn enter_fast_mutex(&mut self, pointer: *mut FAST_MUTEX) -> Check<ObjId> {
        // The event tells whether anything was initialised here at all, before any of the memory is read.
        let event = (pointer as usize).wrapping_add(std::mem::offset_of!(FAST_MUTEX, Event));
        self.object_of_kind(event as *const u8, "fast mutex", |kind| matches!(kind, Kind::Event { notification: false }))?;
        // SAFETY: the event inside is registered, so that the memory around it is a fast mutex's or at least mapped.
        let count = unsafe { (*pointer).Count };
        // SAFETY: as above.
        let owner = unsafe { (*pointer).Owner };
        if count != 1 || !owner.is_null() {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::UNINITIALIZED_OBJECT, pointer as u64, 0, 0],
                "a fast mutex was used that was never initialised",
            ));
        }
        Ok(self.objects.register(pointer as usize, Kind::FastMutex(FastMutexState { owner: None })))
    }

    pub(super) fn write_fast_mutex(&self, pointer: *mut FAST_MUTEX, count: i32, owner: *mut KTHREAD) {
        // SAFETY: the mutex is registered, so that its memory is valid.
        unsafe { (*pointer).Count = count };
        // SAFETY: as above.
        unsafe { (*pointer).Owner = owner.cast() };
    }

    /// One attempt to take a fast mutex, which waits when another thread owns it.
    pub(crate) fn fast_acquire(&mut self, pointer: *mut FAST_MUTEX) -> Check<FastAttempt> {
        let id = self.fast_mutex_at(pointer)?;
        self.check_lock_order(id, Wanted::Only)?;
        if self.fast_try_at(id, pointer) {
            return Ok(FastAttempt::Acquired);
        }
        let tid = self.this_thread();
        if let Kind::FastMutex(FastMutexState { owner: Some(owner) }) = &self.objects[id].kind
            && *owner == tid
        {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::SELF_DEADLOCK, pointer as u64, 0, 0],
                "a fast or guarded mutex was acquired by the thread that owns it: it would wait for itself for ever",
            ));
        }
        // SAFETY: the mutex is registered, so that its memory is valid.
        let contention = unsafe { &raw mut (*pointer).Contention };
        // SAFETY: as above.
        let count = unsafe { contention.read() };
        // SAFETY: as above.
        unsafe { contention.write(count.wrapping_add(1)) };
        let event = (pointer as usize) + std::mem::offset_of!(FAST_MUTEX, Event);
        let event = self.object_at(event as *const u8)?;
        let request = WaitRequest { reason: "fast mutex", ..WaitRequest::FOR_EVER };
        match self.begin_single_wait(event, &request)? {
            Begun::Blocked | Begun::Done(_) => Ok(FastAttempt::Waiting),
        }
    }

    /// One attempt that does not wait. It fails for the owner too.
    pub(crate) fn fast_try(&mut self, pointer: *mut FAST_MUTEX) -> Check<bool> {
        let id = self.fast_mutex_at(pointer)?;
        Ok(self.fast_try_at(id, pointer))
    }

    #[inline]
    fn fast_try_at(&mut self, id: ObjId, pointer: *mut FAST_MUTEX) -> bool {
        let tid = self.current_thread();
        let object = &mut self.objects[id];
        let number = object.number;
        let Kind::FastMutex(state) = &mut object.kind else { return false };
        if state.owner.is_some() {
            return false;
        }
        state.owner = tid;
        let mut owner = std::ptr::null_mut();
        if let Some(tid) = tid {
            let thread = self.thread(tid);
            thread.fast_mutexes.push(id);
            owner = thread.address() as *mut KTHREAD;
        }
        self.write_fast_mutex(pointer, 0, owner);
        self.record(Operation::AcquireFastMutex, number, 0);
        true
    }

    /// Releases a fast mutex and wakes the first that waits for it.
    pub(crate) fn fast_release(&mut self, pointer: *mut FAST_MUTEX) -> Check<()> {
        let id = self.owned_fast_mutex(pointer)?;
        self.release_owned(id, pointer)
    }

    /// Releases a fast mutex that the running thread owns.
    #[inline]
    pub(crate) fn release_owned(&mut self, id: ObjId, pointer: *mut FAST_MUTEX) -> Check<()> {
        let object = &mut self.objects[id];
        let number = object.number;
        let Kind::FastMutex(state) = &mut object.kind else { return Ok(()) };
        if let Some(owner) = state.owner.take() {
            let held = &mut self.threads[owner as usize].fast_mutexes;
            if held.last() == Some(&id) {
                held.pop();
            } else {
                held.retain(|&owned| owned != id);
            }
        }
        self.write_fast_mutex(pointer, 1, std::ptr::null_mut());
        self.record(Operation::ReleaseFastMutex, number, 0);
        let event = (pointer as usize) + std::mem::offset_of!(FAST_MUTEX, Event);
        let event = self.object_at(event as *const u8)?;
        if !self.objects[event].waiters.is_empty() {
            self.set_event_of_lock(event, 0)?;
        }
        Ok(())
    }

    /// The fast mutex at `pointer`, which the running thread must own: checked before anything is read from it.
    #[inline]
    pub(crate) fn owned_fast_mutex(&mut self, pointer: *mut FAST_MUTEX) -> Check<ObjId> {
        let id = self.fast_mutex_at(pointer)?;
        let tid = self.current_thread();
        match &self.objects[id].kind {
            Kind::FastMutex(state) if state.owner.is_some() && state.owner == tid => Ok(id),
            Kind::FastMutex(state) => Err(Self::not_fast_owner(pointer, state.owner)),
            _ => unreachable!("`fast_mutex_at` has found one"),
        }
    }

    #[cold]
    fn not_fast_owner(pointer: *mut FAST_MUTEX, owner: Option<Tid>) -> super::Fault {
        let code = if owner.is_none() { codes::verifier::NOT_ACQUIRED } else { codes::verifier::WRONG_THREAD };
        Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [code, pointer as u64, 0, 0],
            "a fast or guarded mutex was released by a thread that does not own it",
        )
    }

    /// KeInitializeGuardedMutex.
    ///
    /// # Safety
    /// `pointer` points to writable memory of a FAST_MUTEX.
    pub(crate) unsafe fn initialize_fast_mutex(&mut self, pointer: *mut FAST_MUTEX) -> Check<()> {
        let event = (pointer as usize).wrapping_add(std::mem::offset_of!(FAST_MUTEX, Event));
        self.retire_fast_mutex_around(event)?;
        // SAFETY: by the caller's contract.
        unsafe {
            self.initialize_dispatcher(
                event as *mut DISPATCHER_HEADER,
                ksync_sys::EventSynchronizationObject,
                size_of::<KEVENT>(),
                0,
                Kind::Event { notification: false },
            )?;
        }
        self.write_fast_mutex(pointer, 1, std::ptr::null_mut());
        // SAFETY: by the caller's contract.
        unsafe { (*pointer).Contention = 0 };
        Ok(())
    }

    /// An event is initialised: if it is the one inside a fast mutex, that mutex begins anew with it, and must be free.
    pub(crate) fn retire_fast_mutex_around(&mut self, event: usize) -> Check<()> {
        let address = event.wrapping_sub(std::mem::offset_of!(FAST_MUTEX, Event));
        let Some(id) = self.objects.find(address) else { return Ok(()) };
        match &self.objects[id].kind {
            Kind::FastMutex(FastMutexState { owner: Some(_) }) => Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REINITIALIZED_OBJECT, address as u64, 0, 0],
                "a fast or guarded mutex was initialised again while a thread owned it",
            )),
            Kind::FastMutex(_) => {
                self.objects.remove(id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The fast mutex that an event belongs to.
    pub(crate) fn fast_mutex_of_event(&mut self, event: ObjId) -> Option<ObjId> {
        let address = self.objects[event].address.wrapping_sub(std::mem::offset_of!(FAST_MUTEX, Event));
        self.objects.find(address).filter(|&id| matches!(self.objects[id].kind, Kind::FastMutex(_)))
    }

    /// The owner of the fast mutex that an event belongs to, for the wait graph.
    pub(crate) fn owner_of_event(&self, event: ObjId) -> Option<Tid> {
        let address = self.objects[event].address.wrapping_sub(std::mem::offset_of!(FAST_MUTEX, Event));
        self.objects.iter().find(|(_, object)| object.address == address).and_then(|(_, object)| match &object.kind {
            Kind::FastMutex(state) => state.owner,
            _ => None,
        })
    }
}
