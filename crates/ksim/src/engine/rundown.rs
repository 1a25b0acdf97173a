//! EX_RUNDOWN_REF: rundown protection (rule 31).

use super::kernel::{Check, Executing, Kernel};
use super::object::{Identity, Kind, ObjId};
use super::thread::Tid;
use crate::check::lock_order::Wanted;
use crate::report::UsesLeft;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::EX_RUNDOWN_REF;

/// A rundown reference's state beside its word, which holds twice the count, or 1 once rundown is over.
#[derive(Debug, Default)]
pub(crate) struct RundownState {
    references: u64,
    /// A wait has begun: nothing is acquired any more.
    begun: bool,
    waiting: Vec<Tid>,
    /// The driver that has initialised it.
    driver: Option<u16>,
}

impl RundownState {
    /// Somebody has acquired it, or waits for those who have.
    pub(crate) fn is_in_use(&self) -> bool {
        self.references > 0 || !self.waiting.is_empty()
    }
}

impl Kernel {
    fn rundown_at(&mut self, pointer: *mut EX_RUNDOWN_REF) -> Check<ObjId> {
        let word: *const usize = pointer.cast_const().cast();
        let known = self.objects.find(pointer as usize).is_some_and(|id| matches!(self.objects[id].kind, Kind::Rundown(_)));
        if !known && (pointer as usize) >= 0x1_0000 {
            self.objects.claim(pointer as usize);
            // A word of 1 is a reference that is run down, which header code may store as well as a 0.
            // SAFETY: the caller of the export vouches for the pointer.
            if unsafe { word.read() } == 1 {
                let state = RundownState { begun: true, ..RundownState::default() };
                return Ok(self.objects.register(pointer as usize, Kind::Rundown(Box::new(state))));
            }
        }
        self.word_object(word, "rundown reference", |kind| matches!(kind, Kind::Rundown(_)), || Kind::Rundown(Box::default()))
    }

    fn rundown_state(&mut self, id: ObjId) -> &mut RundownState {
        match &mut self.objects[id].kind {
            Kind::Rundown(state) => state,
            _ => unreachable!("the caller found a rundown reference here"),
        }
    }

    fn write_rundown_word(&mut self, id: ObjId) {
        let pointer = self.objects[id].address as *mut usize;
        let state = self.rundown_state(id);
        let word = (state.references as usize) << 1 | usize::from(state.begun);
        // SAFETY: the reference is registered, so that its memory is valid.
        unsafe { pointer.write(word) };
    }

