//! Spin locks, ordinary and in-stack queued (rules 33 to 36).
//!
//! The word of the lock is the true one: 0 when free. A processor that finds a lock held turns: it cannot act until the
//! lock is released. An ordinary lock then goes to whichever processor comes first, a queued one to the first that came.

use super::kernel::{Check, Executing, Kernel};
use super::object::{Identity, Kind, ObjId};
use super::processor::Cpu;
use super::thread::Tid;
use crate::check::lock_order::Wanted;
use crate::check::rules::RuleId;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::{Operation, Place, Trace};
use crate::schedule::Actor;
use ksync_sys::KSPIN_LOCK;
use std::collections::VecDeque;

/// Who holds a spin lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SpinOwner {
    pub(crate) cpu: Cpu,
    /// The thread, or none for the DPC queue of `cpu`.
    pub(crate) thread: Option<Tid>,
    /// The level before the acquisition, when the acquisition raised it.
    pub(crate) old_irql: Option<u8>,
    /// The queue handle of an in-stack queued acquisition.
    pub(crate) handle: usize,
}

/// A spin lock's state beside its word.
#[derive(Debug, Default)]
pub(crate) struct SpinState {
    pub(crate) owner: Option<SpinOwner>,
    /// Processors that turn on it, in order of arrival.
    pub(crate) turning: VecDeque<SpinOwner>,
    /// Whether it has been used as a queued lock. The same lock must not be used both ways (rule 36).
    pub(crate) queued: Option<bool>,
}

/// What an attempt to take a spin lock came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt {
    /// The caller has it.
    Acquired,
    /// The processor turns; try again when it goes on.
    Turning,
}

impl Kernel {
    /// The spin lock whose word is at `pointer`. KeInitializeSpinLock is header code that stores a zero, so the first
    /// acquisition is what enters a lock into the table.
    #[inline]
    fn spin_lock_at(&mut self, pointer: *mut KSPIN_LOCK) -> Check<ObjId> {
        if let Some(id) = self.objects.find(pointer as usize)
            && matches!(self.objects[id].kind, Kind::SpinLock(_))
        {
            return Ok(id);
        }
        self.enter_spin_lock(pointer)
    }

