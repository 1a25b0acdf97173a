//! EX_SPIN_LOCK: reader-writer spin locks (rule 37).
//!
//! A writer that turns keeps new readers out, until another that was the writer releases the lock. Otherwise whoever comes first when the lock allows it has it.

use super::kernel::{Check, Executing, Kernel};
use super::object::{Kind, ObjId};
use super::spin::{Attempt, SpinOwner};
use crate::check::lock_order::Wanted;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::EX_SPIN_LOCK;

/// The bit of the word that says exclusive.
const EXCLUSIVE_WORD: u32 = 0x8000_0000;

/// A reader-writer spin lock's state beside its word.
#[derive(Debug, Default)]
pub(crate) struct SpinRwState {
    pub(crate) exclusive: Option<SpinOwner>,
    pub(crate) shared: Vec<SpinOwner>,
    /// Processors that turn, and whether for exclusive ownership.
    pub(crate) turning: Vec<(SpinOwner, bool)>,
}

impl SpinRwState {
    pub(crate) fn is_held(&self) -> bool {
        self.exclusive.is_some() || !self.shared.is_empty()
    }

    /// True when somebody turns to have it for himself.
    pub(crate) fn is_contended(&self) -> bool {
        self.turning.iter().any(|(_, exclusive)| *exclusive)
    }

    fn is_held_by(&self, owner: SpinOwner) -> bool {
        self.exclusive.iter().chain(&self.shared).any(|held| held.cpu == owner.cpu)
    }
}

/// The result of finding an owner: its place among the sharing ones, or exclusive.
fn owns(held: SpinOwner, me: SpinOwner) -> bool {
    held.cpu == me.cpu && held.thread == me.thread
}

impl Kernel {
    fn spin_rw_at(&mut self, pointer: *mut EX_SPIN_LOCK) -> Check<ObjId> {
        self.word_object(
            pointer.cast_const(),
            "reader-writer spin lock",
            |kind| matches!(kind, Kind::SpinRw(_)),
            || Kind::SpinRw(Box::default()),
        )
    }

    fn spin_rw_state(&mut self, id: ObjId) -> &mut SpinRwState {
        match &mut self.objects[id].kind {
            Kind::SpinRw(state) => state,
            _ => unreachable!("the caller found a reader-writer spin lock here"),
        }
    }

    fn spin_rw_actor(&self, old_irql: Option<u8>) -> SpinOwner {
        let thread = match self.executing {
            Executing::Thread(tid) => Some(tid),
            _ => None,
        };
        SpinOwner { cpu: self.cpu, thread, old_irql, handle: 0 }
    }

    pub(super) fn write_spin_rw_word(&mut self, id: ObjId) {
        let pointer = self.objects[id].address as *mut EX_SPIN_LOCK;
        let state = self.spin_rw_state(id);
        let word = if state.exclusive.is_some() { EXCLUSIVE_WORD } else { state.shared.len() as u32 };
        // SAFETY: the lock is registered, so that its memory is valid.
        unsafe { pointer.write(word as i32) };
    }

    /// One attempt to take the lock, at DISPATCH_LEVEL or above. With `turn`, the processor turns when it cannot have it.
    pub(crate) fn spin_rw_acquire(
        &mut self,
        pointer: *mut EX_SPIN_LOCK,
        exclusive: bool,
        old_irql: Option<u8>,
        turn: bool,
    ) -> Check<Option<Attempt>> {
        let id = self.spin_rw_at(pointer)?;
        if turn {
            self.check_lock_order(id, Wanted::of(exclusive))?;
        }
        let me = self.spin_rw_actor(old_irql);
        let number = self.objects[id].number;
        let state = self.spin_rw_state(id);
        state.turning.retain(|(turning, _)| turning.cpu != me.cpu);
        let writer_turns = state.turning.iter().any(|(_, exclusive)| *exclusive);
        let free = if exclusive { !state.is_held() } else { state.exclusive.is_none() && !writer_turns };
        if state.is_held_by(me) {
            if !turn {
                return Ok(None);
            }
            return Err(Violation::boxed(
                codes::SPIN_LOCK_ALREADY_OWNED,
                [pointer as u64, 0, 0, 0],
                "a reader-writer spin lock was acquired by the processor that holds it, shared or not",
            ));
        }
        if free {
            if exclusive {
                state.exclusive = Some(me);
            } else {
                state.shared.push(me);
            }
            self.write_spin_rw_word(id);
            self.spin_rw_locks(me).push(id);
            self.record(Operation::AcquireSpinLock, number, 2 + u64::from(exclusive));
            return Ok(Some(Attempt::Acquired));
        }
        if !turn {
            return Ok(None);
        }
        state.turning.push((me, exclusive));
        self.processor().spinning = true;
        let cpu = self.cpu;
        self.update_runnable(cpu);
        self.attention = true;
        self.note(Operation::SpinOnLock, number, 0);
        Ok(Some(Attempt::Turning))
    }