    /// ExInitializeRundownProtection.
    pub(crate) fn initialize_rundown(&mut self, pointer: *mut EX_RUNDOWN_REF) -> Check<()> {
        if let Some(id) = self.objects.find(pointer as usize) {
            let used = matches!(&self.objects[id].kind, Kind::Rundown(state) if state.is_in_use());
            if used {
                return Err(Violation::boxed(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::REINITIALIZED_OBJECT, pointer as u64, 0, 0],
                    "rundown protection was initialised again while it was acquired, or waited for",
                ));
            }
            self.objects.remove(id);
        }
        // SAFETY: the caller of the export passes memory for a rundown reference.
        unsafe { pointer.cast::<usize>().write(0) };
        let id = self.rundown_at(pointer)?;
        self.objects[id].identity = Identity::Known;
        self.rundown_state(id).driver = self.current_driver();
        Ok(())
    }

    /// Acquires protection `count` times. False once the wait has begun.
    pub(crate) fn acquire_rundown(&mut self, pointer: *mut EX_RUNDOWN_REF, count: u32) -> Check<bool> {
        let id = self.rundown_at(pointer)?;
        let number = self.objects[id].number;
        let state = self.rundown_state(id);
        let granted = !state.begun;
        if granted {
            self.note_rundown(id, count);
            let state = self.rundown_state(id);
            state.references += u64::from(count);
            self.uses += u64::from(count);
            self.write_rundown_word(id);
        }
        self.record(Operation::AcquireRundown, number, u64::from(granted));
        Ok(granted)
    }

    /// The running thread holds protection, for the order of locks. What it takes in large numbers is for others to release.
    fn note_rundown(&mut self, id: ObjId, count: u32) {
        const OWN: u32 = 4;
        if let Executing::Thread(tid) = self.executing
            && count <= OWN
        {
            let held = &mut self.thread(tid).rundowns;
            held.extend(std::iter::repeat_n(id, count as usize));
        }
    }

    /// What acts releases protection. If it releases what others have acquired, nobody can tell whose is left.
    fn forget_rundown(&mut self, id: ObjId, count: u32) {
        let mut missing = count;
        if let Executing::Thread(tid) = self.executing {
            self.thread(tid).rundowns.retain(|&held| {
                let released = held == id && missing > 0;
                missing -= u32::from(released);
                !released
            });
        }
        if missing > 0 {
            self.threads.iter_mut().filter(|thread| !thread.rundowns.is_empty()).for_each(|thread| {
                thread.rundowns.retain(|&held| held != id);
            });
        }
    }

    /// Releases protection `count` times. The last release ends the wait.
    pub(crate) fn release_rundown(&mut self, pointer: *mut EX_RUNDOWN_REF, count: u32) -> Check<()> {
        let id = self.rundown_at(pointer)?;
        let number = self.objects[id].number;
        let state = self.rundown_state(id);
        let Some(left) = state.references.checked_sub(u64::from(count)) else {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::NOT_ACQUIRED, pointer as u64, u64::from(count), 0],
                "rundown protection was released more often than it was acquired",
            ));
        };
        state.references = left;
        self.uses = self.uses.saturating_sub(u64::from(count));
        self.forget_rundown(id, count);
        self.order_published(id);
        let state = self.rundown_state(id);
        let waiting = if left == 0 { std::mem::take(&mut state.waiting) } else { Vec::new() };
        self.write_rundown_word(id);
        self.record(Operation::ReleaseRundown, number, left);
        for tid in waiting {
            self.unpark(tid, id);
        }
        Ok(())
    }

    /// True when nobody holds protection. Nothing is acquired any more in either case.
    pub(crate) fn begin_rundown(&mut self, pointer: *mut EX_RUNDOWN_REF) -> Check<bool> {
        let id = self.rundown_at(pointer)?;
        let state = self.rundown_state(id);
        state.begun = true;
        let over = state.references == 0;
        self.write_rundown_word(id);
        Ok(over)
    }

    /// The same where the running thread waits if somebody does.
    pub(crate) fn wait_for_rundown(&mut self, pointer: *mut EX_RUNDOWN_REF) -> Check<bool> {
        let id = self.rundown_at(pointer)?;
        self.check_lock_order(id, Wanted::Only)?;
        let tid = self.this_thread();
        let number = self.objects[id].number;
        let state = self.rundown_state(id);
        state.begun = true;
        let over = state.references == 0;
        if over {
            self.order_learned(id, tid);
        }
        let state = self.rundown_state(id);
        if !over && !state.waiting.contains(&tid) {
            state.waiting.push(tid);
        }
        self.write_rundown_word(id);
        self.record(Operation::WaitForRundown, number, u64::from(over));
        if !over {
            self.park(id, "rundown protection")?;
        }
        Ok(over)
    }

    /// The rundown references and remove locks that somebody has acquired and not released, by number, with how often.
    pub(crate) fn uses_left(&self) -> Vec<UsesLeft> {
        if self.uses == 0 {
            return Vec::new();
        }
        let mut left: Vec<_> = self
            .objects
            .iter()
            .filter_map(|(_, object)| {
                let uses = match &object.kind {
                    Kind::Rundown(state) => state.references,
                    Kind::RemoveLock(state) => state.users.len() as u64,
                    _ => 0,
                };
                (uses > 0).then(|| UsesLeft { kind: object.kind.name(), number: object.number, uses })
            })
            .collect();
        left.sort_by_key(|left| left.number);
        left
    }

    /// A rundown reference of a driver that is acquired: its number, and how often.
    pub(crate) fn rundown_of_driver(&self, driver: u16) -> Option<(usize, u32, u64)> {
        self.objects.iter().find_map(|(_, object)| match &object.kind {
            Kind::Rundown(state) if state.references > 0 && state.driver == Some(driver) => {
                Some((object.address, object.number, state.references))
            }
            _ => None,
        })
    }

    /// Makes protection available again after a wait, or marks it as run down.
    pub(crate) fn set_rundown(&mut self, pointer: *mut EX_RUNDOWN_REF, run_down: bool) -> Check<()> {
        let id = self.rundown_at(pointer)?;
        let state = self.rundown_state(id);
        if !state.begun || state.references > 0 {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REINITIALIZED_OBJECT, pointer as u64, 0, 0],
                "rundown protection was re-initialised or completed without a wait for its release",
            ));
        }
        state.begun = run_down;
        self.write_rundown_word(id);
        Ok(())
    }
}
