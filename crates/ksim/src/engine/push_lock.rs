//! EX_PUSH_LOCK (rule 30).
//!
//! A release frees the lock and wakes the head of its queue: one exclusive waiter, or all sharing ones up to the next exclusive.
//! Until these run, others may take the lock: NT's push locks are not fair. A waiter keeps its place until it has the lock.

use super::kernel::{Check, Kernel};
use super::object::{Identity, Kind, ObjId};
use super::thread::Tid;
use crate::check::lock_order::Wanted;
use crate::irql::APC_LEVEL;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::EX_PUSH_LOCK;
use std::collections::VecDeque;

/// The flags that the Ex forms accept.
const FLAGS: u32 = 3;
/// What the word holds: 0 free, 1 exclusive, else the number of sharing owners times 16, plus 1.
const EXCLUSIVE_WORD: usize = 1;

/// A push lock's state beside its word.
#[derive(Debug, Default)]
pub(crate) struct PushState {
    pub(crate) exclusive: Option<Tid>,
    pub(crate) shared: Vec<Tid>,
    waiting: VecDeque<(Tid, bool)>,
}

impl PushState {
    /// Nobody else holds it or waits for it.
    pub(super) fn leave_to(&mut self, thread: Option<Tid>) {
        self.exclusive = self.exclusive.filter(|&owner| Some(owner) == thread);
        self.shared.retain(|&owner| Some(owner) == thread);
        self.waiting.clear();
    }

    /// True when somebody holds it or waits for it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.exclusive.is_some() || !self.shared.is_empty() || !self.waiting.is_empty()
    }

    /// True when somebody waits to have it for himself.
    pub(crate) fn is_contended(&self) -> bool {
        self.waiting.iter().any(|(_, exclusive)| *exclusive)
    }

    fn is_free_for(&self, exclusive: bool) -> bool {
        self.exclusive.is_none() && (!exclusive || self.shared.is_empty())
    }

    /// The waiters that a release wakes.
    fn head(&self) -> Vec<Tid> {
        match self.waiting.front() {
            Some(&(tid, true)) => vec![tid],
            _ => self.waiting.iter().take_while(|(_, exclusive)| !exclusive).map(|(tid, _)| *tid).collect(),
        }
    }
}

impl Kernel {
    /// The push lock whose word is at `pointer`. A word that is 0 is a free lock, initialised or not.
    fn push_lock_at(&mut self, pointer: *mut EX_PUSH_LOCK) -> Check<ObjId> {
        self.word_object(
            pointer.cast_const(),
            "push lock",
            |kind| matches!(kind, Kind::PushLock(_)),
            || Kind::PushLock(Box::default()),
        )
    }

    /// True when a push lock is held exclusively.
    pub(crate) fn is_push_lock_exclusive(&mut self, pointer: *mut EX_PUSH_LOCK) -> Check<bool> {
        let id = self.push_lock_at(pointer)?;
        Ok(self.push_state(id).exclusive.is_some())
    }

    fn push_state(&mut self, id: ObjId) -> &mut PushState {
        match &mut self.objects[id].kind {
            Kind::PushLock(state) => state,
            _ => unreachable!("the caller found a push lock here"),
        }
    }

    pub(super) fn write_push_word(&mut self, id: ObjId) {
        let pointer = self.objects[id].address as *mut EX_PUSH_LOCK;
        let state = self.push_state(id);
        let word = if state.exclusive.is_some() {
            EXCLUSIVE_WORD
        } else if state.shared.is_empty() {
            0
        } else {
            state.shared.len() << 4 | 1
        };
        // SAFETY: the lock is registered, so that its memory is valid.
        unsafe { pointer.write(word) };
    }