    #[cold]
    fn enter_spin_lock(&mut self, pointer: *mut KSPIN_LOCK) -> Check<ObjId> {
        if (pointer as usize) < 0x1_0000 {
            return Err(Violation::boxed(
                codes::IRQL_NOT_LESS_OR_EQUAL,
                [pointer as u64, u64::from(self.irql()), 1, 0],
                "a null or near-null pointer was passed as a spin lock",
            ));
        }
        if let Some(freed) = self.pool.describe_freed(pointer as usize) {
            return Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::UNINITIALIZED_OBJECT, pointer as u64, 0, 0],
                format!("a spin lock in freed pool was used: {freed}"),
            ));
        }
        self.objects.claim(pointer as usize);
        // SAFETY: the caller of the export vouches for the pointer.
        let word = unsafe { pointer.read() };
        if word != 0 {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::UNINITIALIZED_OBJECT, pointer as u64, word as u64, 0],
                "a spin lock was used whose word is not 0 and that nobody holds: it was never initialised",
            ));
        }
        let kind = Kind::SpinLock(Box::default());
        self.check_resident(pointer as usize, &kind)?;
        Ok(self.objects.register(pointer as usize, kind))
    }

    /// KeInitializeSpinLock: what was at `pointer` is gone, and a new lock begins.
    pub(crate) fn initialize_spin_lock(&mut self, pointer: *mut KSPIN_LOCK) -> Check<()> {
        if let Some(id) = self.objects.find(pointer as usize) {
            self.check_replaceable(id)?;
        }
        let id = self.objects.register(pointer as usize, Kind::SpinLock(Box::default()));
        self.objects[id].identity = Identity::Known;
        Ok(())
    }

    #[inline]
    fn spin_state(&mut self, id: ObjId) -> &mut SpinState {
        match &mut self.objects[id].kind {
            Kind::SpinLock(state) => state,
            _ => unreachable!("the caller found a spin lock here"),
        }
    }

    #[inline]
    pub(super) fn write_spin_word(&self, id: ObjId, word: usize) {
        let pointer = self.objects[id].address as *mut KSPIN_LOCK;
        // SAFETY: the lock is registered, so that its memory is valid.
        unsafe { pointer.write(word) };
    }

    /// Who acts, as an owner of spin locks.
    #[inline]
    fn spin_owner(&self, old_irql: Option<u8>, handle: usize) -> SpinOwner {
        let thread = match self.executing {
            Executing::Thread(tid) => Some(tid),
            _ => None,
        };
        SpinOwner { cpu: self.cpu, thread, old_irql, handle }
    }

    #[inline]
    fn spin_locks_of(&mut self, owner: SpinOwner) -> &mut Vec<ObjId> {
        match owner.thread {
            Some(tid) => &mut self.threads[tid as usize].spin_locks,
            None => &mut self.processors[owner.cpu as usize].dpc_spin_locks,
        }
    }

    /// One attempt to take a spin lock, at DISPATCH_LEVEL or above. `old_irql` is the level before this acquisition
    /// raised it; `handle` is the queue handle's address, or 0 for an ordinary acquisition.
    pub(crate) fn spin_acquire(&mut self, pointer: *mut KSPIN_LOCK, old_irql: Option<u8>, handle: usize) -> Check<Attempt> {
        let id = self.spin_lock_at(pointer)?;
        let me = self.spin_owner(old_irql, handle);
        self.check_spin_use(id, handle != 0, true)?;
        self.check_lock_order(id, Wanted::Only)?;
        let state = self.spin_state(id);
        match state.owner {
            None => {
                state.owner = Some(me);
                self.spin_granted(id, me);
                Ok(Attempt::Acquired)
            }
            // A queued lock was handed to this processor while it turned.
            Some(owner) if handle != 0 && owner.handle == handle && owner.cpu == me.cpu => Ok(Attempt::Acquired),
            Some(owner) if owner.cpu == me.cpu => Err(self.spin_recursion(id)),
            Some(_) => {
                state.turning.push_back(me);
                self.processor().spinning = true;
                let cpu = self.cpu;
                self.update_runnable(cpu);
                self.attention = true;
                let number = self.objects[id].number;
                self.note(Operation::SpinOnLock, number, 0);
                Ok(Attempt::Turning)
            }
        }
    }

    /// One attempt that does not turn.
    pub(crate) fn spin_try(&mut self, pointer: *mut KSPIN_LOCK, old_irql: Option<u8>, handle: usize) -> Check<bool> {
        let id = self.spin_lock_at(pointer)?;
        let me = self.spin_owner(old_irql, handle);
        self.check_spin_use(id, handle != 0, true)?;
        let state = self.spin_state(id);
        if state.owner.is_some() {
            return Ok(false);
        }
        state.owner = Some(me);
        self.spin_granted(id, me);
        Ok(true)
    }

    #[inline]
    fn spin_granted(&mut self, id: ObjId, owner: SpinOwner) {
        self.write_spin_word(id, 1);
        self.spin_locks_of(owner).push(id);
        if self.trace.is_enabled() || self.config.sites {
            self.record_grant(id, owner);
        } else {
            self.trace.count();
        }
    }

    #[inline(never)]
    fn record_grant(&mut self, id: ObjId, owner: SpinOwner) {
        let number = self.objects[id].number;
        let mut place = self.place();
        if owner.cpu != self.cpu {
            // A queued lock is handed to a processor that turns.
            let processor = &self.processors[owner.cpu as usize];
            let site = owner.thread.map_or(processor.dpc_site, |tid| self.threads[tid as usize].site);
            let site = site.filter(|_| self.config.sites);
            place = Place { cpu: owner.cpu, irql: processor.irql, thread: owner.thread.unwrap_or(Trace::DPC), site, ..place };
        }
        self.enter(place, Operation::AcquireSpinLock, number, u64::from(owner.handle != 0));
    }

    #[cold]
    fn spin_recursion(&self, id: ObjId) -> super::Fault {
        let address = self.objects[id].address as u64;
        if self.is_cancel_lock(id) && self.config.rules.has(RuleId::CancelSpinLock) {
            return Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::CANCEL_SPIN_LOCK, address, 0, 0],
                "the cancel spin lock was acquired by the processor that holds it (rule CancelSpinLock)",
            );
        }
        Violation::boxed(
            codes::SPIN_LOCK_ALREADY_OWNED,
            [address, 0, 0, 0],
            "a spin lock was acquired by the processor that holds it",
        )
    }

    /// The same lock must never be used both as an ordinary and as a queued lock. Whether a free lock is still the same is only
    /// known in pool: a word on a stack, or in the host's memory, may have become another lock meanwhile.
    #[inline]
    fn check_spin_use(&mut self, id: ObjId, queued: bool, acquire: bool) -> Check<()> {
        let state = self.spin_state(id);
        if state.queued.is_none_or(|before| before == queued) {
            state.queued = Some(queued);
            return Ok(());
        }
        self.other_spin_use(id, queued, acquire)
    }

    #[cold]
    fn other_spin_use(&mut self, id: ObjId, queued: bool, acquire: bool) -> Check<()> {
        let state = self.spin_state(id);
        let free = state.owner.is_none() && state.turning.is_empty();
        let address = self.objects[id].address;
        if free && !self.pool.is_allocated(address) {
            self.spin_state(id).queued = Some(queued);
            return Ok(());
        }
        let code = if acquire { codes::verifier::WRONG_ACQUIRE_API } else { codes::verifier::WRONG_RELEASE_API };
        Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [code, address as u64, 0, 0],
            "a spin lock was used both as an ordinary and as an in-stack queued lock",
        ))
    }

    /// Releases a spin lock. `restore` is the level that the caller says it had before, when the release restores one.
    pub(crate) fn spin_release(&mut self, pointer: *mut KSPIN_LOCK, restore: Option<u8>, handle: usize) -> Check<()> {
        let id = self.spin_lock_at(pointer)?;
        self.check_spin_use(id, handle != 0, false)?;
        let me = self.spin_owner(None, handle);
        let too_low = self.irql() < DISPATCH_LEVEL;
        let state = self.spin_state(id);
        let owner = match state.owner {
            Some(owner) if owner.cpu == me.cpu && owner.thread == me.thread && owner.handle == handle && !too_low => owner,
            owner => return Err(self.wrong_spin_release(id, owner, handle)),
        };
        if let Some(restore) = restore
            && owner.old_irql != Some(restore)
        {
            return Err(self.wrong_spin_level(id, owner, restore));
        }
        state.owner = None;
        let turned_on = !state.turning.is_empty();
        self.write_spin_word(id, 0);
        let held = self.spin_locks_of(owner);
        if held.last() == Some(&id) {
            held.pop();
        } else {
            held.retain(|&held| held != id);
        }
        let number = self.objects[id].number;
        self.record(Operation::ReleaseSpinLock, number, 0);
        if turned_on {
            self.wake_turning(id);
        }
        if let Some(restore) = restore {
            self.set_irql(restore)?;
        }
        Ok(())
    }

    /// Why a spin lock cannot be released here.
    #[cold]
    fn wrong_spin_release(&self, id: ObjId, owner: Option<SpinOwner>, handle: usize) -> super::Fault {
        let (address, irql) = (self.objects[id].address as u64, self.irql());
        if irql < DISPATCH_LEVEL {
            return Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::SPIN_RELEASE_IRQL, u64::from(irql), address, 0],
                "a spin lock was released below DISPATCH_LEVEL",
            );
        }
        let why = match owner {
            None => "a spin lock was released that nobody held",
            Some(_) => "a spin lock was released by a processor, or with a queue handle, other than the one that acquired it",
        };
        if self.is_cancel_lock(id) && self.config.rules.has(RuleId::CancelSpinLock) {
            return Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::CANCEL_SPIN_LOCK, address, 1, 0],
                format!("{why}: it is the cancel spin lock (rule CancelSpinLock)"),
            );
        }
        if handle != 0 {
            return Self::wrong_queue_handle(
                address,
                handle,
                "an in-stack queued spin lock was released with a handle that does not hold it",
            );
        }
        Violation::boxed(codes::SPIN_LOCK_NOT_OWNED, [address, 0, 0, 0], why)
    }

    /// A queue handle was used out of turn.
    #[cold]
    pub(crate) fn wrong_queue_handle(lock: u64, handle: usize, why: &'static str) -> super::Fault {
        Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::QUEUED_SPIN_LOCK, lock, handle as u64, 0],
            why,
        )
    }

    /// A queue handle is not for a second lock while it holds one: its contents are those of the first.
    pub(crate) fn check_queue_handle(&self, handle: usize) -> Check<()> {
        let held = match self.executing {
            Executing::Thread(tid) => &self.threads[tid as usize].spin_locks,
            _ => &self.processors[self.cpu as usize].dpc_spin_locks,
        };
        for &id in held {
            let object = &self.objects[id];
            if matches!(&object.kind, Kind::SpinLock(state) if state.owner.is_some_and(|owner| owner.handle == handle)) {
                let why = "an in-stack queued spin lock was acquired with a handle that holds one";
                return Err(Self::wrong_queue_handle(object.address as u64, handle, why));
            }
        }
        Ok(())
    }

    fn is_cancel_lock(&self, id: ObjId) -> bool {
        self.objects[id].address == (&raw const *self.io.cancel_lock) as usize
    }

    /// A routine of a driver, at `routine`, returned while it held a spin lock.
    #[cold]
    pub(crate) fn spin_lock_held_at_return(&self, id: ObjId, what: &str, routine: u64) -> super::Fault {
        let object = &self.objects[id];
        let cancel = self.is_cancel_lock(id) && self.config.rules.has(RuleId::CancelSpinlockRelease);
        let queued = matches!(&object.kind, Kind::SpinLock(state) if state.queued == Some(true));
        let sub_code = match () {
            () if cancel => codes::verifier::CANCEL_SPIN_LOCK_HELD_AT_RETURN,
            () if queued => codes::verifier::QUEUED_SPIN_LOCK_HELD_AT_RETURN,
            () => codes::verifier::SPIN_LOCK_HELD_AT_RETURN,
        };
        let which = if self.is_cancel_lock(id) {
            "the cancel spin lock".to_owned()
        } else {
            format!("{} #{}", object.kind.name(), object.number)
        };
        Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [sub_code, object.address as u64, routine, 0],
            format!("{what} returned while it held {which}"),
        )
    }

    #[cold]
    fn wrong_spin_level(&self, id: ObjId, owner: SpinOwner, restore: u8) -> super::Fault {
        let old = owner.old_irql.map_or(u64::from(DISPATCH_LEVEL), u64::from);
        Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::RULE_IRQL_KE_RELEASE_SPIN_LOCK, u64::from(restore), old, self.objects[id].address as u64],
            "a spin lock was released to another IRQL than it was acquired at",
        )
    }

    /// After a release: a queued lock is handed to the first that turns; on an ordinary one all of them race again.
    fn wake_turning(&mut self, id: ObjId) {
        let state = self.spin_state(id);
        if state.queued == Some(true) {
            if let Some(next) = state.turning.pop_front() {
                state.owner = Some(next);
                self.spin_granted(id, next);
                self.stop_turning(next.cpu);
            }
            return;
        }
        for turning in std::mem::take(&mut state.turning) {
            self.stop_turning(turning.cpu);
        }
    }

    fn stop_turning(&mut self, cpu: Cpu) {
        self.note_processor_follows(cpu);
        self.processors[cpu as usize].spinning = false;
        self.update_runnable(cpu);
    }

    /// Sets the level of the acting processor, and nothing else.
    #[inline]
    pub(crate) fn change_level(&mut self, irql: u8) {
        let cpu = self.cpu;
        self.processors[cpu as usize].irql = irql;
        self.trace.level_changed(cpu, irql);
    }

    /// What runs on `cpu` goes on because of what acts.
    pub(crate) fn note_processor_follows(&mut self, cpu: Cpu) {
        if !self.observed && !self.races.enabled {
            return;
        }
        let processor = &self.processors[cpu as usize];
        let actor = match processor.current {
            Some(tid) if !processor.in_dpc => Actor::thread(tid),
            _ => Actor::dpcs(cpu),
        };
        self.note_follower(actor);
    }

    /// Sets the level of the acting processor, and lets happen what a lower one no longer holds back.
    #[inline]
    pub(crate) fn set_irql(&mut self, irql: u8) -> Check<()> {
        let processor = self.processor();
        let old = std::mem::replace(&mut processor.irql, irql);
        let cpu = self.cpu;
        self.trace.level_changed(cpu, irql);
        if irql < old {
            if old >= DISPATCH_LEVEL {
                let processor = &mut self.processors[cpu as usize];
                if irql < DISPATCH_LEVEL {
                    processor.dispatch_time = 0;
                    processor.dispatch_calls = 0;
                }
                if !processor.dpcs.is_empty() {
                    // They were held back until now.
                    self.note_follower(Actor::dpcs(cpu));
                    self.update_runnable(cpu);
                }
            }
            self.level_lowered()?;
        }
        Ok(())
    }
}
