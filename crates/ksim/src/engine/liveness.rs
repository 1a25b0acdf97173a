//! Objects whose memory went away while the kernel still knows them: dropped with a `Box` of the host's, overwritten, or on the stack of a function that has returned.
//!
//! Pool says when it is freed, other memory does not. So what the kernel has written into an object is compared before it is used, and for one on the stack of another thread, or one that the
//! kernel uses by itself, whether its frame is still there: below the last call of its thread nothing is but the kernel's own frames. Where those lie over what was an object, the comparison finds it.

use super::context::last_call;
use super::kernel::{Check, Executing, Kernel};
use super::object::{Kind, ObjId, ObjectTable};
use super::thread::Tid;
use crate::check::rules::RuleId;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{DISPATCHER_HEADER, KDPC, KTIMER};

/// What of the first four bytes does not change: of a dispatcher header the type and the size, of a DPC the type and the processor.
const BEGINNING: u32 = 0x00ff_00ff;

/// On whose stack an object lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StackOf {
    /// On none.
    Nobody,
    /// Perhaps on one.
    Unasked,
    Thread(Tid),
}

impl ObjectTable {
    /// The kernel has written the beginning of an object, which must stay so.
    pub(super) fn note_beginning(&mut self, id: ObjId) {
        let object = &mut self[id];
        // SAFETY: the structure has just been written, and is at least so large.
        object.beginning = unsafe { (object.address as *const u32).read() } & BEGINNING;
    }
}

impl Kernel {
    /// Checks that an object is still there, before it is used.
    #[inline(always)]
    pub(crate) fn check_live(&mut self, id: ObjId) -> Check<()> {
        let object = &self.objects[id];
        let has_begun = object.beginning == 0 || {
            // SAFETY: what has a beginning was initialised at its address by a call, whose caller vouched for the memory until the object's last use, which this is.
            let found = unsafe { (object.address as *const u32).read() };
            found & BEGINNING == object.beginning
        };
        if !has_begun {
            return Err(self.overwritten(id));
        }
        match object.stack_of {
            StackOf::Nobody => Ok(()),
            // Who passes what is on its own stack has it there, but for the rarest of cases, and does so all the time.
            StackOf::Thread(tid) if self.executing == Executing::Thread(tid) || self.is_in_frame(object.address, tid) => Ok(()),
            _ => self.check_frame(id),
        }
    }

    /// True for what lies on the stack of a thread that does not run, where its frames are. Nearly all that others use does.
    #[inline(always)]
    fn is_in_frame(&self, address: usize, tid: Tid) -> bool {
        let thread = self.threads.get(tid as usize).and_then(|thread| thread.context.as_deref());
        thread.is_some_and(|context| address >= context.last_call())
    }

    #[inline(never)]
    fn check_frame(&mut self, id: ObjId) -> Check<()> {
        let object = &self.objects[id];
        let StackOf::Thread(tid) = object.stack_of else { return self.find_stack(id) };
        if object.address >= self.last_call_of(tid) { Ok(()) } else { self.check_returned(id, tid) }
    }

    /// The frame of the last call of a thread, or 0.
    #[inline(always)]
    fn last_call_of(&self, tid: Tid) -> usize {
        if self.executing == Executing::Thread(tid) {
            return last_call();
        }
        self.threads[tid as usize].context.as_ref().map_or(0, |context| context.last_call())
    }

    #[inline(never)]
    fn find_stack(&mut self, id: ObjId) -> Check<()> {
        let address = self.objects[id].address;
        let owner = self.threads.iter().position(|thread| thread.stack.contains(&address));
        self.objects[id].stack_of = owner.map_or(StackOf::Nobody, |tid| StackOf::Thread(tid as Tid));
        if owner.is_some() { self.check_frame(id) } else { Ok(()) }
    }

    #[inline(never)]
    fn check_returned(&self, id: ObjId, tid: Tid) -> Check<()> {
        let is_on_stack = self.threads[tid as usize].stack.contains(&self.last_call_of(tid));
        if is_on_stack && self.config.rules.has(RuleId::StackObjectInUse) {
            return Err(self.in_returned_frame(id, tid));
        }
        Ok(())
    }