    /// ExInitializePushLock.
    pub(crate) fn initialize_push_lock(&mut self, pointer: *mut EX_PUSH_LOCK) -> Check<()> {
        if let Some(id) = self.objects.find(pointer as usize) {
            if let Kind::PushLock(state) = &self.objects[id].kind
                && state.is_in_use()
            {
                return Err(Violation::boxed(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::REINITIALIZED_OBJECT, pointer as u64, 0, 0],
                    "a push lock was initialised again while it was in use",
                ));
            }
            self.objects.remove(id);
        }
        // SAFETY: the caller of the export passes memory for a push lock.
        unsafe { pointer.write(0) };
        let id = self.push_lock_at(pointer)?;
        self.objects[id].identity = Identity::Known;
        Ok(())
    }

    /// What every use of a push lock needs: flags that exist, and normal kernel APCs held back.
    pub(crate) fn check_push_use(&mut self, pointer: *mut EX_PUSH_LOCK, flags: u32, sub_code: u64) -> Check<()> {
        if flags & !FLAGS != 0 {
            return Err(Violation::boxed(
                codes::INVALID_PUSH_LOCK_FLAGS,
                [u64::from(flags), pointer as u64, 0, 0],
                "a push lock routine was called with flags that do not exist",
            ));
        }
        let tid = self.this_thread();
        if self.irql() >= APC_LEVEL || self.threads[tid as usize].apc.normal_disabled() || !self.config.rules.has_level(sub_code)
        {
            return Ok(());
        }
        Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [sub_code, u64::from(self.irql()), pointer as u64, 0],
            "a push lock was acquired or released with normal kernel APCs enabled",
        ))
    }

    /// One attempt to take the lock. With `wait`, the thread queues and waits when it cannot have it; it tries again when it
    /// goes on.
    pub(crate) fn push_acquire(&mut self, pointer: *mut EX_PUSH_LOCK, exclusive: bool, wait: bool) -> Check<bool> {
        let id = self.push_lock_at(pointer)?;
        if wait {
            self.check_lock_order(id, Wanted::of(exclusive))?;
        }
        let tid = self.this_thread();
        let number = self.objects[id].number;
        let state = self.push_state(id);
        let queued = state.waiting.iter().position(|(waiting, _)| *waiting == tid);
        let behind_exclusive = queued.is_none() && !exclusive && state.waiting.iter().any(|(_, exclusive)| *exclusive);
        if state.is_free_for(exclusive) && !behind_exclusive {
            if let Some(position) = queued {
                state.waiting.remove(position);
            }
            if exclusive {
                state.exclusive = Some(tid);
            } else {
                state.shared.push(tid);
            }
            self.write_push_word(id);
            self.threads[tid as usize].push_locks.push(id);
            self.record(Operation::AcquirePushLock, number, u64::from(exclusive));
            return Ok(true);
        }
        if !wait {
            return Ok(false);
        }
        if state.exclusive == Some(tid) || (exclusive && state.shared.contains(&tid)) {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::SELF_DEADLOCK, pointer as u64, 0, 0],
                "a push lock was acquired by a thread that holds it: it would wait for itself for ever",
            ));
        }
        if queued.is_none() {
            state.waiting.push_back((tid, exclusive));
        }
        self.park(id, "push lock")?;
        Ok(false)
    }

    /// Releases the lock and wakes the head of its queue when that could have it.
    pub(crate) fn push_release(&mut self, pointer: *mut EX_PUSH_LOCK, exclusive: bool) -> Check<()> {
        let id = self.push_lock_at(pointer)?;
        let tid = self.this_thread();
        let number = self.objects[id].number;
        let state = self.push_state(id);
        let held = if exclusive {
            state.exclusive.take_if(|owner| *owner == tid).is_some()
        } else {
            let position = state.shared.iter().position(|owner| *owner == tid);
            position.is_some_and(|position| {
                state.shared.swap_remove(position);
                true
            })
        };
        if !held {
            return Err(Violation::boxed(
                codes::KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE,
                [pointer as u64, 0, 0, 0],
                "a push lock was released by a thread that does not hold it so",
            ));
        }
        let woken = if state.shared.is_empty() { state.head() } else { Vec::new() };
        self.write_push_word(id);
        let locks = &mut self.threads[tid as usize].push_locks;
        if let Some(position) = locks.iter().position(|&lock| lock == id) {
            locks.swap_remove(position);
        }
        self.record(Operation::ReleasePushLock, number, u64::from(exclusive));
        for tid in woken {
            self.unpark(tid, id);
        }
        Ok(())
    }
}