    fn spin_rw_locks(&mut self, owner: SpinOwner) -> &mut Vec<ObjId> {
        match owner.thread {
            Some(tid) => &mut self.threads[tid as usize].spin_locks,
            None => &mut self.processors[owner.cpu as usize].dpc_spin_locks,
        }
    }

    /// Releases the lock. `restore` is the level that the caller says it had before, when the release restores one.
    pub(crate) fn spin_rw_release(&mut self, pointer: *mut EX_SPIN_LOCK, exclusive: bool, restore: Option<u8>) -> Check<()> {
        let id = self.spin_rw_at(pointer)?;
        let me = self.spin_rw_actor(restore);
        let irql = self.irql();
        if irql < DISPATCH_LEVEL {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::SPIN_RELEASE_IRQL, u64::from(irql), pointer as u64, 0],
                "a reader-writer spin lock was released below DISPATCH_LEVEL",
            ));
        }
        let number = self.objects[id].number;
        let state = self.spin_rw_state(id);
        let owner = if exclusive {
            state.exclusive.take_if(|owner| owns(*owner, me))
        } else {
            let position = state.shared.iter().position(|owner| owns(*owner, me));
            position.map(|position| state.shared.swap_remove(position))
        };
        let Some(owner) = owner else {
            return Err(Violation::boxed(
                codes::SPIN_LOCK_NOT_OWNED,
                [pointer as u64, 0, 0, 0],
                "a reader-writer spin lock was released by one that does not hold it so",
            ));
        };
        if let Some(restore) = restore
            && owner.old_irql != Some(restore)
        {
            let old = owner.old_irql.map_or(u64::from(DISPATCH_LEVEL), u64::from);
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::RULE_IRQL_KE_RELEASE_SPIN_LOCK, u64::from(restore), old, pointer as u64],
                "a reader-writer spin lock was released to another IRQL than it was acquired at",
            ));
        }
        let turning: Vec<u8> = state.turning.iter().map(|(turning, _)| turning.cpu).collect();
        if exclusive {
            // NT stores 0, which no longer says that a writer turns, until that looks again.
            state.turning.clear();
        }
        self.write_spin_rw_word(id);
        let locks = self.spin_rw_locks(owner);
        if let Some(position) = locks.iter().position(|&held| held == id) {
            locks.swap_remove(position);
        }
        self.record(Operation::ReleaseSpinLock, number, 2 + u64::from(exclusive));
        for cpu in turning {
            // One that an earlier release has let try again need not have tried yet: it does not go on because of this one.
            if !self.processors[cpu as usize].spinning {
                continue;
            }
            self.note_processor_follows(cpu);
            self.processors[cpu as usize].spinning = false;
            self.update_runnable(cpu);
        }
        match restore {
            Some(restore) => self.set_irql(restore),
            None => Ok(()),
        }
    }

    /// The sole reader becomes the writer, unless another writer turns. True when it did.
    pub(crate) fn spin_rw_convert(&mut self, pointer: *mut EX_SPIN_LOCK) -> Check<bool> {
        let id = self.spin_rw_at(pointer)?;
        let me = self.spin_rw_actor(None);
        let state = self.spin_rw_state(id);
        let Some(position) = state.shared.iter().position(|owner| owns(*owner, me)) else {
            return Err(Violation::boxed(
                codes::SPIN_LOCK_NOT_OWNED,
                [pointer as u64, 0, 0, 0],
                "a reader-writer spin lock was converted by one that does not share it",
            ));
        };
        if state.shared.len() > 1 || state.turning.iter().any(|(_, exclusive)| *exclusive) {
            return Ok(false);
        }
        state.exclusive = Some(state.shared.swap_remove(position));
        self.write_spin_rw_word(id);
        Ok(true)
    }
}