    /// The same before the kernel uses an object by itself, with all that it has written.
    pub(crate) fn check_intact(&mut self, id: ObjId) -> Check<()> {
        self.check_live(id)?;
        if self.objects[id].stack_of != StackOf::Nobody {
            self.check_frame(id)?;
        }
        if self.objects[id].beginning != 0 && !self.is_intact(id) {
            return Err(self.overwritten(id));
        }
        Ok(())
    }

    /// The same for what a thread waits on, before its wait ends and it leaves the lists there.
    pub(super) fn check_waited(&mut self, tid: Tid) -> Check<()> {
        for index in 0..self.threads[tid as usize].wait.objects.len() {
            let id = self.threads[tid as usize].wait.objects[index];
            if self.objects[id].waiters.iter().any(|waiter| waiter.thread == tid) {
                self.check_intact(id)?;
            }
        }
        Ok(())
    }

    fn is_intact(&mut self, id: ObjId) -> bool {
        let address = self.objects[id].address;
        match &self.objects[id].kind {
            Kind::Dpc(state) => {
                let importance = state.importance;
                // SAFETY: as in `check_live`.
                let dpc = unsafe { (address as *const KDPC).read() };
                i32::from(dpc.Importance) == importance && dpc.DpcListEntry.Next.is_null() && dpc.DpcData.is_null()
            }
            Kind::Timer(state) => {
                let (armed, period, dpc) = (state.armed.is_some(), state.period, state.dpc.map_or(0, |(_, address)| address));
                // SAFETY: as in `check_live`.
                let timer = unsafe { (address as *const KTIMER).read() };
                let found = (timer.Header.Inserted, timer.Period, timer.Dpc as usize);
                // One that was initialised again while it was armed still expires (rule 55).
                let is_as_written = found == (u8::from(armed), period, dpc) || found == (0, 0, 0);
                is_as_written && self.has_its_waiters(id)
            }
            kind if kind.is_waitable() => self.has_its_waiters(id),
            _ => true,
        }
    }

    /// True when the true wait list begins with the first waiter.
    fn has_its_waiters(&mut self, id: ObjId) -> bool {
        let first = self.objects[id].waiters.front().copied();
        let entry = self.list_entry(id, first);
        let header = self.objects[id].address as *const DISPATCHER_HEADER;
        // SAFETY: as in `check_live`.
        unsafe { (*header).WaitListHead.Flink == entry }
    }

    #[cold]
    fn overwritten(&self, id: ObjId) -> super::Fault {
        let object = &self.objects[id];
        let (name, number, address) = (object.kind.name(), object.number, object.address as u64);
        let (code, first, meaning) = match self.problem_of_freeing(id) {
            Some((code, first, problem)) => {
                (code, first, format!("the memory of {name} #{number}, which {problem}, was freed or overwritten"))
            }
            None => (
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                codes::verifier::UNINITIALIZED_OBJECT,
                format!("{name} #{number} was used, whose memory was freed or overwritten"),
            ),
        };
        Violation::boxed_owned(code, [first, address, 0, 0], meaning)
    }

    #[cold]
    fn in_returned_frame(&self, id: ObjId, tid: Tid) -> super::Fault {
        let object = &self.objects[id];
        let state = self.problem_of_freeing(id).map_or_else(|| "was used".to_owned(), |(_, _, problem)| problem.to_owned());
        Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::STACK_OBJECT_IN_USE, object.address as u64, self.threads[tid as usize].address() as u64, 0],
            format!(
                "{} #{} {state}, on the stack of a function that has returned, in thread #{}",
                object.kind.name(),
                object.number,
                self.thread_number(tid)
            ),
        )
    }

    /// The run is over: is what is still to expire there?
    pub(crate) fn check_armed_at_end(&mut self) -> Check<()> {
        if self.timers.is_empty() && !self.timers.has_deferred() {
            return Ok(());
        }
        let armed: Vec<ObjId> = self.timers.armed().collect();
        armed.into_iter().try_for_each(|id| self.check_intact(id))
    }
}
